"""The small networks that are trained; each takes any norm and a dropout rate."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.norms import NormDoesNotFit, NormFactory, NormSite, norm_factory


def _block(
    norm: NormFactory, site: NormSite, convolution: Sequence[int], pool: int, dropout: float
) -> nn.Sequential:
    """Return convolution, max-pool, norm, ReLU and dropout, in this order.

    The pool stands before the norm because that leaves a quarter of the elements to normalize.
    A norm's affine part is the block's bias; only a block without a norm has one of its own.
    """
    inputs, kernel, stride = convolution
    norm_layer = norm(site)
    layers: list[tuple[str, nn.Module]] = [
        (
            "convolution",
            nn.Conv2d(
                inputs,
                site.channels,
                kernel,
                stride,
                padding=kernel // 2,
                bias=isinstance(norm_layer, nn.Identity),
            ),
        )
    ]
    if pool > 1:
        layers.append(("pool", nn.MaxPool2d(pool)))
    layers += [("norm", norm_layer), ("activation", nn.ReLU())]
    if dropout:
        layers.append(("dropout", nn.Dropout(dropout)))
    return nn.Sequential(OrderedDict(layers))


class ConvolutionalNetwork(nn.Module):
    """A stack of convolution blocks, a global max-pool and a linear layer.

    Takes images of shape ``(batch, channels, image_size, image_size)`` and returns logits of
    shape ``(batch, 10)``. ``stages`` holds a tuple (channels, kernel, stride, pool) a block.
    Raises models.norms.NormDoesNotFit where the norm cannot stand in one of the blocks.
    """

    image_size: ClassVar[int]
    image_channels: ClassVar[int] = 1
    classes: ClassVar[int] = 10
    parameter_limit: ClassVar[int]
    stages: ClassVar[Sequence[tuple[int, int, int, int]]]

    def __init__(self, norm: NormFactory, dropout: float = 0.0) -> None:
        super().__init__()
        channels, size = self.image_channels, self.image_size
        self.blocks = nn.Sequential()
        for number, (width, kernel, stride, pool) in enumerate(self.stages, start=1):
            convolution = (channels, kernel, stride)
            channels, size = width, -(-size // stride) // pool
            name = f"block{number}"
            site = NormSite(f"{name}.norm", channels, size, size)
            self.blocks.add_module(name, _block(norm, site, convolution, pool, dropout))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(channels, self.classes)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.pool(self.blocks(images)).flatten(1)
        logits: Tensor = self.classifier(features)
        return logits


class DigitsNet(ConvolutionalNetwork):
    """For scikit-learn's 8 x 8 digits: small enough for a whole grid of runs in a minute."""

    image_size = 8
    parameter_limit = 15_000
    stages = ((16, 3, 1, 1), (32, 3, 1, 2), (32, 3, 1, 1))


class MnistNet(ConvolutionalNetwork):
    """For the middle 24 x 24 pixels of MNIST, whose digits all lie in a box of 20 x 20."""

    image_size = 24
    parameter_limit = 15_000
    stages = ((16, 5, 2, 1), (16, 3, 1, 1), (16, 3, 1, 2), (24, 3, 1, 2), (24, 3, 1, 1))


NETWORKS: dict[str, type[ConvolutionalNetwork]] = {"digits": DigitsNet, "mnist": MnistNet}


def build_network(network: str, norm: str, dropout: float = 0.0) -> ConvolutionalNetwork:
    """Build the network called ``network`` with the norm called ``norm`` in every block.

    Raises ValueError for an unknown network, UnknownNorm and NormDoesNotFit as models.norms does.
    """
    if network not in NETWORKS:
        raise ValueError(f"unknown network {network!r}: expected one of {', '.join(NETWORKS)}")
    return NETWORKS[network](norm_factory(norm), dropout)


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained scalars."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def check_network(network: str, norm: str) -> None:
    """Raise what is wrong with the combination before anything trains.

    Runs two blank images through the network, so that a norm of the user's own that builds but
    cannot take its input is found as well. Leaves the global random numbers as they were.
    Raises as build_network does, and NormDoesNotFit where the forward pass fails.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        model = build_network(network, norm)
        blank = torch.zeros(2, model.image_channels, model.image_size, model.image_size)
        try:
            logits = model(blank)
        except Exception as error:
            raise NormDoesNotFit(
                f"{norm} cannot take the features of network {network!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
    if logits.shape != (2, model.classes):
        raise NormDoesNotFit(
            f"{norm} in network {network!r} leads to logits of shape {tuple(logits.shape)}: "
            f"expected {(2, model.classes)}; a norm keeps the shape of its input"
        )
