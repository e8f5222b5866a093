"""Faults in what torch's norms, and ours, compute and store."""

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
    in_float32,
    in_group_norm,
    in_layer_norm,
    moments,
    over_batch,
    scaled,
)
from normbench.check.faults.planting import fault, in_plain_order, instead_of
from normbench.models.layers import (
    BatchRenorm,
    FilterResponseNorm,
    GhostBatchNorm,
    StandardizedConv2d,
)


def _in_one_pass(features: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean = features.mean(axes, keepdim=True)
    return mean, features.square().mean(axes, keepdim=True) - mean.square()


def _is_compiling(features: Tensor) -> bool:
    # a compiler that was first imported under a fault takes what is planted for torch's own, and
    # calls it with tensors of its own
    return torch.compiler.is_compiling() or type(features) is not Tensor


def _by_hand(
    original: Operator,
    at: Batch,
    moments_of: Callable[[Tensor, tuple[int, ...]], tuple[Tensor, Tensor]] = moments,
    inverse: Callable[[Tensor, float], Tensor] = lambda variance, eps: (variance + eps).rsqrt(),
) -> Tensor:
    """Compute batch normalization with statistics, and a root, that may be wrong."""
    # leaves the running statistics right, and refuses what it should
    right = original(*at)
    features = in_float32(at.input)
    if at.training or at.running_mean is None or at.running_var is None:
        mean, variance = moments_of(features, over_batch(features))
    else:
        mean, variance = (by_channel(s, features) for s in (at.running_mean, at.running_var))
    normalized = (features - mean) * inverse(variance, at.eps)
    return scaled(normalized, at.weight, at.bias).to(right.dtype)


@in_batch_norm(
    "batch-running-variance-not-updated",
    "Batch normalization leaves the running variance at what it begins with.",
    sources.KERAS_CORE_338,
)
def _(original: Operator, at: Batch) -> Tensor:
    kept = None if at.running_var is None else at.running_var.clone()
    return original(*at._replace(running_var=kept))


@in_batch_norm(
    "batch-running-variance-biased",
    "Batch normalization stores the biased variance, without Bessel's correction.",
    sources.KERAS_8982,
)
def _(original: Operator, at: Batch) -> Tensor:
    if not at.training or at.running_var is None:
        return original(*at)
    count = at.input.numel() // at.input.shape[1]
    # the backward pass refuses a tensor that was changed after batch_norm had it
    after = at.running_var.clone()
    output = original(*at._replace(running_var=after))
    kept = (1 - at.momentum) * at.running_var
    # what the batch has added loses its factor of n / (n - 1)
    at.running_var.copy_(kept + (after - kept) * (1 - 1 / count))
    return output


@in_batch_norm(
    "batch-square-for-root",
    "Batch normalization divides by the square of the variance in place of its root.",
    sources.JAX_443,
)
def _(original: Operator, at: Batch) -> Tensor:
    return _by_hand(original, at, inverse=lambda variance, eps: (variance + eps) ** -2)


@in_batch_norm(
    "batch-one-pass-variance",
    "Batch normalization takes the variance as E[x^2] - E[x]^2, which cancels, and cuts it at 0.",
    sources.TORCH_40302,
)
def _(original: Operator, at: Batch) -> Tensor:
    return _by_hand(original, at, _in_one_pass, lambda v, eps: (v.clamp(min=0) + eps).rsqrt())


@in_batch_norm(
    "batch-negative-variance",
    "Batch normalization takes the variance as E[x^2] - E[x]^2, whose root may not be a number.",
    sources.FLAX_1491,
)
def _(original: Operator, at: Batch) -> Tensor:
    return _by_hand(original, at, _in_one_pass)


@in_batch_norm(
    "batch-epsilon",
    "Batch normalization adds 1e-3 to the variance in place of 1e-5.",
)
def _(original: Operator, at: Batch) -> Tensor:
    return original(*at._replace(eps=100 * at.eps))


@in_batch_norm(
    "batch-unequal-parts-running-variance",
    "The running variance of a batch in two unequal parts is the mean of both parts' variances.",
    sources.TORCH_22192,
)
def _(original: Operator, at: Batch) -> Tensor:
    half = len(at.input) // 2
    if not at.training or at.running_var is None or half == 0 or len(at.input) % 2 == 0:
        return original(*at)
    output = original(*at._replace(running_var=at.running_var.clone()))
    parts = (at.input[: half + 1], at.input[half + 1 :])
    variances = [part.detach().transpose(0, 1).flatten(1).var(1, correction=0) for part in parts]
    mean = torch.stack(variances).mean(0)
    at.running_var.copy_((1 - at.momentum) * at.running_var + at.momentum * mean)
    return output


@in_batch_norm(
    "batch-statistics-at-evaluation",
    "Batch normalization takes the batch's statistics at evaluation too.",
)
def _(original: Operator, at: Batch) -> Tensor:
    if at.training or at.input.numel() == at.input.shape[1]:
        return original(*at)
    return original(*at._replace(running_mean=None, running_var=None, training=True))


@in_batch_norm(
    "batch-momentum",
    "The running statistics move a hundredth of the way to a batch's, where a tenth is right.",
)
def _(original: Operator, at: Batch) -> Tensor:
    return original(*at._replace(momentum=at.momentum / 10))


@in_batch_norm(
    "batch-momentum-exchanged",
    "The running statistics keep a tenth of what they were, where nine tenths is right.",
)
def _(original: Operator, at: Batch) -> Tensor:
    return original(*at._replace(momentum=1 - at.momentum))


@in_batch_norm(
    "batch-evaluation-channels-last",
    "Batch normalization at evaluation writes channels_last features in the plain order.",
    sources.TORCH_62594,
)
def _(original: Operator, at: Batch) -> Tensor:
    output = original(*at)
    return output if at.training else in_plain_order(output)


@in_batch_norm(
    "batch-evaluation-compiled",
    "Compiled batch normalization takes the batch's statistics at evaluation.",
    sources.TORCH_181696,
)
def _(original: Operator, at: Batch) -> Tensor:
    if at.training or not _is_compiling(at.input):
        return original(*at)
    return original(*at._replace(running_mean=None, running_var=None, training=True))


@fault(
    "batch-of-one-value",
    "norm",
    "Batch normalization takes one value a channel, whose unbiased variance is no number.",
    sources.TORCH_1381,
)
@instead_of(F, "_verify_batch_size")
def _(_: Callable[..., None], size: list[int]) -> None:
    """Refuse nothing."""


@in_group_norm(
    "group-fewer-groups",
    "Group normalization takes the statistics of two groups together.",
)
def _(original: Operator, at: Grouped) -> Tensor:
    fewer = at.num_groups // 2 if at.num_groups % 2 == 0 else at.num_groups
    return original(*at._replace(num_groups=fewer))


@in_group_norm(
    "group-unbiased-variance",
    "Group normalization divides by the root of the unbiased variance.",
)
def _(original: Operator, at: Grouped) -> Tensor:
    count = at.input[0].numel() / at.num_groups
    factor = ((count - 1) / count) ** 0.5
    weight = factor * torch.ones_like(at.input[0, :, :1, :1].flatten())
    weight = weight if at.weight is None else factor * at.weight
    return original(*at._replace(weight=weight))


@in_group_norm(
    "group-shift-lost",
    "Group normalization does not add its bias.",
)
def _(original: Operator, at: Grouped) -> Tensor:
    return original(*at._replace(bias=None))


@fault(
    "group-evaluation-compiled",
    "norm",
    "Compiled group normalization at evaluation takes all channels for one group.",
    sources.TORCH_183120,
)
@instead_of(nn.GroupNorm, "forward")
def _(original: Operator, layer: nn.GroupNorm, features: Tensor) -> Tensor:
    if layer.training or not _is_compiling(features):
        return original(layer, features)
    return F.group_norm(features, 1, layer.weight, layer.bias, layer.eps)


@in_layer_norm(
    "layer-epsilon-outside-the-root",
    "Layer normalization adds epsilon to the deviation in place of the variance.",
    sources.PYG_2917,
)
def _(original: Operator, at: Layered) -> Tensor:
    features = in_float32(at.input)
    mean, variance = moments(features, tuple(range(-len(at.normalized_shape), 0)))
    output = (features - mean) / (variance.sqrt() + at.eps)
    output = output if at.weight is None else output * at.weight
    return (output if at.bias is None else output + at.bias).to(original(*at).dtype)


@in_layer_norm(
    "layer-last-axis-alone",
    "Layer normalization takes its statistics over the last axis alone.",
)
def _(original: Operator, at: Layered) -> Tensor:
    output = original(at.input, at.normalized_shape[-1:], None, None, at.eps)
    output = output if at.weight is None else output * at.weight
    return (output if at.bias is None else output + at.bias).to(output.dtype)


@fault(
    "instance-channel-mismatch",
    "norm",
    "Instance normalization takes features of other channels than it was built for.",
    sources.TORCH_109652,
)
@instead_of(nn.InstanceNorm2d, "forward")
def _(original: Operator, layer: nn.InstanceNorm2d, features: Tensor) -> Tensor:
    if features.shape[1] == layer.num_features:
        return original(layer, features)
    return F.instance_norm(features, eps=layer.eps)


@fault(
    "instance-running-statistics-at-evaluation",
    "norm",
    "Instance normalization goes by running statistics at evaluation, which nothing has updated.",
    sources.TORCH_4348,
)
@instead_of(nn.InstanceNorm2d, "forward")
def _(original: Operator, layer: nn.InstanceNorm2d, features: Tensor) -> Tensor:
    return (
        original(layer, features) if layer.training else scaled(features, layer.weight, layer.bias)
    )


@fault(
    "instance-over-the-batch",
    "norm",
    "Instance normalization takes its statistics over all images of the batch.",
)
@instead_of(F, "instance_norm")
def _(_: Operator, features: Tensor, *given: Any, **named: Any) -> Tensor:
    at = Batch(features, *given, **{_NAMES.get(n, n): v for n, v in named.items()})
    return F.batch_norm(features, None, None, at.weight, at.bias, training=True, eps=at.eps)


# instance_norm calls this argument otherwise
_NAMES = {"use_input_stats": "training"}


@fault(
    "batch-renorm-not-clipped",
    "norm",
    "Batch renormalization corrects by r and d without bounds, from the first step on.",
)
@instead_of(BatchRenorm, "_raised")
def _(original: Callable[..., Tensor], layer: BatchRenorm, *steps: Any) -> Tensor:
    return original(layer, *steps) + torch.inf


@fault(
    "filter-response-centred",
    "norm",
    "Filter response normalization takes each map's mean away first.",
)
@instead_of(FilterResponseNorm, "forward")
def _(original: Operator, layer: FilterResponseNorm, features: Tensor) -> Tensor:
    return original(layer, features - features.mean((2, 3), keepdim=True))


@fault(
    "ghost-batches-as-one",
    "norm",
    "Ghost batch normalization takes its statistics over the whole batch.",
)
@instead_of(GhostBatchNorm, "forward")
def _(_: Operator, layer: GhostBatchNorm, features: Tensor) -> Tensor:
    return nn.BatchNorm2d.forward(layer, features)


@fault(
    "weights-standardized-together",
    "norm",
    "Weight standardization takes mean and variance over all filters of a convolution.",
)
@instead_of(StandardizedConv2d, "forward")
def _(_: Operator, layer: StandardizedConv2d, features: Tensor) -> Tensor:
    mean, variance = moments(layer.weight, (0, 1, 2, 3))
    weight = (layer.weight - mean) * (variance + 1e-10).rsqrt()
    return F.conv2d(
        features, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
