"""Networks that are stacks of convolution blocks."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from .built_in import CLASSES, BuiltInNetwork
from .norms import brings_activation, keeps_scale
from .regularizers import drop_branch
from .sites import BuildNorm, Shape, sized


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
        norm: BuildNorm,
        activation: type[nn.Module],
        dropout: float,
    ) -> None:
        norm_layer = norm(stage.channels)
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


class ConvolutionalNetwork(BuiltInNetwork):
    """A stack of convolution blocks, a global max-pool and a linear layer.

    Takes images of shape ``(batch, image_channels, image_size, image_size)``. ``stages`` holds a
    Stage a block.
    """

    image_size: ClassVar[int]
    image_channels: ClassVar[int] = 1
    stages: ClassVar[Sequence[Stage]]
    activation: ClassVar[type[nn.Module]] = nn.ReLU

    def __init__(
        self, norm: BuildNorm, shape: Shape, classes: int = CLASSES, dropout: float = 0.0
    ) -> None:
        super().__init__()
        channels = shape[0]
        self.blocks = nn.Sequential()
        for number, stage in enumerate(self.stages, start=1):
            block = Block(stage, channels, norm, self.activation, dropout)
            self.blocks.add_module(f"block{number}", block)
            channels = stage.channels
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    @classmethod
    def made_for(cls) -> Shape:
        return cls.image_channels, cls.image_size, cls.image_size

    @classmethod
    def takes(cls, channels: int, size: int) -> bool:
        """Tell whether the network takes square images, of which it sees the middle."""
        return channels == cls.image_channels and size >= cls.image_size

    @classmethod
    def needs(cls) -> str:
        return f"{sized(cls.made_for())} or larger"

    @classmethod
    def sees(cls, shape: Shape) -> Shape:  # noqa: ARG003  # the same middle of any size
        return cls.made_for()

    @classmethod
    # its stages are the same for images of any size
    def definition(cls, shape: Shape, classes: int) -> dict[str, Any]:  # noqa: ARG003
        return {
            "image_size": cls.image_size,
            "image_channels": cls.image_channels,
            "classes": classes,
            # a field that came later is left out at its default: fingerprints stay as they were
            "stages": [
                {
                    field: value
                    for field, value in stage._asdict().items()
                    if field in _FIRST_STAGE or value != stage._field_defaults.get(field)
                }
                for stage in cls.stages
            ],
            "activation": cls.activation.__name__,
        }

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.pool(self.blocks(images)).flatten(1)
        logits: Tensor = self.classifier(features)
        return logits


# The fields of a Stage that fingerprints have always covered.
_FIRST_STAGE = ("channels", "kernel", "stride", "pool", "groups", "residual")


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


class CifarBestNet(ConvolutionalNetwork):
    """For CIFAR-10, at twice the operations of CifarNet: a convolution at full size more."""

    image_size = 32
    image_channels = 3
    parameter_limit = 49_999
    stages = (
        Stage(24),
        Stage(24, pool=2),
        Stage(24, residual=True),
        Stage(32, pool=2),
        Stage(32, residual=True),
        Stage(40, pool=2),
        Stage(48, groups=2),
    )
    activation = nn.SiLU
