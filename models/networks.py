"""Networks by their names: built in, and of a user's own.

A network of one's own is a class or function that is named as ``package.module:factory``, and that
is called as built-in networks are::

    class TinyResNet(nn.Module):
        def __init__(self, norm, shape, classes):
            super().__init__()
            self.stem = nn.Conv2d(shape[0], 16, 3, padding=1)
            self.norm = norm(16)
            self.classifier = nn.Linear(16, classes)

        def forward(self, images):
            features = torch.relu(self.norm(self.stem(images)))
            return self.classifier(features.mean((2, 3)))

- ``norm(channels)`` returns a norm layer for features of ``(images, channels, height, width)``,
  as ``nn.BatchNorm2d`` does; torchvision's networks take it as ``norm_layer=norm``. It is called
  once for each place, and the layer is an attribute of a module. Height and width are found by
  building the network twice: first with layers that only look on, so that what asks for a layer's
  weight has to do without it then, as with the norm ``none``.
- ``shape`` is the ``(channels, height, width)`` of the images, ``classes`` the number of classes;
  both are given by name.
  A factory with an attribute ``image_size`` is given the middle pixels, so many a side; any other
  the whole images.
- a parameter ``dropout`` is given the rate of the cases file; without it, that key is refused.
- It maps float32 images of ``(images, *shape)`` to logits of ``(images, classes)``, and is built
  with all that it trains, in float32. It runs in channels_last, in which ``view`` fails: use
  ``flatten`` or ``reshape``. On GPUs a step that can be captured runs as a CUDA graph.
- Where norms.brings_activation(layer) is true, the layer has the activation in it.
- A norm that standardizes weights does so in all of the network's ``nn.Conv2d``.
- A residual block with an attribute ``drop_rate`` that passes its branch through
  regularizers.drop_branch takes the regularizer stochastic-depth.

check_network says what of this is not so, before anything trains.
"""

import functools
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from .built_in import CLASSES, BuiltInNetwork
from .factories import SPELLING, accepted, named_object, signature_problem, told
from .norms import (
    NormFactory,
    NormSite,
    check_layer,
    check_parameters,
    described,
    norm_factory,
    standardize_weights,
)
from .preactivation import PreactivationNet
from .sites import (
    Build,
    NetworkDoesNotFit,
    Shape,
    images_of,
    made_late,
    norm_sites,
    passed,
    sized,
    with_norms,
)
from .stacks import CifarBestNet, CifarNet, ConvolutionalNetwork, DigitsNet, MnistNet

NETWORKS: dict[str, type[BuiltInNetwork]] = {
    "digits": DigitsNet,
    "mnist": MnistNet,
    "cifar10": CifarNet,
    "cifar10-best": CifarBestNet,
    "preact": PreactivationNet,
}


def has_reference(network: str) -> bool:
    """Tell whether normbench.check.reference can compute a network: it knows stages alone."""
    return issubclass(NETWORKS.get(network, nn.Module), ConvolutionalNetwork)


SPELLINGS = f"{', '.join(NETWORKS)}, or {SPELLING} for one of your own"


class UnknownNetwork(ValueError):
    """A network's name that is none of the known ones, or that leads to no factory."""


def find_network(network: str) -> Callable[..., nn.Module]:
    """Return the class, or a user's factory, of the network called ``network``.

    Raises UnknownNetwork for a name that stands for none.
    """
    if network in NETWORKS:
        return NETWORKS[network]
    if ":" not in network:
        raise UnknownNetwork(f"unknown network {network!r}: expected one of {SPELLINGS}")
    factory = named_object(network, "network", ", ".join(NETWORKS), UnknownNetwork)
    if not callable(factory):
        raise UnknownNetwork(
            f"network {network!r} is a {type(factory).__name__}: expected something to call as "
            f"{_CALL} that returns a torch.nn.Module"
        )
    found: Callable[..., nn.Module] = factory
    return found


