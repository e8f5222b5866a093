"""Norms and penalties by their formulas, in elementary operations: what these are held against.

Nothing here calls torch.nn or torch.nn.functional, so that a mistake there has no counterpart here.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from normbench.models.families import STANDARDIZED, norm_parameter

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
    number = next(iter(norm_parameter(norm).values()), 0)
    # how they standardize the weights before them is not the layer's
    kind = norm.removeprefix(STANDARDIZED).partition(":")[0]
    return {
        "none": _identity,
        "batch": _batch,
        "layer": _grouped(1),
        "layer_chw": _per_element,
        "group": _grouped(number),
        "instance": _grouped(None),
        "rms": _root_mean_square,
        "frn": _filter_response,
        "grn": _global_response,
        "batch_renorm": _batch_renorm,
        "ghost": _ghost(number),
        "evonorm_s0": _evonorm_s0(number),
        "dynamic_tanh": _dynamic_tanh,
    }.get(kind)


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


def _root_mean_square(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """``x / sqrt(q + eps)``, where ``q`` is the mean of an image's squares."""
    square = (features**2).mean((1, 2, 3), keepdim=True)
    return _per_channel(features / (square + EPSILON) ** 0.5, state), {}


def _filter_response(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """``max(w x / sqrt(q + 1e-6) + b, t)``, where ``q`` is the mean of a map's squares."""
    square = (features**2).mean((2, 3), keepdim=True)
    normalized = _per_channel(features / (square + 1e-6) ** 0.5, state)
    threshold = state["threshold"].reshape(-1, 1, 1).expand_as(normalized)
    return torch.where(normalized > threshold, normalized, threshold), {}


def _global_response(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """``w x n + b + x``; ``n`` is a map's norm over the mean of the image's norms plus 1e-6."""
    norms = (features**2).sum((2, 3), keepdim=True) ** 0.5
    return _per_channel(
        features * norms / (norms.mean(1, keepdim=True) + 1e-6), state
    ) + features, {}


def _batch_renorm(
    features: Tensor, state: State, training: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """``(x - m) / s r + d`` in training, ``(x - M) / S`` at evaluation; ``M``, ``S`` are stored.

    ``r = s / S`` within ``[1 / R, R]`` and ``d = (m - M) / S`` within ``[-D, D]`` are constants.
    After ``t`` batches ``R = 1 + 2 (t - 100) / 700`` within [1, 3] and ``D = 5 (t - 100) / 400``
    within [0, 5].
    """
    stored = {name: state[f"running_{name}"] for name in ("mean", "std")}
    old_mean, old_std = (tensor.reshape(-1, 1, 1) for tensor in stored.values())
    if not training:
        return _per_channel((features - old_mean) / old_std, state), {}
    mean, variance = _moments(features, (0, 2, 3))
    std = (variance + EPSILON) ** 0.5
    batches = int(state["num_batches_tracked"])
    most_r = min(3.0, max(1.0, 1 + 2 * (batches - 100) / 700))
    most_d = min(5.0, max(0.0, 5 * (batches - 100) / 400))
    r = (std / old_std).detach().clamp(1 / most_r, most_r)
    d = ((mean - old_mean) / old_std).detach().clamp(-most_d, most_d)
    new = {"mean": mean.flatten(), "std": std.flatten()}
    after = {
        f"running_{name}": (1 - MOMENTUM) * stored[name] + MOMENTUM * new[name].detach()
        for name in stored
    }
    after["num_batches_tracked"] = state["num_batches_tracked"] + 1
    return _per_channel((features - mean) / std * r + d, state), after


def _ghost(images: int) -> Formula:
    """Batch normalization of each ``images`` images by themselves, one after the other."""

    def normalized(
        features: Tensor, state: State, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if not training:
            return _batch(features, state, training)
        outputs, after = [], dict(state)
        for first in range(0, len(features), images):
            output, stored = _batch(features[first : first + images], after, training)
            outputs.append(output)
            after |= stored
        after["num_batches_tracked"] = state["num_batches_tracked"] + 1
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        return torch.cat(outputs), {name: after[name] for name in buffers}

    return normalized


def _evonorm_s0(groups: int) -> Formula:
    """``x / (1 + exp(-v x)) / sqrt(var + eps)``, the variance over each group of an image."""

    def normalized(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
        images, channels = features.shape[:2]
        variance = _moments(features.reshape(images, groups, -1), (2,))[1]
        deviation = (variance + EPSILON) ** 0.5
        by_map = deviation.expand(-1, -1, channels // groups).reshape(images, channels, 1, 1)
        activated = features / (1 + _exponential(-state["v"].reshape(-1, 1, 1) * features))
        return _per_channel(activated / by_map, state), {}

    return normalized


def _dynamic_tanh(features: Tensor, state: State, _: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """``2 / (1 + exp(-2 a x)) - 1``, which is the hyperbolic tangent of ``a x``."""
    return _per_channel(2 / (1 + _exponential(-2 * state["alpha"] * features)) - 1, state), {}


def _exponential(exponent: Tensor) -> Tensor:
    # infinity would make 0 times infinity of the gradient; 1 / (1 + e^700) is 0 beside anything
    return exponent.clamp(max=700).exp()


def standardized_weights(weights: Tensor) -> Tensor:
    """``(w - m) / sqrt(v + 1e-10)`` of each filter, for weights of ``(O, I, H, W)``."""
    mean, variance = _moments(weights, (1, 2, 3))
    return (weights - mean) / (variance + 1e-10) ** 0.5


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
