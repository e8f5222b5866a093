"""The pre-activation residual network."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .built_in import CLASSES, BuiltInNetwork
from .norms import brings_activation, keeps_scale
from .regularizers import drop_branch
from .sites import BuildNorm, Shape


class PreactivationUnit(nn.Module):
    """``s + W2 d(a(n2(W1 a(n1(x)))))``, with ``s = x``, or ``W a(n1(x))`` where the shape changes.

    Norm ``n`` and activation ``a`` stand before each convolution, and nothing after the sum; ``d``
    is dropout. Only without a norm do the convolutions have biases. ``scale`` is that of the
    weights of W2 at the start, over those that keep the scale of what passes through.

    Source: He et al., Identity Mappings in Deep Residual Networks, 2016, figure 4 (e); dropout as
    in Zagoruyko and Komodakis, Wide Residual Networks, 2016.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: BuildNorm, dropout: float, scale: float
    ) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.activation1 = _activation_after(self.norm1)
        bias = isinstance(self.norm1, nn.Identity)
        self.convolution1 = _convolution(inputs, outputs, 3, stride, bias)
        self.norm2 = norm(outputs)
        self.activation2 = _activation_after(self.norm2)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.convolution2 = _convolution(outputs, outputs, 3, 1, bias)
        if keeps_scale(self.norm1):
            with torch.no_grad():
                self.convolution2.weight.mul_(scale)
        # the probability that training leaves the branch out: models.regularizers
        self.drop_rate = 0.0
        changes = stride > 1 or inputs != outputs
        self.shortcut = _convolution(inputs, outputs, 1, stride, False) if changes else None

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        begun = self.activation1(self.norm1(features))
        shortcut = features if self.shortcut is None else self.shortcut(begun)
        inner = self.activation2(self.norm2(self.convolution1(begun)))
        if self.dropout is not None:
            inner = self.dropout(inner)
        branch = drop_branch(self.convolution2(inner), self.drop_rate, self.training)
        output: Tensor = shortcut + branch
        return output


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> nn.Conv2d:
    """Return a convolution that begins with weights which keep the scale (He et al., 2015)."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _activation_after(norm_layer: nn.Module) -> nn.Module:
    return nn.Identity() if brings_activation(norm_layer) else PreactivationNet.activation()


class PreactivationNet(BuiltInNetwork):
    """A pre-activation residual network for images of 28 or 32 pixels, in any channels.

    A convolution and a max-pool of 2 bring the image to half its size. ``widths`` has the channels
    of each unit, of which all but the first halve the size again; norm, activation, a global mean
    and a linear layer follow. Where nothing normalizes, each of L units begins with its branch
    scaled by ``1 / sqrt(L)``, so that neither features nor gradients grow with the depth
    (Hayou et al., Stable ResNet, 2021).

    Source: He et al., Identity Mappings in Deep Residual Networks, 2016.
    """

    parameter_limit = 49_999
    least_size: ClassVar[int] = 16
    # without a norm, ReLUs left a channel of the last unit dead as the network began
    activation: ClassVar[type[nn.Module]] = nn.SiLU
    widths: ClassVar[Sequence[int]] = (16, 32, 40)

    def __init__(
        self, norm: BuildNorm, shape: Shape, classes: int = CLASSES, dropout: float = 0.0
    ) -> None:
        super().__init__()
        channels = self.widths[0]
        units: OrderedDict[str, nn.Module] = OrderedDict()
        for number, width in enumerate(self.widths, start=1):
            stride = 1 if number == 1 else 2
            scale = len(self.widths) ** -0.5
            unit = PreactivationUnit(channels, width, stride, norm, dropout, scale)
            units[f"unit{number}"] = unit
            channels = width
        norm_layer = norm(channels)
        bias = isinstance(norm_layer, nn.Identity)
        self.stem = _convolution(shape[0], self.widths[0], 3, 1, bias)
        self.pool = nn.MaxPool2d(2)
        self.units = nn.Sequential(units)
        self.norm = norm_layer
        self.last_activation = _activation_after(norm_layer)
        self.classifier = nn.Linear(channels, classes)

    @classmethod
    def made_for(cls) -> Shape:
        return 3, 32, 32

    @classmethod
    def takes(cls, channels: int, size: int) -> bool:
        return channels >= 1 and size >= cls.least_size

    @classmethod
    def needs(cls) -> str:
        return f"any channels x {cls.least_size} x {cls.least_size} or larger"

    @classmethod
    def definition(cls, shape: Shape, classes: int) -> dict[str, Any]:
        return {
            "shape": list(shape),
            "classes": classes,
            "widths": list(cls.widths),
            "activation": cls.activation.__name__,
        }

    def forward(self, images: Tensor) -> Tensor:
        features = self.units(self.pool(self.stem(images)))
        means = self.last_activation(self.norm(features)).mean((2, 3))
        logits: Tensor = self.classifier(means)
        return logits
