"""A small computation for each fault, which it changes."""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.models.networks import NETWORKS, build_network
from normbench.models.norms import NormSite, norm_factory, standardize_weights
from normbench.spec import RunSpec
from normbench.training.data import ImageData
from normbench.training.trainer import train

SITE = NormSite("test", channels=3, height=2, width=2)

Computation = Callable[[], list[Tensor]]


def norm(
    name: str,
    images: int = 4,
    channels: int = 4,
    size: int = 3,
    features_last: bool = False,
    gradient_last: bool = False,
    training: bool = True,
    compiled: bool = False,
    dtype: torch.dtype = torch.float64,
    offset: float = 0.0,
) -> list[Tensor]:
    """Take two passes of a norm, and return what they leave."""
    torch.manual_seed(0)
    layer = norm_factory(name)(NormSite("test", channels, size, size)).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
        if channels * size > 1:
            layer(torch.randn(6, channels, size, size, dtype=dtype) + 1)
    layer.train(training)
    shape = (images, channels, size, size)
    features = (2 * torch.randn(shape, dtype=dtype) + offset).requires_grad_()
    gradient = torch.randn(shape, dtype=dtype)
    last, plain = torch.channels_last, torch.contiguous_format
    given = features.contiguous(memory_format=last if features_last else plain)
    call = torch.compile(layer, backend="aot_eager") if compiled else layer
    output = call(given)
    output.backward(gradient.contiguous(memory_format=last if gradient_last else plain))
    tensors = [output, features.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]
    return [t.detach().clone() for t in tensors if t is not None]


def other_channels() -> list[Tensor]:
    """Give a norm twice the channels that it was built for; a refusal leaves nothing."""
    layer = nn.InstanceNorm2d(3, affine=True)
    try:
        return [layer(torch.ones(2, 6, 2, 2))]
    except ValueError:
        return []


def one_value() -> list[Tensor]:
    layer = nn.BatchNorm2d(2)
    try:
        layer(torch.ones(1, 2, 1, 1))
    except ValueError:
        return []
    return [layer.running_var] if layer.running_var is not None else []


