"""The small networks that are trained; each takes any norm and a dropout rate."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .norms import (
    NormFactory,
    NormSite,
    brings_activation,
    check_layer,
    keeps_scale,
    norm_factory,
    standardize_weights,
)
from .regularizers import drop_branch


class Stage(NamedTuple):
    """A block of a network: ``pool`` is its max-pool's size, ``groups`` its convolution's groups.

    ``residual`` adds the block's input to its output.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    pool: int = 1
    groups: int = 1
    residual: bool = False

    @property
    def padding(self) -> int:
        return (self.kernel - 1) // 2

    def output_size(self, size: int) -> int:
        """Return the height and width of what the block makes of square features of ``size``."""
        return ((size + 2 * self.padding - self.kernel) // self.stride + 1) // self.pool


class Block(nn.Sequential):
    """Convolution, max-pool, norm, activation and dropout, in this order.

    The pool stands before the norm because that leaves a quarter of the elements to normalize.
    A norm's affine part is the block's bias; only a block without a norm has one of its own. Such
    a block, and one whose norm keeps the scale of its input, begins with weights that keep the
    scale of what passes through it, which otherwise the norm sees to (He et al., Delving Deep into
    Rectifiers, 2015). Where the norm brings an activation, the block's own is left out.
    """

    def __init__(
        self,
        stage: Stage,
        channels: int,
        site: NormSite,
        norm: NormFactory,
        activation: type[nn.Module],
        dropout: float,
    ) -> None:
        norm_layer = norm(site)
        convolution = nn.Conv2d(
            channels,
            stage.channels,
            stage.kernel,
            stage.stride,
            padding=stage.padding,
            groups=stage.groups,
            bias=isinstance(norm_layer, nn.Identity),
        )
        if keeps_scale(norm_layer):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
        layers: OrderedDict[str, nn.Module] = OrderedDict(convolution=convolution)
        if stage.pool > 1:
            layers["pool"] = nn.MaxPool2d(stage.pool)
        # a layer by that name stays, as for those who listen to it
        own = nn.Identity() if brings_activation(norm_layer) else activation()
        layers |= {"norm": norm_layer, "activation": own}
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        super().__init__(layers)
        self.residual = stage.residual
        if stage.residual:
            # the probability that training leaves the branch out: models.regularizers
            self.drop_rate = 0.0

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` features; a residual block keeps their shape."""
        output = features
        for layer in self:
            output = layer(output)
        if not self.residual:
            return output
        return features + drop_branch(output, self.drop_rate, self.training)


class ConvolutionalNetwork(nn.Module):
    """A stack of convolution blocks, a global max-pool and a linear layer.

    Takes images of shape ``(batch, channels, image_size, image_size)`` and returns logits of
    shape ``(batch, 10)``. ``stages`` holds a Stage a block.
    Raises models.norms.NormDoesNotFit where the norm cannot stand in one of the blocks.
    """

    image_size: ClassVar[int]
    image_channels: ClassVar[int] = 1
    classes: ClassVar[int] = 10
    parameter_limit: ClassVar[int]
    stages: ClassVar[Sequence[Stage]]
    activation: ClassVar[type[nn.Module]] = nn.ReLU

    def __init__(self, norm: NormFactory, dropout: float = 0.0) -> None:
        super().__init__()
        channels, size = self.image_channels, self.image_size
        self.blocks = nn.Sequential()
        for number, stage in enumerate(self.stages, start=1):
            size = stage.output_size(size)
            name = f"block{number}"
            site = NormSite(f"{name}.norm", stage.channels, size, size)
            block = Block(stage, channels, site, norm, self.activation, dropout)
            self.blocks.add_module(name, block)
            channels = stage.channels
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(channels, self.classes)

    @classmethod
    def takes(cls, channels: int, size: int) -> bool:
        """Tell whether the network takes square images, of which it sees the middle."""
        return channels == cls.image_channels and size >= cls.image_size

    @classmethod
    def definition(cls) -> dict[str, Any]:
        """Describe the architecture in builtin types."""
        return {
            "image_size": cls.image_size,
            "image_channels": cls.image_channels,
            "classes": cls.classes,
            "stages": [stage._asdict() for stage in cls.stages],
            "activation": cls.activation.__name__,
        }

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.pool(self.blocks(images)).flatten(1)
        logits: Tensor = self.classifier(features)
        return logits


class DigitsNet(ConvolutionalNetwork):
    """For scikit-learn's 8 x 8 digits: small enough for a whole grid of runs in a minute."""

    image_size = 8
    parameter_limit = 15_000
    stages = (Stage(16), Stage(32, pool=2), Stage(32))


class MnistNet(ConvolutionalNetwork):
    """For the middle 24 x 24 pixels of MNIST, whose digits all lie in a box of 20 x 20."""

    image_size = 24
    parameter_limit = 15_000
    stages = (
        Stage(16, kernel=5, stride=2),
        Stage(16),
        Stage(16),
        Stage(16, pool=2),
        Stage(24, pool=2),
        Stage(16),
    )
    activation = nn.SiLU


class CifarNet(ConvolutionalNetwork):
    """For the 32 x 32 pixels of CIFAR-10 in three colours, with two residual connections."""

    image_size = 32
    image_channels = 3
    parameter_limit = 49_999
    stages = (
        Stage(24, pool=2),
        Stage(24, residual=True),
        Stage(32, pool=2),
        Stage(32, residual=True),
        Stage(48, pool=2),
        Stage(56, groups=2),
    )
    activation = nn.SiLU


NETWORKS: dict[str, type[ConvolutionalNetwork]] = {
    "digits": DigitsNet,
    "mnist": MnistNet,
    "cifar10": CifarNet,
}


def network_class(network: str) -> type[ConvolutionalNetwork]:
    """Return the network called ``network``; raises ValueError where there is none."""
    if network not in NETWORKS:
        raise ValueError(f"unknown network {network!r}: expected one of {', '.join(NETWORKS)}")
    return NETWORKS[network]


def build_network(network: str, norm: str, dropout: float = 0.0) -> ConvolutionalNetwork:
    """Build the network called ``network`` with the norm called ``norm`` in every block.

    Raises ValueError for an unknown network, UnknownNorm and NormDoesNotFit as models.norms does.
    """
    built = network_class(network)(norm_factory(norm), dropout)
    standardize_weights(built)
    return built


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained scalars."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def check_network(network: str, norm: str) -> None:
    """Raise what is wrong with the combination before anything trains.

    Gives each of the norm's layers features of its own, so that a norm of the user's own that
    builds but cannot be trained there is found as well. Leaves the global random numbers as they
    were. Raises as build_network does, and NormDoesNotFit as models.norms.check_layer does.
    """
    build_class, build_norm = network_class(network), norm_factory(norm)

    def checked(site: NormSite) -> nn.Module:
        layer = build_norm(site)
        check_layer(norm, layer, site)
        return layer

    with torch.random.fork_rng(devices=[]):
        standardize_weights(build_class(checked))
