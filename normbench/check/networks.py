"""A network: its shapes and size, and whether every part of it takes part."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normbench.check.properties import Property, Standing
from normbench.models.built_in import CLASSES, BuiltInNetwork
from normbench.models.networks import (
    NETWORKS,
    build_network,
    check_network,
    count_parameters,
    find_network,
    seen_shape,
)
from normbench.models.preactivation import PreactivationUnit
from normbench.models.sites import NetworkDoesNotFit, Shape, norm_layers, sized
from normbench.models.stacks import Block
from normbench.training.datasets import find_dataset

NORMS = ("batch", "layer", "none")
IMAGES = 64
CLOSE = 1e-5

# What a user's network is built for where no data set is named: the first of these that it takes.
TRIED = ("mnist", "cifar10", "digits")


@dataclass(frozen=True)
class Built:
    """A network as it begins, with the ``shape`` of the images that it sees."""

    network: nn.Module
    shape: Shape
    classes: int
    norm: str

    def images(self, count: int = IMAGES) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return torch.randn((count, *self.shape), generator=generator)


def network_properties(name: str, dataset: str | None = None) -> Iterator[Property]:
    """Check the network called ``name`` with several norms, on images of a data set's shape.

    Without one, a built-in network gets the images that it was made for, and one of the user's own
    those of the first of TRIED that it takes. Raises ValueError for a name that stands for no
    network or data set, and NetworkDoesNotFit for a network that cannot be trained on the images.
    """
    shape, classes = _images_for(name, dataset)
    check_network(name, "batch", 0.0, shape, classes)
    for norm in NORMS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = build_network(name, norm, 0.0, shape, classes)
        yield from _properties(Built(network, seen_shape(name, shape), classes, norm))


def _images_for(name: str, dataset: str | None) -> tuple[Shape, int]:
    """Return the shape and the number of classes of the images that a network is checked on."""
    find_network(name)
    if dataset is not None:
        facts = find_dataset(dataset)
        return facts.shape, len(facts.classes)
    if name in NETWORKS:
        return NETWORKS[name].made_for(), CLASSES
    misfits = []
    for facts in map(find_dataset, TRIED):
        try:
            check_network(name, "none", 0.0, facts.shape, len(facts.classes))
        except NetworkDoesNotFit as misfit:
            misfits.append(misfit)
        else:
            return facts.shape, len(facts.classes)
    raise misfits[0]


def _property(
    section: str, name: str, wrong: str, right: str, otherwise: Standing = Standing.BROKEN
) -> Property:
    return Property(section, name, otherwise if wrong else Standing.HOLDS, wrong or right)


def _properties(built: Built) -> Iterator[Property]:
    section, network = f"with norm {built.norm}", built.network
    own = not isinstance(network, BuiltInNetwork)
    # a branch of one's own may begin at zero: nothing before its end has an effect yet
    of_own = Standing.NOT_CLAIMED if own else Standing.BROKEN
    told = "for 1, 2 and 7 images" + (f" of {sized(built.shape)}" if own else "")
    yield _property(section, "logits, one a class", _wrong_shape(built), told)
    count = count_parameters(network)
    wrong, told = "", f"{count:,}"
    if isinstance(network, BuiltInNetwork):
        limit = network.parameter_limit
        wrong = "" if count <= limit else f"{count:,} parameters: expected at most {limit:,}"
        told = f"{count:,} of {limit:,}"
    yield _property(section, "parameters", wrong, told)
    yield _property(section, "every parameter gets a gradient", _untrained(built), "all do", of_own)
    yield _property(
        section, "no dead unit at the start", _dead(built), "every channel answers", of_own
    )
    together = "an image's logits depend on the others" if _dependent(built) else ""
    yield _property(section, "images apart at evaluation", together, "the same alone")
    if built.norm != "none":
        yield _property(
            section,
            "the norm has an effect at every site",
            _bypassed(built),
            "at all of them",
            of_own,
        )
    if not own:
        yield _property(section, "residual connections", _unconnected(network), "as defined")
    yield _property(section, "repeatable", _unrepeatable(built), "equal to the bit, three times")


def _wrong_shape(built: Built) -> str:
    for count in (1, 2, 7):
        shape = tuple(built.network.eval()(built.images(count)).shape)
        if shape != (count, built.classes):
            return f"{shape} for {count} images: expected {(count, built.classes)}"
    return ""


def _untrained(built: Built) -> str:
    network = built.network
    network.train().zero_grad()
    weights = torch.linspace(-1, 1, IMAGES * built.classes).reshape(IMAGES, built.classes)
    (network(built.images()) * weights.roll(7, 1)).square().sum().backward()
    lacking = [
        name
        for name, p in network.named_parameters()
        if p.requires_grad
        and (p.grad is None or not bool(p.grad.isfinite().all()) or not bool((p.grad != 0).any()))
    ]
    return f"{', '.join(lacking)} get none" if lacking else ""


def _dead(built: Built) -> str:
    """Name a channel after an activation, of those of torch.nn, that answers nothing."""
    answers: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: answers.__setitem__(name, output)
        )
        for name, layer in built.network.named_modules()
        if type(layer).__module__ == nn.ReLU.__module__
    ]
    with torch.no_grad():
        built.network.train()(built.images())
    for handle in handles:
        handle.remove()
    for name, output in answers.items():
        channels = output.transpose(0, 1).flatten(1)
        still = (channels.std(1) == 0).nonzero().flatten().tolist()
        if still:
            return f"channel {still[0]} of {name} answers the same to everything"
    return ""


def _dependent(built: Built) -> bool:
    network, images = built.network, built.images()
    with torch.no_grad():
        together, alone = network.eval()(images)[:1], network.eval()(images[:1])
    return bool((together - alone).abs().max() > CLOSE * (1 + alone.abs().max()))


def _bypassed(built: Built) -> str:
    """Name a norm layer that can be taken away without a difference."""
    images = built.images()
    with torch.no_grad():
        whole = built.network.train()(images)
        for name in norm_layers(built.network):
            without = copy.deepcopy(built.network).train()
            without.set_submodule(name, nn.Identity())
            if bool((without(images) - whole).abs().max() <= CLOSE):
                return f"without the norm of {name} the logits are the same"
    return ""


def _unconnected(network: nn.Module) -> str:
    """Name a residual block that does not hand on its input where it adds nothing itself."""
    for name, module in network.named_modules():
        silent = copy.deepcopy(module).train()
        if isinstance(silent, Block) and silent.residual:
            first, last = "convolution", "activation"
        elif isinstance(silent, PreactivationUnit) and silent.shortcut is None:
            first, last = "convolution1", "convolution2"
        else:
            continue
        silent.add_module(last, _Zero())
        convolution = silent.get_submodule(first)
        assert isinstance(convolution, nn.Conv2d)
        features = torch.ones(2, convolution.in_channels, 8, 8)
        with torch.no_grad():
            if not torch.equal(silent(features), features):
                return f"{name} does not add its input to its output"
    return ""


def _unrepeatable(built: Built) -> str:
    """Name what comes out differently when a pass is taken again from the same state."""
    images, passes = built.images(), []
    for _ in range(3):
        twin = copy.deepcopy(built.network).train()
        twin.zero_grad()
        torch.manual_seed(0)
        logits = twin(images)
        logits.square().sum().backward()
        gradients = {f"gradient of {n}": p.grad for n, p in twin.named_parameters()}
        passes.append({"output": logits.detach(), **gradients})
    first, *others = passes
    for name, tensor in first.items():
        if any(tensor is not None and not torch.equal(tensor, each[name]) for each in others):
            return f"the {name} differs from one pass to the next"
    return ""


class _Zero(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features)
