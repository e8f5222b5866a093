"""Torch's norm operators: what they are called with, and how a fault stands in for one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from normbench.check.faults.planting import fault, instead_of

Operator = Callable[..., Tensor]
Gather = Callable[[Operator], Operator]


class Batch(NamedTuple):
    """What batch_norm is called with."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


class Grouped(NamedTuple):
    """What group_norm is called with."""

    input: Tensor
    num_groups: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5


class Layered(NamedTuple):
    """What layer_norm is called with."""

    input: Tensor
    normalized_shape: list[int]
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5


def _faults_of(operator: str, arguments: Callable[..., Any]) -> Callable[..., Gather]:
    """Return the decorator for functions of an operator and of what it is called with."""

    def described(name: str, told: str, source: str = "") -> Gather:
        def gather(broken: Operator) -> Operator:
            @fault(name, "norm", told, source)
            @instead_of(F, operator)
            def _(original: Operator, *given: Any, **named: Any) -> Tensor:
                return broken(original, arguments(*given, **named))

            return broken

        return gather

    return described


in_batch_norm = _faults_of("batch_norm", Batch)
in_group_norm = _faults_of("group_norm", Grouped)
in_layer_norm = _faults_of("layer_norm", Layered)


def by_channel(values: Tensor, features: Tensor) -> Tensor:
    """Return one value a channel in a shape that acts on features."""
    return values.view(1, -1, *[1] * (features.dim() - 2))


def scaled(features: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return features after the affine part of a norm with one weight a channel."""
    if weight is not None:
        features = features * by_channel(weight, features)
    return features if bias is None else features + by_channel(bias, features)


def over_batch(features: Tensor) -> tuple[int, ...]:
    """Return the axes of one statistic of batch normalization."""
    return 0, *range(2, features.dim())


def moments(features: Tensor, axes: tuple[int, ...], correction: int = 0) -> tuple[Tensor, Tensor]:
    """Return mean and variance over axes, which are kept."""
    mean = features.mean(axes, keepdim=True)
    return mean, features.var(axes, keepdim=True, correction=correction)


def in_float32(features: Tensor) -> Tensor:
    """Return features in a type that sums can be taken in."""
    return features.float() if features.element_size() < 4 else features
