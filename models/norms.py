"""Normalization layers by name, built in and of a user's own.

A norm of one's own is a class or function that is named as ``package.module:factory``::

    class RMSNorm2d(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(channels, 1, 1))

        def forward(self, x):
            return self.scale * x * (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt()

- It is called with the number of channels, and with ``height`` and ``width`` if it has such
  parameters, and returns a module that keeps the shape and type of float32 features of
  ``(images, channels, height, width)``. It is given them in the plain memory order.
- Parameters are made in ``__init__`` and are float32; those with ``requires_grad=False`` are left
  alone, by regularizers as well. What is to be kept over an interruption belongs in buffers.
- An attribute ``normbench_claims`` of the factory, a dict of NormClaims' fields, says what
  ``normbench check`` is to verify.
- Attributes of its layer say what it asks of the network: ``brings_activation = True`` that the
  activation after it is left out, ``keeps_scale = True`` that the weights before it begin as
  without a norm, and ``standardizes_weights = True`` that those of all convolutions are
  standardized.

check_layer says what of this is not so, before anything trains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .factories import accepted, signature_problem, told
from .families import (
    FAMILIES,
    NORMALIZING_THE_SCALE,
    STANDARDIZED,
    UnknownNorm,
    named_norm,
    norm_family,
    norm_parameter,
    unknown_norm,
)
from .layers import (
    BatchRenorm,
    DynamicTanh,
    EvoNormS0,
    FilterResponseNorm,
    GhostBatchNorm,
    GlobalResponseNorm,
    RMSNorm,
    StandardizedConv2d,
)


@dataclass(frozen=True)
class NormSite:
    """The place in a network that a norm layer stands in.

    ``layer`` is the layer's name in the network; its input has the shape
    ``(batch, channels, height, width)``.
    """

    layer: str
    channels: int
    height: int
    width: int


NormFactory = Callable[[NormSite], nn.Module]


class NormDoesNotFit(ValueError):
    """A norm that cannot stand at a given place of a network."""


def bare_layer(layer: nn.Module) -> nn.Module:
    """Return a layer that norm_factory's factory has built without what stands around it."""
    return layer.norm if isinstance(layer, _OnContiguous) else layer


def brings_activation(layer: nn.Module) -> bool:
    """Tell whether a norm layer has the activation in it, so that a network leaves its own out.

    It says so with an attribute ``brings_activation = True``, a user's own as well.
    """
    return getattr(bare_layer(layer), "brings_activation", False)


def keeps_scale(layer: nn.Module) -> bool:
    """Tell whether a norm layer's output grows with its input, as without a norm.

    The convolutions of a network then have to begin with weights that keep the scale of what
    passes through them, which otherwise the norm sees to. A norm says so with an attribute
    ``keeps_scale = True``, a user's own as well.
    """
    return isinstance(layer, nn.Identity) or getattr(bare_layer(layer), "keeps_scale", False)


def standardizes_weights(layer: nn.Module) -> bool:
    """Tell whether a norm layer asks for convolutions with standardized weights.

    It says so with an attribute ``standardizes_weights = True``, a user's own as well.
    """
    return getattr(bare_layer(layer), "standardizes_weights", False)


def standardize_weights(network: nn.Module) -> None:
    """Make every ``nn.Conv2d`` of a network a StandardizedConv2d, if one of its norms asks for it.

    All of them are, wherever they stand, as in the paper; a convolution of a class of its own
    stays as it is. Raises NormDoesNotFit where there is none, and where a filter has a single
    weight, which would become 0.
    """
    layers = dict(network.named_modules())
    asking = next((n for n, m in layers.items() if standardizes_weights(m)), None)
    if asking is None:
        return
    convolutions = {n: m for n, m in layers.items() if type(m) is nn.Conv2d}
    if not convolutions:
        raise NormDoesNotFit(
            f"the norm in layer {asking!r} standardizes the weights of convolutions: expected a "
            f"torch.nn.Conv2d in {type(network).__name__}, which has none; take the norm without "
            "ws+"
        )
    for name, convolution in convolutions.items():
        if convolution.weight[0].numel() < 2:
            raise NormDoesNotFit(
                f"the norm in layer {asking!r} standardizes the weights of convolutions: expected "
                f"filters of 2 weights at least, those of {name!r} have one, which would become "
                "0; take the norm without ws+"
            )
        # in place, as a network may hold it by more than one name
        convolution.__class__ = StandardizedConv2d


