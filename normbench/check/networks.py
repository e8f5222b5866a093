"""A network: its shapes and size, and whether every part of it takes part."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normbench.check.properties import Property, Standing
from normbench.models.networks import (
    Block,
    ConvolutionalNetwork,
    build_network,
    count_parameters,
    network_class,
)

NORMS = ("batch", "layer", "none")
IMAGES = 64
CLOSE = 1e-5


def network_properties(name: str) -> Iterator[Property]:
    """Check the network called ``name`` with several norms; raises ValueError for no network."""
    network_class(name)
    for norm in NORMS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = build_network(name, norm)
        yield from _properties(f"with norm {norm}", network, norm)


def _images(network: ConvolutionalNetwork, count: int = IMAGES) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    size = network.image_size
    return torch.randn((count, network.image_channels, size, size), generator=generator)


def _property(section: str, name: str, wrong: str, right: str) -> Property:
    return Property(section, name, Standing.BROKEN if wrong else Standing.HOLDS, wrong or right)


def _properties(section: str, network: ConvolutionalNetwork, norm: str) -> Iterator[Property]:
    count = count_parameters(network)
    yield _property(section, "logits, one a class", _wrong_shape(network), "for 1, 2 and 7 images")
    limit = network.parameter_limit
    wrong = "" if count <= limit else f"{count:,} parameters: expected at most {limit:,}"
    yield _property(section, "parameters", wrong, f"{count:,} of {limit:,}")
    yield _property(section, "every parameter gets a gradient", _untrained(network), "all do")
    yield _property(section, "no dead unit at the start", _dead(network), "every channel answers")
    together = "an image's logits depend on the others" if _dependent(network) else ""
    yield _property(section, "images apart at evaluation", together, "the same alone")
    if norm != "none":
        yield _property(
            section, "the norm has an effect at every site", _bypassed(network), "at all of them"
        )
    yield _property(section, "residual connections", _unconnected(network), "as defined")
    yield _property(section, "repeatable", _unrepeatable(network), "equal to the bit, three times")


def _wrong_shape(network: ConvolutionalNetwork) -> str:
    for count in (1, 2, 7):
        shape = tuple(network.eval()(_images(network, count)).shape)
        if shape != (count, network.classes):
            return f"{shape} for {count} images: expected {(count, network.classes)}"
    return ""


def _untrained(network: ConvolutionalNetwork) -> str:
    network.train().zero_grad()
    weights = torch.linspace(-1, 1, IMAGES * network.classes).reshape(IMAGES, network.classes)
    (network(_images(network)) * weights.roll(7, 1)).square().sum().backward()
    lacking = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool(p.grad.isfinite().all()) or not bool((p.grad != 0).any())
    ]
    return f"{', '.join(lacking)} get none" if lacking else ""


def _dead(network: ConvolutionalNetwork) -> str:
    answers: dict[str, Tensor] = {}
    handles = [
        block.get_submodule("activation").register_forward_hook(
            lambda _, __, output, name=name: answers.__setitem__(name, output)
        )
        for name, block in network.blocks.named_children()
    ]
    with torch.no_grad():
        network.train()(_images(network))
    for handle in handles:
        handle.remove()
    for name, output in answers.items():
        channels = output.transpose(0, 1).flatten(1)
        still = (channels.std(1) == 0).nonzero().flatten().tolist()
        if still:
            return f"channel {still[0]} of {name} answers the same to everything"
    return ""


def _dependent(network: ConvolutionalNetwork) -> bool:
    images = _images(network)
    with torch.no_grad():
        together, alone = network.eval()(images)[:1], network.eval()(images[:1])
    return bool((together - alone).abs().max() > CLOSE * (1 + alone.abs().max()))


def _bypassed(network: ConvolutionalNetwork) -> str:
    """Name a block whose norm can be taken away without a difference."""
    images = _images(network)
    with torch.no_grad():
        whole = network.train()(images)
        for name, _ in network.blocks.named_children():
            without = copy.deepcopy(network).train()
            without.blocks.get_submodule(name).add_module("norm", nn.Identity())
            if bool((without(images) - whole).abs().max() <= CLOSE):
                return f"without the norm of {name} the logits are the same"
    return ""


def _unconnected(network: ConvolutionalNetwork) -> str:
    """Name a residual block that does not hand on its input where it adds nothing itself."""
    for (name, block), stage in zip(network.blocks.named_children(), network.stages, strict=True):
        silent = copy.deepcopy(block).train()
        if not stage.residual or not isinstance(silent, Block):
            continue
        silent.add_module("activation", _Zero())
        features = torch.ones(2, stage.channels, 8, 8)
        with torch.no_grad():
            if not torch.equal(silent(features), features):
                return f"{name} does not add its input to its output"
    return ""


def _unrepeatable(network: ConvolutionalNetwork) -> str:
    """Name what comes out differently when a pass is taken again from the same state."""
    images, passes = _images(network), []
    for _ in range(3):
        twin = copy.deepcopy(network).train()
        twin.zero_grad()
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