_CALL = "factory(norm, shape=..., classes=...)"


def network_class(network: str) -> type[ConvolutionalNetwork]:
    """Return the class of a network that is a stack of blocks; raises ValueError for another."""
    found = NETWORKS.get(network)
    if found is None or not issubclass(found, ConvolutionalNetwork):
        stacks = (n for n, c in NETWORKS.items() if issubclass(c, ConvolutionalNetwork))
        raise ValueError(
            f"network {network!r} is no stack of blocks: expected one of {', '.join(stacks)}"
        )
    return found


def seen_shape(network: str, shape: Shape) -> Shape:
    """Return the shape of the middle of an image that the network called ``network`` is given.

    That is the whole image, but for a network with an attribute ``image_size``, the pixels a side.
    Raises UnknownNetwork, and NetworkDoesNotFit for an image_size that the images do not have.
    """
    factory = find_network(network)
    if network in NETWORKS:
        return NETWORKS[network].sees(shape)
    size = getattr(factory, "image_size", None)
    if size is None:
        return shape
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= min(shape[1:]):
        raise NetworkDoesNotFit(
            f"{network} has image_size = {size!r}: expected a whole number of pixels from 1 to "
            f"{min(shape[1:])}, as the images are {sized(shape)}"
        )
    return shape[0], size, size


def takes(network: str, shape: Shape) -> bool:
    """Tell whether a network takes images; of a user's own, check_network finds it out."""
    return network not in NETWORKS or NETWORKS[network].takes(shape[0], min(shape[1:]))


def _build(network: str, dropout: float, shape: Shape, classes: int) -> Build:
    """Return what builds the network for images as it sees them."""
    factory = find_network(network)
    named: dict[str, Any] = {"shape": shape, "classes": classes}
    if accepted(factory, ("dropout",)):
        named["dropout"] = dropout
    elif dropout:
        raise NetworkDoesNotFit(
            f"dropout = {dropout:g}: {network} has no parameter dropout; leave the key out, or "
            "give the network that parameter"
        )
    if problem := signature_problem(factory, nn.Identity, **named):
        raise NetworkDoesNotFit(
            f"network {network!r} cannot be called as {_CALL}: {problem}; expected a class or "
            "function such as `def network(norm, shape, classes): ...`, which may also take dropout"
        )
    return partial(factory, **named)


def build_network(
    network: str,
    norm: str,
    dropout: float = 0.0,
    shape: Shape | None = None,
    classes: int = CLASSES,
) -> nn.Module:
    """Build the network called ``network``, each of whose norm layers is the norm called ``norm``.

    ``shape`` is that of the data set's images; a built-in network can do without. Raises
    UnknownNetwork, NetworkDoesNotFit as models.sites does, and UnknownNorm and NormDoesNotFit as
    models.norms does.
    """
    return network_with(network, norm_factory(norm), dropout, shape, classes)


def network_with(
    network: str,
    norm: NormFactory,
    dropout: float = 0.0,
    shape: Shape | None = None,
    classes: int = CLASSES,
) -> nn.Module:
    """Build the network called ``network`` with the layers that ``norm`` makes for its sites.

    Raises as build_network does, and what ``norm`` raises.
    """
    seen = _seen(network, shape)
    build = _build(network, dropout, seen, classes)
    built = with_norms(network, build, norm, norm_sites(network, build, seen), seen)
    standardize_weights(built)
    return built


def _seen(network: str, shape: Shape | None) -> Shape:
    find_network(network)
    if shape is None and network not in NETWORKS:
        raise ValueError(f"network {network!r} is built for images of a shape: expected shape")
    return seen_shape(network, NETWORKS[network].made_for() if shape is None else shape)


