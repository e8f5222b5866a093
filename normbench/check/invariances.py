"""What leaves a norm's output as it is, or only moves it with the features; and where it begins."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from normbench.check.layers import Subject, call, drawn, measured
from normbench.check.properties import Property, Standing
from normbench.models.families import INVARIANCES

SECTION = "invariance"
# Features of this deviation leave the layer's epsilon no weight.
LARGE = 1e4
CLOSE = 1e-5  # relative, and over float32's rounding of a layer that computes in it

BEGINNING_AS_THE_IDENTITY = ("none", "grn")

Change = Callable[[Tensor], Tensor]


def _in_batch(tensor: Tensor, *numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=tensor.dtype).reshape(-1, 1, 1, 1)


def _in_channels(tensor: Tensor, low: float, high: float) -> Tensor:
    channels = tensor.shape[1]
    return torch.linspace(low, high, channels, dtype=tensor.dtype).reshape(1, -1, 1, 1)


def _moved(axis: int) -> Change:
    """Return the features with each one moved on by one along an axis, across groups as well."""
    return lambda tensor: tensor.roll(1, axis)


def _same(tensor: Tensor) -> Tensor:
    return tensor


# By invariance: how the features are changed, how the output must then change, and what it means.
CHANGES: dict[str, tuple[Change, Change, str]] = {
    "scale": (
        lambda x: 3 * x,
        _same,
        "the size of the weights before it does not matter, so that weight decay acts on the "
        "effective learning rate (van Laarhoven, 2017)",
    ),
    "shift": (lambda x: x + 2 * LARGE, _same, "a bias before it does nothing"),
    "image scale": (
        lambda x: x * _in_batch(x, 1, 2, 3, 5),
        _same,
        "the contrast of an image does not matter",
    ),
    "channel scale": (
        lambda x: x * _in_channels(x, 1, 4),
        _same,
        "the size of each filter before it does not matter",
    ),
    "channel shift": (
        lambda x: x + LARGE * _in_channels(x, -1, 2),
        _same,
        "a bias before it, one a channel, does nothing",
    ),
    "channel permutation": (_moved(1), _moved(1), "no channel has a place of its own"),
    "image permutation": (_moved(0), _moved(0), "the order of a batch does not matter"),
}


def invariance_properties(subject: Subject) -> Iterator[Property]:
    """Tell what the output is invariant to, or equivariant for a permutation, in training."""
    shape = (4, 3 * subject.multiple, 3, 4)
    features = LARGE * drawn(shape, subject.generator())
    for name in INVARIANCES:
        yield measured(SECTION, name, partial(_invariant, subject, name, features))


def _invariant(subject: Subject, name: str, features: Tensor) -> Property:
    change, changed, meaning = CHANGES[name]
    shape = tuple(features.shape)
    plain = changed(call(subject.layer(shape), features.clone()))
    output = call(subject.layer(shape), change(features))
    gap = ((output - plain).abs().max() / plain.abs().max().clamp(min=1)).item()
    claimed = subject.claims.invariances
    holds = gap <= CLOSE
    told = (
        f"there: {meaning}" if holds else f"not there: the output changes by {gap:.2g} of its size"
    )
    if claimed is None or name not in claimed:
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    return Property(SECTION, name, Standing.HOLDS if holds else Standing.BROKEN, told)


# By what a norm claims: the sizes of its parameters for features of a shape.
_SIZES: dict[str, Callable[[tuple[int, ...]], set[int]]] = {
    "none": lambda _: set(),
    "per channel": lambda shape: {shape[1]},
    "per channel and one for all": lambda shape: {shape[1], 1},
    "per element": lambda shape: {math.prod(shape[1:])},
}


def affine_properties(subject: Subject) -> Iterator[Property]:
    """Tell how many parameters there are, what each acts on, and what they do when they begin."""
    shape = (4, 3 * subject.multiple, 2, 3)
    features = 2 + 3 * drawn(shape, subject.generator())
    layer = subject.layer(shape)
    section = "parameters"
    trained = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    told = ", ".join(f"{n} of {tuple(p.shape)}" for n, p in trained.items()) or "none"
    claimed = subject.claims.affine
    standing = Standing.NOT_CLAIMED
    if claimed is not None:
        sizes = {p.numel() for p in trained.values()}
        holds = sizes == _SIZES[claimed](shape)
        standing = Standing.HOLDS if holds else Standing.BROKEN
        told += "" if holds else f", where affine = {claimed!r} is claimed"
    yield Property(section, "what is trained", standing, told)
    for name in trained:
        reach = partial(_reach, subject, section, name, features)
        yield measured(section, f"reach of {name}", reach)
    name = "output as the layer begins"
    yield measured(section, name, partial(_beginning, subject, section, name, features))


def _reach(subject: Subject, section: str, name: str, features: Tensor) -> Property:
    """Tell how much of the output one element of a parameter changes."""
    layer = subject.layer(tuple(features.shape))
    with torch.no_grad():
        before = call(layer, features)
        parameter = layer.get_parameter(name)
        parameter.view(-1)[0] += 0.5
        changed = (call(layer, features) - before).abs() > CLOSE
    _images, channels, height, width = features.shape
    reached = int(changed.any(0).sum())
    sizes = {0: "nothing", 1: "one element", height * width: "one channel"}
    sizes[channels * height * width] = "all of an image"
    told = f"its first element changes {sizes.get(reached, f'{reached} elements')} of an image"
    affine = subject.claims.affine or ""
    claimed = height * width if affine.startswith("per channel") else 1
    if affine in ("", "none") or (affine.endswith("for all") and parameter.numel() == 1):
        return Property(section, f"reach of {name}", Standing.NOT_CLAIMED, told)
    # fewer where a norm takes the larger of two
    holds = 0 < reached <= claimed and bool(changed.any((0, 2, 3)).sum() == 1)
    standing = Standing.HOLDS if holds else Standing.BROKEN
    told += "" if holds else f", where affine = {subject.claims.affine!r} is claimed"
    return Property(section, f"reach of {name}", standing, told)


def _beginning(subject: Subject, section: str, name: str, features: Tensor) -> Property:
    """Tell the output's mean and deviation with the parameters that the layer begins with."""
    output = call(subject.layer(tuple(features.shape)), features)
    mean, deviation = output.mean().item(), output.std(correction=0).item()
    # no minus before a zero
    mean, deviation = (round(value, 3) + 0.0 for value in (mean, deviation))
    told = f"mean {mean:g} and deviation {deviation:g}, of features of mean 2 and deviation 3"
    if subject.formula is None:
        return Property(section, name, Standing.NOT_CLAIMED, told)
    invariances = subject.claims.invariances or ()
    if "scale" in invariances and "shift" in invariances:
        wanted = (0.0, 1.0)
    elif subject.name in BEGINNING_AS_THE_IDENTITY:
        wanted = (features.mean().item(), features.std(correction=0).item())
    else:
        return Property(section, name, Standing.NOT_CLAIMED, told)
    holds = abs(mean - wanted[0]) < 1e-3 and abs(deviation - wanted[1]) < 1e-3
    return Property(section, name, Standing.HOLDS if holds else Standing.BROKEN, told)