def standardized() -> list[Tensor]:
    """Convolve with standardized weights."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), norm_factory("ws+layer")(SITE))
    standardize_weights(layer)
    return [layer[0](torch.randn(2, 2, 4, 4)).detach()]


def network(name: str = "digits", training: bool = True) -> list[Tensor]:
    """Take a pass of a network as it begins, and return its logits and gradients."""
    torch.manual_seed(0)
    built = build_network(name, "batch", dropout=0.2).train(training)
    logits = built(torch.randn(6, *NETWORKS[name].made_for()))
    F.cross_entropy(logits, torch.arange(6)).backward()
    return [logits.detach(), *(p.grad.clone() for p in built.parameters() if p.grad is not None)]


@cache
def images_of(size: int, channels: int) -> ImageData:
    """Make up images of ten classes, of one grey each, with much noise."""
    generator = torch.Generator().manual_seed(1)

    def part(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (count,), generator=generator)
        noise = torch.randn(count, channels, size, size, generator=generator)
        images = 20 * labels.view(-1, 1, 1, 1) + 40 + 60 * noise
        return images.clamp(0, 255).to(torch.uint8), labels

    return ImageData("made up", *part(140), *part(260), mean=0.45, std=0.3)


def run(
    recipe: str = "digits",
    network: str = "digits",
    size: int = 8,
    channels: int = 1,
    regularizer: str = "none",
    dropout: float = 0.0,
    epochs: int = 2,
) -> list[Tensor]:
    """Train a network for two epochs, and return what is reported of it."""
    spec = RunSpec(
        *("digits", network, "batch"),
        batch_size=32,
        epochs=epochs,
        recipe=recipe,
        regularizer=regularizer,
        dropout=dropout,
    )
    result = train(spec, images_of(size, channels), torch.device("cpu"))
    told = [
        (e.learning_rate, e.train_loss, e.train_accuracy, e.test_loss, e.test_accuracy)
        for e in result.epochs
    ]
    return [torch.tensor(told), torch.tensor(result.confusion), torch.tensor(result.weights)]


mnist = partial(run, "mnist", "mnist", 28)
cifar10 = partial(run, "cifar10", "cifar10", 32, 3)
with_l1 = partial(run, regularizer="l1:0.01")
with_l2 = partial(run, regularizer="l2:0.01")
batch = partial(norm, "batch")
evaluated = partial(norm, "batch", training=False)
grouped = partial(norm, "group:2")
layered = partial(norm, "layer_chw")
instance = partial(norm, "instance")

# A small computation that each fault changes.
COMPUTATIONS: dict[str, Computation] = {
    "batch-running-variance-not-updated": batch,
    "batch-running-variance-biased": batch,
    "batch-square-for-root": batch,
    "batch-one-pass-variance": partial(batch, dtype=torch.float32, offset=1e4),
    "batch-negative-variance": partial(batch, dtype=torch.float32, offset=1e6),
    "batch-epsilon": batch,
    "batch-unequal-parts-running-variance": partial(batch, images=5),
    "batch-statistics-at-evaluation": evaluated,
    "batch-momentum": batch,
    "batch-momentum-exchanged": batch,
    "batch-evaluation-channels-last": partial(evaluated, features_last=True),
    "batch-evaluation-compiled": partial(evaluated, compiled=True),
    "batch-of-one-value": one_value,
    "group-fewer-groups": grouped,
    "group-unbiased-variance": grouped,
    "group-shift-lost": grouped,
    "group-evaluation-compiled": partial(grouped, training=False, compiled=True),
    "layer-epsilon-outside-the-root": layered,
    "layer-last-axis-alone": layered,
    "instance-channel-mismatch": other_channels,
    "instance-running-statistics-at-evaluation": partial(instance, training=False),
    "instance-over-the-batch": instance,
    "batch-renorm-not-clipped": partial(norm, "batch_renorm"),
    "filter-response-centred": partial(norm, "frn"),
    "ghost-batches-as-one": partial(norm, "ghost:2"),
    "weights-standardized-together": standardized,
    "batch-weight-gradient-halved": batch,
    "group-weight-gradient-halved": grouped,
    "layer-weight-gradient-halved": layered,
    "batch-bias-gradient-lost": batch,
    "batch-gradient-in-plain-order": partial(batch, gradient_last=True),
    "batch-features-in-plain-order": partial(batch, features_last=True, gradient_last=True),
    "batch-gradient-of-unequal-parts": partial(batch, images=5),
    "batch-evaluation-gradient-of-training": evaluated,
    "batch-evaluation-weight-gradient": evaluated,
    "batch-half-not-a-number": partial(
        batch, features_last=True, gradient_last=True, dtype=torch.float16
    ),
    "batch-statistics-detached": batch,
    "group-gradient-layout": partial(grouped, gradient_last=True),
    "group-weight-gradient-channels-last": partial(grouped, features_last=True, gradient_last=True),
    "group-input-gradient": grouped,
    "layer-one-element": partial(layered, channels=1, size=1),
    "layer-deviation-detached": layered,
    "first-convolution-gradient-zero": network,
    "convolution-gradient-halved": network,
    "classifier-bias-gradient-lost": network,
    "activation-gradient-leaks": network,
    "pool-gradient-spread": network,
    "instance-gradient-of-one-image": partial(instance, images=1, gradient_last=True),
    "sgd-without-momentum": run,
    "sgd-less-momentum": run,
    "sgd-dampening": run,
    "sgd-without-nesterov": run,
    "sgd-momentum-forgotten": run,
    "schedule-not-stepped": run,
    "schedule-by-epoch": run,
    "schedule-too-long": run,
    "schedule-peak-halved": run,
    "schedule-long-warmup": run,
    "schedule-linear": run,
    "loss-summed": run,
    "loss-ignores-class-0": run,
    "loss-of-probabilities": run,
    "loss-in-bfloat16": run,
    "labels-1-in-100": run,
    "labels-1-in-500": run,
    "class-missing": run,
    "half-the-images": run,
    "last-batch-twice": run,
    "mean-wrong": run,
    "deviation-wrong": run,
    "test-images-not-normalized": run,
    "augmentation-at-test": run,
    "no-shuffling": run,
    "same-order": run,
    "affine-corners": run,
    "affine-border": run,
    "evaluation-in-training-mode": run,
    "evaluation-mode-on-the-surface": run,
    "evaluation-on-99-percent": run,
    "evaluation-without-the-rest": run,
    "argmax-over-the-wrong-axis": run,
    "weight-decay-none": with_l2,
    "weight-decay-tenfold": with_l2,
    "weight-decay-doubled": with_l2,
    "weight-decay-wrong-sign": with_l2,
    "weight-decay-decoupled": with_l2,
    "weight-decay-on-part": with_l2,
    "l1-for-l2": with_l2,
    "l2-for-l1": with_l1,
    "l1-doubled": with_l1,
    "l1-wrong-sign": with_l1,
    "l1-on-part": with_l1,
    "label-smoothing-lost": mnist,
    "label-smoothing-doubled": mnist,
    "crop-border-black": cifar10,
    "flip-every-image": cifar10,
    "flip-upside-down": cifar10,
    "residual-dropped": partial(network, "cifar10"),
    "convolution-one-group": partial(network, "cifar10"),
    "relu-leaks": network,
    "dead-channel": network,
    "average-for-max-pool": network,
    "dropout-not-scaled": network,
    "classifier-without-bias": network,
    "weights-begin-small": network,
    "layer-without-norm": network,
    "convolution-in-bfloat16": network,
    "linear-in-bfloat16": network,
    "relu-in-bfloat16": network,
    "linear-not-repeatable": network,
    "best-epoch-as-last": partial(run, epochs=4),
    "batch-in-bfloat16": batch,
    "norm-not-repeatable": batch,
}
