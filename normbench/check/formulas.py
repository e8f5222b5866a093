"""Norms and penalties by their formulas, in elementary operations: what these are held against.

Nothing here calls torch.nn or torch.nn.functional, so that a mistake there has no counterpart here.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

EPSILON = 1e-5
MOMENTUM = 0.1  # the weight of a new batch in the running statistics, as torch has it

# A layer's parameters and buffers by name, as its state_dict has them.
State = Mapping[str, Tensor]
# Maps a network's parameters by their names to a penalty, a scalar, of strength 1.
Penalty = Callable[[Mapping[str, Tensor]], Tensor]
# Maps features of (N, C, H, W), a state, and whether it is training, to the output and the buffers
# that the layer has afterwards.
Formula = Callable[[Tensor, State, bool], tuple[Tensor, dict[str, Tensor]]]


def formula_of(norm: str) -> Formula | None:
    """Return the formula of the built-in norm called ``norm``; None for a user's own."""
    if norm.startswith("group:"):
        return _grouped(int(norm.removeprefix("group:")))
    return {
        "none": _identity,
        "batch": _batch,
        "layer": _grouped(1),
        "layer_chw": _per_element,
        "instance": _grouped(None),
    }.get(norm)


def _identity(features: Tensor, _: State, __: bool) -> tuple[Tensor, dict[str, Tensor]]:
    return features, {}


def _standardized(features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (features - mean) / (variance + EPSILON) ** 0.5


def _moments(features: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance over ``axes``, which stay as axes of size 1."""
    mean = features.mean(axes, keepdim=True)
    return mean, ((features - mean) ** 2).mean(axes, keepdim=True)


def _per_channel(features: Tensor, state: State) -> Tensor:
    return features * state["weight"].reshape(-1, 1, 1) + state["bias"].reshape(-1, 1, 1)


def _batch(features: Tensor, state: State, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """``(x - m) / sqrt(v + eps)`` over N, H, W; ``m`` and ``v`` are the stored ones at evaluation.

    Training stores ``0.9 * old + 0.1 * new``, the variance with Bessel's correction.
    """
    stored = {name: state[f"running_{name}"] for name in ("mean", "var")}
    if not training:
        mean, variance = (tensor.reshape(-1, 1, 1) for tensor in stored.values())
        return _per_channel(_standardized(features, mean, variance), state), {}
    mean, variance = _moments(features, (0, 2, 3))
    count = features.numel() // features.shape[1]
    new = {"mean": mean.flatten(), "var": variance.flatten() * count / (count - 1)}
    after = {
        f"running_{name}": (1 - MOMENTUM) * stored[name] + MOMENTUM * new[name].detach()
        for name in stored
    }
    after["num_batches_tracked"] = state["num_batches_tracked"] + 1
    return _per_channel(_standardized(features, mean, variance), state), after


def _grouped(groups: int | None) -> Formula:
    """``(x - m) / sqrt(v + eps)`` over each group of an image's channels; None is one a channel."""

    def normalized(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
        images, channels = features.shape[:2]
        by_group = features.reshape(images, groups or channels, -1)
        standardized = _standardized(by_group, *_moments(by_group, (2,)))
        return _per_channel(standardized.reshape(features.shape), state), {}

    return normalized


def _per_element(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """``(x - m) / sqrt(v + eps)`` over C, H, W; weights and biases of (H, W, C), one an element."""
    standardized = _standardized(features, *_moments(features, (1, 2, 3)))
    weight, bias = (state[name].permute(2, 0, 1) for name in ("weight", "bias"))
    return standardized * weight + bias, {}


def _all(parameters: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([parameter.reshape(-1) for parameter in parameters.values()])


def _matrices(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the weights of convolutions and linear layers, a row an output."""
    return [
        parameter.reshape(len(parameter), -1)
        for name, parameter in parameters.items()
        if name.endswith("weight") and ".norm." not in name
    ]


def _off_orthogonal(matrix: Tensor) -> Tensor:
    """``||W W^T - I||_F^2``, or of the transpose where that is the smaller product."""
    outputs, inputs = matrix.shape
    product = matrix @ matrix.t() if outputs <= inputs else matrix.t() @ matrix
    difference = product - torch.eye(len(product), dtype=matrix.dtype)
    return (difference * difference).sum()


def _largest_squared(matrix: Tensor) -> Tensor:
    """The square of the largest singular value: the largest eigenvalue of ``W W^T``."""
    largest: Tensor = torch.linalg.eigvalsh(matrix @ matrix.t())[-1]
    return largest


def _over_matrices(term: Callable[[Tensor], Tensor]) -> Penalty:
    return lambda parameters: torch.stack(list(map(term, _matrices(parameters)))).sum()


# By the names of the regularizers that are penalties on the loss.
PENALTIES: dict[str, Penalty] = {
    "l1": lambda parameters: _all(parameters).abs().sum(),
    "l2": lambda parameters: (_all(parameters) ** 2).sum() / 2,
    "l2-weights": _over_matrices(lambda matrix: (matrix * matrix).sum() / 2),
    "orthogonal": _over_matrices(_off_orthogonal),
    "spectral": _over_matrices(lambda matrix: _largest_squared(matrix) / 2),
}
