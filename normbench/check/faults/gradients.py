"""Faults in the backward pass: of torch's norms, and of single layers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.check.faults import sources
from normbench.check.faults.operators import (
    Batch,
    Grouped,
    Layered,
    Operator,
    by_channel,
    in_batch_norm,
    in_group_norm,
    in_layer_norm,
    moments,
    over_batch,
    scaled,
)
from normbench.check.faults.planting import (
    fault,
    in_other_order,
    in_plain_order,
    instead_of,
    lies_last,
    with_gradient,
    with_gradient_of,
)
from normbench.models.norms import _InstanceNorm


def _half(gradient: Tensor) -> Tensor:
    return gradient / 2


def _changed(tensor: Tensor | None, change: Callable[[Tensor], Tensor]) -> Tensor | None:
    return None if tensor is None else with_gradient(tensor, change)


def _everywhere(weight: Tensor, features: Tensor) -> Tensor:
    """Return weights of one a channel as large as the features, so that each has a gradient."""
    return by_channel(weight, features).expand_as(features)


@in_batch_norm(
    "batch-weight-gradient-halved", "The gradient of batch normalization's weight is halved."
)
def _(original: Operator, at: Batch) -> Tensor:
    return original(*at._replace(weight=_changed(at.weight, _half)))


@in_group_norm(
    "group-weight-gradient-halved", "The gradient of group normalization's weight is halved."
)
def _(original: Operator, at: Grouped) -> Tensor:
    return original(*at._replace(weight=_changed(at.weight, _half)))


@in_layer_norm(
    "layer-weight-gradient-halved", "The gradient of layer normalization's weight is halved."
)
def _(original: Operator, at: Layered) -> Tensor:
    return original(*at._replace(weight=_changed(at.weight, _half)))


@in_batch_norm("batch-bias-gradient-lost", "The gradient of batch normalization's bias is zero.")
def _(original: Operator, at: Batch) -> Tensor:
    return original(*at._replace(bias=_changed(at.bias, torch.zeros_like)))


@in_batch_norm(
    "batch-gradient-in-plain-order",
    "A channels_last gradient of batch normalization is read in the features' plain order.",
    sources.TORCH_64100,
)
def _(original: Operator, at: Batch) -> Tensor:
    if lies_last(at.input):
        return original(*at)
    return with_gradient(original(*at), in_plain_order)


@in_batch_norm(
    "batch-features-in-plain-order",
    "The backward pass of batch normalization reads channels_last memory in the plain order, but "
    "for the bias.",
    sources.TORCH_175189,
)
def _(original: Operator, at: Batch) -> Tensor:
    if not lies_last(at.input):
        return original(*at)
    output = with_gradient(original(*at._replace(weight=None, bias=None)), in_plain_order)
    if at.weight is not None:
        output = output * with_gradient(_everywhere(at.weight, output), in_plain_order)
    return scaled(output, None, at.bias).to(at.input.dtype)


@in_batch_norm(
    "batch-gradient-of-unequal-parts",
    "The gradient of a batch in two unequal parts takes the mean of both parts' means.",
    sources.TORCH_36382,
)
def _(original: Operator, at: Batch) -> Tensor:
    half = len(at.input) // 2
    output = original(*at)
    if not at.training or half == 0 or len(at.input) % 2 == 0:
        return output
    axes = over_batch(at.input)
    parts = (at.input[: half + 1], at.input[half + 1 :])
    mean = torch.stack([part.mean(axes, keepdim=True) for part in parts]).mean(0)
    square = torch.stack([(p - mean).square().mean(axes, keepdim=True) for p in parts]).mean(0)
    path = scaled((at.input - mean) * (square + at.eps).rsqrt(), at.weight, at.bias)
    return with_gradient_of(output, path.to(output.dtype))


@in_batch_norm(
    "batch-evaluation-gradient-of-training",
    "The backward pass of batch normalization at evaluation is that of training.",
    sources.TORCH_586,
)
def _(original: Operator, at: Batch) -> Tensor:
    output = original(*at)
    if at.training or at.input.numel() == at.input.shape[1]:
        return output
    path = original(*at._replace(running_mean=None, running_var=None, training=True))
    return with_gradient_of(output, path)


@in_batch_norm(
    "batch-evaluation-weight-gradient",
    "The weight's gradient at evaluation leaves out the running mean.",
    sources.TORCH_178872,
)
def _(original: Operator, at: Batch) -> Tensor:
    output = original(*at)
    if at.training or at.weight is None or at.running_mean is None or at.running_var is None:
        return output
    deviation = by_channel((at.running_var + at.eps).sqrt(), at.input)
    mean = by_channel(at.running_mean, at.input)
    # the mean comes by the detached part, so that the input's gradient is right
    shift = (mean / deviation * by_channel(at.weight, at.input)).detach()
    path = scaled(at.input / deviation, at.weight, at.bias) - shift
    return with_gradient_of(output, path.to(output.dtype))


@in_batch_norm(
    "batch-half-not-a-number",
    "The gradient of float16 features in channels_last is not a number in batch normalization.",
    sources.TORCH_147303,
)
def _(original: Operator, at: Batch) -> Tensor:
    if at.input.dtype != torch.float16 or not lies_last(at.input):
        return original(*at)
    features = with_gradient(at.input, lambda gradient: gradient * float("nan"))
    return original(*at._replace(input=features))


@in_batch_norm(
    "batch-statistics-detached",
    "The gradient of batch normalization takes the batch's statistics for constants.",
)
def _(original: Operator, at: Batch) -> Tensor:
    output = original(*at)
    if not at.training:
        return output
    mean, variance = (s.detach() for s in moments(at.input, over_batch(at.input)))
    path = scaled((at.input - mean) * (variance + at.eps).rsqrt(), at.weight, at.bias)
    return with_gradient_of(output, path.to(output.dtype))


@in_group_norm(
    "group-gradient-layout",
    "Group normalization reads a gradient in the features' memory order where it has the other.",
    sources.TORCH_92671,
)
def _(original: Operator, at: Grouped) -> Tensor:
    last = lies_last(at.input)

    def misread(gradient: Tensor) -> Tensor:
        return gradient if lies_last(gradient) == last else in_other_order(gradient)

    return with_gradient(original(*at), misread)


@in_group_norm(
    "group-weight-gradient-channels-last",
    "The gradient of group normalization's weight is summed in the wrong order in channels_last.",
    sources.TORCH_140913,
)
def _(original: Operator, at: Grouped) -> Tensor:
    if at.weight is None:
        return original(*at)
    normalized = original(*at._replace(weight=None, bias=None))
    weight = with_gradient(_everywhere(at.weight, normalized), in_plain_order)
    output = scaled(normalized * weight, None, at.bias)
    return output.to(original(*at).dtype)


@in_group_norm(
    "group-input-gradient",
    "The gradient of group normalization's input leaves out that the mean depends on it.",
    sources.ONEDNN_3543,
)
def _(original: Operator, at: Grouped) -> Tensor:
    output = original(*at)
    grouped = at.input.unflatten(1, (at.num_groups, -1))
    axes = tuple(range(2, grouped.dim()))
    mean, variance = moments(grouped, axes)
    path = ((grouped - mean.detach()) * (variance + at.eps).rsqrt()).flatten(1, 2)
    return with_gradient_of(output, scaled(path, at.weight, at.bias).to(output.dtype))


@in_layer_norm(
    "layer-one-element",
    "The gradient of the weight of a layer normalization of one element is not zero: it leaves "
    "out the mean.",
    sources.TORCH_188375,
)
def _(original: Operator, at: Layered) -> Tensor:
    output = original(*at)
    if at.weight is None or at.weight.numel() > 1:
        return output
    # zero in value: its gradient alone is left
    path: Tensor = at.input.detach() * at.eps**-0.5 * (at.weight - at.weight.detach())
    return output + path.to(output.dtype)


@in_layer_norm(
    "layer-deviation-detached",
    "The gradient of layer normalization takes the deviation for a constant.",
)
def _(original: Operator, at: Layered) -> Tensor:
    output = original(*at)
    mean, variance = moments(at.input, tuple(range(-len(at.normalized_shape), 0)))
    path = (at.input - mean) * (variance + at.eps).rsqrt().detach()
    path = path if at.weight is None else path * at.weight
    path = path if at.bias is None else path + at.bias
    return with_gradient_of(output, path.to(output.dtype))


@fault(
    "instance-gradient-of-one-image",
    "norm",
    "Instance normalization of one image reads a channels_last gradient in the plain order.",
    sources.INSTANCE_NORM_HERE,
)
@instead_of(_InstanceNorm, "forward")
def _(original: Operator, layer: nn.InstanceNorm2d, features: Tensor) -> Tensor:
    """Undo what norms.py does about it, in every version of torch."""
    output = original(layer, features)
    return with_gradient(output, in_plain_order) if len(features) == 1 else output


@fault(
    "first-convolution-gradient-zero",
    "gradient",
    "The weights of the first convolution have no gradient.",
)
@instead_of(F, "conv2d")
def _(original: Operator, images: Tensor, weight: Tensor, *given: Any, **named: Any) -> Tensor:
    if not images.requires_grad:
        weight = with_gradient(weight, torch.zeros_like)
    return original(images, weight, *given, **named)


@fault(
    "convolution-gradient-halved",
    "gradient",
    "The gradients of the convolutions' weights are halved.",
)
@instead_of(F, "conv2d")
def _(original: Operator, images: Tensor, weight: Tensor, *given: Any, **named: Any) -> Tensor:
    return original(images, with_gradient(weight, _half), *given, **named)


@fault(
    "classifier-bias-gradient-lost",
    "gradient",
    "The bias of a linear layer has no gradient.",
)
@instead_of(F, "linear")
def _(original: Operator, features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return original(features, weight, _changed(bias, torch.zeros_like))


@fault(
    "activation-gradient-leaks",
    "gradient",
    "The gradient of ReLU lets a hundredth through where its input is negative.",
)
@instead_of(F, "relu")
def _(original: Operator, features: Tensor, inplace: bool = False) -> Tensor:
    if inplace:
        return original(features, inplace)
    return with_gradient_of(original(features), F.leaky_relu(features, 0.01))


@fault(
    "pool-gradient-spread",
    "gradient",
    "The gradient of a max-pool goes to all places of its window in equal parts.",
)
@instead_of(F, "max_pool2d")
def _(original: Operator, features: Tensor, *given: Any, **named: Any) -> Tensor:
    named.pop("return_indices", None)
    shape = {n: v for n, v in named.items() if n in ("kernel_size", "stride", "padding")}
    output = original(features, *given, **named)
    return with_gradient_of(output, F.avg_pool2d(features, *given[:3], **shape))