def norm_factory(name: str) -> NormFactory:
    """Return the factory that builds the norm called ``name`` for a site.

    What a layer asks of the network that it stands in, it says by its attributes: see
    brings_activation, keeps_scale and standardize_weights.

    Raises UnknownNorm for a name that stands for no norm. The factory raises
    NormDoesNotFit where the norm cannot normalize the site's channels.
    """
    family = norm_family(name)
    if name in _BUILTIN:
        return _BUILTIN[name]
    if family and name.startswith(STANDARDIZED):
        return _with_standardized_weights(norm_factory(name.removeprefix(STANDARDIZED)))
    if family:
        (number,) = norm_parameter(name).values()
        return _WITH_PARAMETER[family.spelling](number)
    if name.startswith(STANDARDIZED):
        raise UnknownNorm(
            f"unknown norm {name!r}: expected {STANDARDIZED} before one of "
            f"{', '.join(NORMALIZING_THE_SCALE)}; a norm of one's own has the attribute "
            "standardizes_weights"
        )
    if ":" not in name or name.partition(":")[0] in FAMILIES:
        raise unknown_norm(name)
    return _imported(name)


def _with_standardized_weights(build_norm: NormFactory) -> NormFactory:
    def build(site: NormSite) -> nn.Module:
        layer = build_norm(site)
        layer.standardizes_weights = True  # type: ignore[assignment]  # no tensor, and no module
        return layer

    return build


def _grouped(kind: str, layer: Callable[[int, int], nn.Module], groups: int) -> NormFactory:
    def build(site: NormSite) -> nn.Module:
        if site.channels % groups:
            counts = [g for g in range(1, site.channels + 1) if site.channels % g == 0]
            raise NormDoesNotFit(
                f"{kind}:{groups} does not fit layer {site.layer!r}: its {site.channels} channels "
                f"cannot be split into {groups} equal groups; use one of "
                f"{', '.join(f'{kind}:{count}' for count in counts)}"
            )
        return layer(groups, site.channels)

    return build


def _ghost(images: int) -> NormFactory:
    return lambda site: GhostBatchNorm(images, site.channels)


class _InstanceNorm(nn.InstanceNorm2d):
    """``InstanceNorm2d``, with the right gradient for a batch of one image as well.

    torch computes it as the batch normalization of one image of N x C channels, in the plain
    memory order. Of a single image, whose gradient the next layer hands over in channels_last, the
    backward pass on CPUs then reads one in the order of the other, and the network hardly trains
    (torch 2.13.0 and 2.15.0). Batch normalization keeps them apart where the strides are those
    that convolutions leave (docs/upstream/instance-norm-gradient.md).
    """

    def forward(self, features: Tensor) -> Tensor:
        if len(features) > 1:
            return super().forward(features)
        return F.batch_norm(
            features, None, None, self.weight, self.bias, training=True, eps=self.eps
        )


class _LayerNormPerElement(nn.LayerNorm):
    """``LayerNorm([C, H, W])``, whose weights lie as ``(H, W, C)``.

    The networks run in channels_last, where a feature map's elements lie in that order: torch
    would copy each map to the plain order and back. Forward and backward take a third of the
    time (64 x 16 x 12 x 12 on one core of an AMD EPYC: 0.15 to 0.21 against 0.53 to 0.59 ms).
    """

    def __init__(self, site: NormSite) -> None:
        super().__init__([site.height, site.width, site.channels])

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


_BUILTIN: dict[str, NormFactory] = {
    "none": lambda _: nn.Identity(),
    "batch": lambda site: nn.BatchNorm2d(site.channels),
    "layer": lambda site: nn.GroupNorm(1, site.channels),
    "layer_chw": _LayerNormPerElement,
    "instance": lambda site: _InstanceNorm(site.channels, affine=True),
    "rms": lambda site: RMSNorm(site.channels),
    "frn": lambda site: FilterResponseNorm(site.channels),
    "grn": lambda site: GlobalResponseNorm(site.channels),
    "batch_renorm": lambda site: BatchRenorm(site.channels),
    "dynamic_tanh": lambda site: DynamicTanh(site.channels),
}
_WITH_PARAMETER: dict[str, Callable[[int], NormFactory]] = {
    "group:G": partial(_grouped, "group", nn.GroupNorm),
    "ghost:S": _ghost,
    "evonorm_s0:G": partial(_grouped, "evonorm_s0", EvoNormS0),
}


