"""Faults in the operators and the architecture of the networks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.check.faults.planting import fault, instead_of, replaced
from normbench.models import networks, stacks
from normbench.models.norms import NormFactory, NormSite

Operator = Callable[..., Tensor]


@fault("relu-leaks", "network", "ReLU lets a hundredth of negative values through.")
@instead_of(F, "relu")
def _(_: Operator, features: Tensor, inplace: bool = False) -> Tensor:
    return F.leaky_relu(features, 0.01, inplace)


@fault("dead-channel", "network", "The first channel of every convolution's output is zero.")
@instead_of(F, "conv2d")
def _(original: Operator, *given: Any, **named: Any) -> Tensor:
    output = original(*given, **named)
    alive = torch.ones(output.shape[1], 1, 1, dtype=output.dtype, device=output.device)
    alive[0] = 0
    return output * alive


@fault("convolution-one-group", "network", "Grouped convolutions take their first group alone.")
@instead_of(F, "conv2d")
def _(original: Operator, images: Tensor, weight: Tensor, *given: Any, **named: Any) -> Tensor:
    groups = images.shape[1] // weight.shape[1]
    if groups > 1:
        images = images[:, : weight.shape[1]].repeat(1, groups, 1, 1)
    return original(images, weight, *given, **named)


@fault("average-for-max-pool", "network", "Max-pools take the mean of their windows.")
@instead_of(F, "max_pool2d")
def _(_: Operator, features: Tensor, kernel_size: int, *__: Any, **___: Any) -> Tensor:
    return F.avg_pool2d(features, kernel_size)


@fault(
    "dropout-not-scaled",
    "network",
    "Dropout does not scale up what it keeps.",
    why_not_found="no case of the suite has dropout, which users' own cases may have",
)
@instead_of(F, "dropout")
def _(
    original: Operator, features: Tensor, p: float = 0.5, training: bool = True, *given: Any
) -> Tensor:
    output = original(features, p, training, *given)
    return output * (1 - p) if training else output


@fault("classifier-without-bias", "network", "Linear layers do not add their bias.")
@instead_of(F, "linear")
def _(original: Operator, features: Tensor, weight: Tensor, _: Tensor | None = None) -> Tensor:
    return original(features, weight)


@fault("weights-begin-small", "network", "Weights begin at a tenth of their size.")
@instead_of(nn.init, "kaiming_uniform_")
def _(original: Operator, weights: Tensor, *given: Any, **named: Any) -> Tensor:
    with torch.no_grad():
        return original(weights, *given, **named).mul_(0.1)


@fault("residual-dropped", "network", "Residual blocks leave out their input.")
def _() -> AbstractContextManager[None]:
    return replaced(stacks.Block, "forward", nn.Sequential.forward)


@fault("layer-without-norm", "network", "The norm of the second block returns what it is given.")
@instead_of(networks, "norm_factory")
def _(original: Callable[[str], NormFactory], name: str) -> NormFactory:
    build = original(name)

    def built(site: NormSite) -> nn.Module:
        layer = build(site)
        if site.layer == "blocks.block2.norm":
            # its parameters are there, and do nothing
            layer.forward = _unchanged
        return layer

    return built


def _unchanged(features: Tensor) -> Tensor:
    return features
