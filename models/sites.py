"""Where a network's norm layers stand, which is found by building it without them first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .factories import told
from .norms import NormDoesNotFit, NormFactory, NormSite

# Channels, height and width of an image.
Shape = tuple[int, int, int]

# What a network is given to build its norm layers with: maps the channels to a layer.
BuildNorm = Callable[[int], nn.Module]

# A network but for its norm layers.
Build = Callable[[BuildNorm], nn.Module]

# The attribute of a layer that holds the NormSite that it was built for.
SITE = "normbench_site"


class NetworkDoesNotFit(ValueError):
    """A network that cannot be built, or cannot be trained on images of the given shape."""


class _Vacant(nn.Identity):
    """Stands where a norm layer is to stand, and notes the shapes of what passes through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.shapes: dict[tuple[int, ...], None] = {}

    def forward(self, features: Tensor) -> Tensor:
        self.shapes[tuple(features.shape)] = None
        return features


def norm_sites(name: str, build: Build, shape: Shape) -> tuple[NormSite, ...]:
    """Return where the network called ``name`` has its norm layers, in the order of its requests.

    The network is built without norms, and images of ``shape`` pass through it, which tells the
    height and width of the features at each place; the layer is called as its module is in the
    network. So a network need not know the size of its features, which layer_chw does need.
    Leaves the global random numbers as they were. Raises NetworkDoesNotFit where the network cannot
    be built or cannot take the images, and where a layer is not as one of a fixed place is.
    """
    vacant: list[_Vacant] = []

    def place(channels: int) -> nn.Module:
        vacant.append(_Vacant(_whole(name, channels)))
        return vacant[-1]

    with torch.random.fork_rng(devices=[]):
        network = constructed(name, build, place, shape)
        with torch.no_grad():
            passed(name, network.eval(), images_of(shape))
    layers: dict[nn.Module, str] = {module: layer for layer, module in network.named_modules()}
    return tuple(
        _site(name, number, layers.get(each), each) for number, each in enumerate(vacant, start=1)
    )


def _whole(name: str, channels: Any) -> int:
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise NetworkDoesNotFit(
            f"{name} calls norm({channels!r}): expected the number of channels of the features, a "
            "whole number of at least 1"
        )
    return channels


def _site(name: str, number: int, layer: str | None, vacant: _Vacant) -> NormSite:
    if layer is None:
        raise NetworkDoesNotFit(
            f"{name} keeps norm layer {number}, of {vacant.channels} channels, outside of its "
            "modules: expected it as an attribute of a torch.nn.Module, or in an nn.ModuleList"
        )
    place = f"the norm layer {layer!r} of {name}"
    if not vacant.shapes:
        raise NetworkDoesNotFit(
            f"{place} takes no part in the forward pass: expected features to go through it; "
            "call it, or leave it out"
        )
    first, *others = vacant.shapes
    if len(first) != 4 or first[1] != vacant.channels:
        raise NetworkDoesNotFit(
            f"{place}, built by norm({vacant.channels}), is given features of shape {first}: "
            f"expected (images, {vacant.channels}, height, width)"
        )
    if others:
        raise NetworkDoesNotFit(
            f"{place} is given features of shape {first}, and of {others[0]} elsewhere: expected "
            "one place a layer; call norm once for each of them"
        )
    return NormSite(layer, vacant.channels, *first[2:])


def with_norms(
    name: str, build: Build, norm: NormFactory, sites: tuple[NormSite, ...], shape: Shape
) -> nn.Module:
    """Build the network with the layers that ``norm`` makes for its sites.

    Raises NetworkDoesNotFit where it is built differently this time, and what ``norm`` raises.
    """
    waiting = list(sites)

    def layer(channels: int) -> nn.Module:
        if not waiting or waiting[0].channels != channels:
            raise NetworkDoesNotFit(_differently(name))
        site = waiting.pop(0)
        built = norm(site)
        vars(built)[SITE] = site
        return built

    network = constructed(name, build, layer, shape)
    if waiting:
        raise NetworkDoesNotFit(_differently(name))
    return network


def _differently(name: str) -> str:
    return (
        f"{name} asks for other norm layers when it is built again: expected the same calls of "
        "norm each time, whatever layers they return"
    )


def norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that were built as norms, by their names in the network."""
    return {name: layer for name, layer in network.named_modules() if SITE in vars(layer)}


def constructed(name: str, build: Build, norm: BuildNorm, shape: Shape) -> nn.Module:
    """Build the network; raises NetworkDoesNotFit for whatever its code raises, or returns."""
    try:
        network = build(norm)
    except (NetworkDoesNotFit, NormDoesNotFit):
        raise
    except (Exception, SystemExit) as error:
        raise NetworkDoesNotFit(
            f"{name} could not be built for images of {sized(shape)}: {told(error)}; expected a "
            "torch.nn.Module"
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkDoesNotFit(
            f"{name} returned a {type(network).__name__}: expected a class or function that "
            "returns a torch.nn.Module"
        )
    for parameter, tensor in network.named_parameters():
        if is_lazy(tensor):
            raise NetworkDoesNotFit(made_late(name, parameter))
    return network


def made_late(name: str, parameter: str) -> str:
    """Say that a parameter is not there when the optimizer is given what it is to train."""
    return (
        f"{name} makes its parameter {parameter!r} in its first forward pass: expected it as soon "
        "as the network is built, when the optimizer is given its parameters; make it in __init__"
    )


def images_of(shape: Shape, count: int = 2) -> Tensor:
    """Draw normal images as the networks are given them, the same each time."""
    images = torch.randn((count, *shape), generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=torch.channels_last)


def passed(name: str, network: nn.Module, images: Tensor) -> Any:
    """Return the network's answer; raises NetworkDoesNotFit for whatever it raises.

    All is in channels_last, as it is in training.
    """
    try:
        return network.to(memory_format=torch.channels_last)(images)
    except (Exception, SystemExit) as error:
        raise NetworkDoesNotFit(
            f"{name} cannot take images of {sized(tuple(images.shape[1:]))}: {told(error)}"
            f"{_of_the_memory_order(network, images)}"
        ) from error


def _of_the_memory_order(network: nn.Module, images: Tensor) -> str:
    """Tell of the memory order, where the network takes the images in the plain one."""
    try:
        with torch.no_grad():
            network.to(memory_format=torch.contiguous_format)(images.contiguous())
    except (Exception, SystemExit):
        return ""
    return (
        "; it takes them in the plain memory order, but networks run in channels_last: use "
        "flatten or reshape in place of view"
    )


def sized(shape: tuple[int, ...]) -> str:
    """Spell a shape as ``1 x 28 x 28``."""
    return " x ".join(map(str, shape))