def network_definition(
    network: str, shape: Shape | None = None, classes: int = CLASSES
) -> dict[str, Any]:
    """Describe a network in builtin types, by its content and not its name.

    A user's own is described by its modules as they print, and the names and shapes of its
    parameters and buffers, as it is built without a norm. Raises as build_network does.
    """
    seen = _seen(network, shape)
    if network in NETWORKS:
        return NETWORKS[network].definition(seen, classes)
    return _own_definition(network, seen, classes)


@functools.cache
def _own_definition(network: str, shape: Shape, classes: int) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        built = network_with(network, norm_factory("none"), 0.0, shape, classes)
    tensors = (*built.named_parameters(), *built.named_buffers())
    return {
        "shape": list(shape),
        "classes": classes,
        # where a module prints a function, its address is another one in each process
        "modules": re.sub(r" at 0x[0-9a-f]+", "", repr(built)),
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors],
    }


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained scalars."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def check_network(
    network: str,
    norm: str,
    dropout: float = 0.0,
    shape: Shape | None = None,
    classes: int = CLASSES,
) -> None:
    """Raise what is wrong with the combination before anything trains.

    Gives each of the norm's layers features of its own, so that a norm of the user's own that
    builds but cannot be trained there is found as well; and takes a network of the user's own
    through a pass of training. Leaves the global random numbers as they were. Raises as
    build_network does, NormDoesNotFit as models.norms.check_layer does, and NetworkDoesNotFit.
    """
    build_norm = norm_factory(norm)
    sites: list[NormSite] = []

    def checked(site: NormSite) -> nn.Module:
        layer = build_norm(site)
        check_layer(norm, layer, site)
        sites.append(site)
        return layer

    with torch.random.fork_rng(devices=[]):
        built = network_with(network, checked, dropout, shape, classes)
        if network in NETWORKS:
            return
        if norm != "none" and not sites:
            raise NetworkDoesNotFit(
                f"{network} never calls norm(channels), so that it is the same with {norm} as with "
                "any other norm: expected a call wherever a norm is to stand; or train it with the "
                "norm none alone"
            )
        check_training(network, built, _seen(network, shape), classes)


def check_training(network: str, built: nn.Module, shape: Shape, classes: int) -> None:
    """Raise NetworkDoesNotFit where a new network cannot be trained on images of ``shape``."""
    check_parameters(network, built, NetworkDoesNotFit)
    if not count_parameters(built):
        raise NetworkDoesNotFit(
            f"{network} has no parameters that are trained: expected some, as the attributes of "
            "its torch.nn.Modules, with requires_grad=True"
        )
    images = images_of(shape)
    before = {name: id(p) for name, p in built.named_parameters()}
    logits = passed(network, built.train(), images)
    for name, parameter in built.named_parameters():
        if before.get(name) != id(parameter):
            raise NetworkDoesNotFit(made_late(network, name))
    _check_logits(network, logits, shape, classes)
    try:
        logits.square().sum().backward()
    except (Exception, SystemExit) as error:
        raise NetworkDoesNotFit(
            f"{network} cannot be differentiated: {told(error)}; expected logits that autograd "
            "traces back to the parameters"
        ) from error
    with torch.no_grad():
        evaluated = passed(network, built.eval(), images)
    _check_logits(network, evaluated, shape, classes)
    for name, parameter in built.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise NetworkDoesNotFit(
                f"{network} has a gradient of {name!r} that is not finite as it begins: expected "
                "finite ones; see to how its weights begin"
            )


def _check_logits(network: str, logits: Any, shape: Shape, classes: int) -> None:
    expected = f"float32 of shape (2, {classes})"
    came = described(logits)
    if came != expected:
        raise NetworkDoesNotFit(
            f"{network} returned {came} for 2 images of {sized(shape)}: expected {expected}, a "
            "logit for each class"
        )
    if not bool(logits.isfinite().all()):
        raise NetworkDoesNotFit(
            f"{network} returned logits that are not finite as it begins: expected finite ones; "
            "see to how its weights begin"
        )
