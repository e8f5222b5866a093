"""What a norm layer costs beside BatchNorm2d: time, and memory kept for the backward pass."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from normbench.check.layers import Subject, call, drawn, measured
from normbench.check.properties import Property, Standing
from normbench.models.layers import StandardizedConv2d
from normbench.models.norms import standardizes_weights

SECTION = "cost"
SHAPES = ((64, 16, 12, 12), (64, 32, 4, 4), (8, 64, 32, 32))
ROUNDS = 15


def cost_properties(subject: Subject) -> Iterator[Property]:
    """Measure forward and backward passes in turns with BatchNorm2d's, as a network has them.

    That is in float32 and channels_last; a user's norm gets plain copies, which count as its own.
    """
    for images, channels, height, width in SHAPES:
        fitting = -(-channels // subject.multiple) * subject.multiple
        shape = (images, fitting, height, width)
        name = " x ".join(map(str, shape))
        yield measured(SECTION, name, partial(_cost, subject, name, shape))


def _cost(subject: Subject, name: str, shape: tuple[int, ...]) -> Property:
    order = torch.channels_last  # as the networks have it
    generator = subject.generator()
    features, gradient = (
        drawn(shape, generator).float().contiguous(memory_format=order) for _ in range(2)
    )
    layers = [subject.placed(shape), nn.BatchNorm2d(shape[1])]
    own, batch = _seconds([_passes(layer, features, gradient) for layer in layers])
    kept = [_kept_bytes(layer, features) for layer in layers]
    ratios = [
        statistics.median(o / b for o, b in zip(*pair, strict=True)) for pair in _pairs(own, batch)
    ]
    size = features.numel() * features.element_size()
    return Property(
        SECTION,
        name,
        Standing.NOT_CLAIMED,
        f"forward {ratios[0]:.2f} and backward {ratios[1]:.2f} times BatchNorm2d's time; keeps "
        f"{kept[0] / size:.2f} times the features' bytes, BatchNorm2d {kept[1] / size:.2f}",
    )


def times_of_batch(norm: str, shape: tuple[int, ...]) -> float:
    """Return the time of a norm's forward and backward pass over that of BatchNorm2d.

    Both are taken in turns, in float32 and channels_last, and the median of the ratios is
    returned. Of a norm that standardizes weights, those of a 3 x 3 convolution from as many
    channels are standardized as well.
    """
    order = torch.channels_last
    subject = Subject(norm)
    features, gradient = (
        drawn(shape, subject.generator(k)).float().contiguous(memory_format=order) for k in (0, 1)
    )
    layer = subject.placed(shape)
    passes = [_passes(each, features, gradient) for each in (layer, nn.BatchNorm2d(shape[1]))]
    if standardizes_weights(layer):
        passes.append(_standardizing(shape[1]))
    norm_seconds, batch_seconds, *others = (
        [sum(times) for times in found] for found in _seconds(passes)
    )
    own = [sum(each) for each in zip(norm_seconds, *others, strict=True)]
    return float(statistics.median(o / b for o, b in zip(own, batch_seconds, strict=True)))


def _standardizing(channels: int) -> "Passes":
    convolution = StandardizedConv2d(channels, channels, 3).to(memory_format=torch.channels_last)
    gradient = torch.ones_like(convolution.weight)

    def timed() -> tuple[float, float]:
        start = time.perf_counter()
        weights = convolution.standardized()
        middle = time.perf_counter()
        weights.backward(gradient)
        return middle - start, time.perf_counter() - middle

    return timed


Passes = Callable[[], tuple[float, float]]
Times = list[tuple[float, float]]


def _pairs(own: Times, batch: Times) -> list[tuple[list[float], list[float]]]:
    return [([o[k] for o in own], [b[k] for b in batch]) for k in (0, 1)]


def _passes(layer: nn.Module, features: Tensor, gradient: Tensor) -> Passes:
    leaf = features.clone().requires_grad_()

    def timed() -> tuple[float, float]:
        start = time.perf_counter()
        output = call(layer, leaf)
        middle = time.perf_counter()
        output.backward(gradient)
        return middle - start, time.perf_counter() - middle

    return timed


def _seconds(passes: list[Passes]) -> list[Times]:
    """Time each in turns, after a round that is left out."""
    found: list[Times] = [[] for _ in passes]
    for _ in range(ROUNDS + 1):
        for times, timed in zip(found, passes, strict=True):
            times.append(timed())
    return [times[1:] for times in found]


def _kept_bytes(layer: nn.Module, features: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward one, parameters left out."""
    owned = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # kept alive, so that no two tensors have one address
        output = call(layer, features.clone().requires_grad_())
        total = sum(kept.values())
        del output
    return total
