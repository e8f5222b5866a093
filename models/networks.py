"""The small networks that are trained, and those of a user's own.

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
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .factories import SPELLING, accepted, named_object, signature_problem, told
from .norms import (
    NormFactory,
    NormSite,
    brings_activation,
    check_layer,
    check_parameters,
    described,
    keeps_scale,
    norm_factory,
    standardize_weights,
)
from .regularizers import drop_branch
from .sites import (
    Build,
    BuildNorm,
    NetworkDoesNotFit,
    Shape,
    images_of,
    made_late,
    norm_sites,
    passed,
    sized,
    with_norms,
)

# The classes of a network that nothing is said of.
CLASSES = 10


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


class BuiltInNetwork(nn.Module, ABC):
    """A network that is known by a name.

    Maps images of shape ``(batch, *shape)`` to logits of shape ``(batch, classes)``.
    """

    parameter_limit: ClassVar[int]

    @classmethod
    @abstractmethod
    def made_for(cls) -> Shape:
        """Return the shape of images that it is built for where none is given."""

    @classmethod
    @abstractmethod
    def takes(cls, channels: int, size: int) -> bool:
        """Tell whether the network takes square images."""

    @classmethod
    @abstractmethod
    def needs(cls) -> str:
        """Say which images the network takes."""

    @classmethod
    def sees(cls, shape: Shape) -> Shape:
        """Return the shape of the middle of an image that the network sees; all by default."""
        return shape

    @classmethod
    @abstractmethod
    def definition(cls, shape: Shape, classes: int) -> dict[str, Any]:
        """Describe the architecture for such images in builtin types."""


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


NETWORKS: dict[str, type[BuiltInNetwork]] = {
    "digits": DigitsNet,
    "mnist": MnistNet,
    "cifar10": CifarNet,
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