class _OnContiguous(nn.Module):
    """Gives a user's norm its features, and the gradients of its output, in the plain memory order.

    The networks run in channels_last, in which ``x.view(n, groups, -1)`` of many a norm fails, and
    torch's InstanceNorm2d is wrong as _InstanceNorm says.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        normalized: Tensor = self.norm(features.contiguous())
        if isinstance(normalized, Tensor) and normalized.requires_grad:
            normalized.register_hook(Tensor.contiguous)
        return normalized


def _check_call(name: str, factory: Any, **size: int) -> None:
    """Raise UnknownNorm for what cannot be called with the channels."""
    if not callable(factory):
        raise UnknownNorm(
            f"norm {name!r} is a {type(factory).__name__}: expected something to call with the "
            "number of channels that returns a torch.nn.Module"
        )
    if problem := signature_problem(factory, 1, **size):
        raise UnknownNorm(
            f"norm {name!r} cannot be called with the number of channels alone: {problem}; "
            "expected a factory such as `def norm(channels): ...`, which may also take height "
            "and width"
        )


def _imported(name: str) -> NormFactory:
    """Wrap a user's factory, called with the channels, and ``height=``, ``width=`` if it can."""
    factory = named_norm(name)
    takes_size = accepted(factory, ("height", "width")) == ["height", "width"]
    _check_call(name, factory, **({"height": 1, "width": 1} if takes_size else {}))

    def build(site: NormSite) -> nn.Module:
        size = {"height": site.height, "width": site.width} if takes_size else {}
        try:
            layer = factory(site.channels, **size)
        except (Exception, SystemExit) as error:
            raise NormDoesNotFit(
                f"{name} could not be built for layer {site.layer!r} of {site.channels} channels: "
                f"{told(error)}; expected a torch.nn.Module for these channels; correct the "
                "factory, or take another norm for this network"
            ) from error
        if not isinstance(layer, nn.Module):
            raise NormDoesNotFit(
                f"{name} returned a {type(layer).__name__} for layer {site.layer!r}: "
                "expected a class or function that returns a torch.nn.Module"
            )
        return _OnContiguous(layer)

    return build


def check_layer(norm: str, layer: nn.Module, site: NormSite) -> None:
    """Raise NormDoesNotFit where a new ``layer`` cannot be trained in its place.

    It must keep the shape and type of float32 features, and be built with all that it trains, in
    float32. Changes the layer: features of two images go through it.
    """
    own = bare_layer(layer)
    place = f"{norm} in layer {site.layer!r}"
    check_parameters(place, own)
    before = _trained_tensors(own)
    shape = (2, site.channels, site.height, site.width)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        # no inference mode: a tensor that a norm keeps from this could not be used in training
        with torch.no_grad():
            output = layer.train()(features.contiguous(memory_format=torch.channels_last))
    except (Exception, SystemExit) as error:
        raise NormDoesNotFit(
            f"{norm} cannot take the features of layer {site.layer!r}, {described(features)}: "
            f"{told(error)}"
        ) from error
    if described(output) != described(features):
        raise NormDoesNotFit(
            f"{place} returned {described(output)}: expected {described(features)}; return "
            "features of its input's shape and dtype"
        )
    made = [name for name, at in _trained_tensors(own).items() if before.get(name) != at]
    if made:
        raise NormDoesNotFit(_made_late(place, made[0]))


def check_parameters(
    place: str, module: nn.Module, raises: type[ValueError] = NormDoesNotFit
) -> None:
    """Raise for a trained parameter that is not float32, or not there before the first pass."""
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise raises(_made_late(place, name))
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise raises(
                f"{place} has a parameter {name!r} of {_dtype(parameter)}: expected float32, "
                "as the network is; make it that, or freeze it with requires_grad=False"
            )


def _made_late(place: str, parameter: str) -> str:
    return (
        f"{place} makes its parameter {parameter!r} in its first forward pass: expected it as soon "
        "as the layer is built, when the optimizer is given its parameters; make it in __init__, "
        "from the channels, height= and width= that the factory is called with"
    )


def _trained_tensors(layer: nn.Module) -> dict[str, tuple[int, int]]:
    """Identify the parameters that are trained, and the memory that they lie in."""
    return {n: (id(p), p.data_ptr()) for n, p in layer.named_parameters() if p.requires_grad}


def described(output: object) -> str:
    """Name the type of what a module returned, and of a tensor the dtype and shape."""
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    return f"{_dtype(output)} of shape {tuple(output.shape)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
