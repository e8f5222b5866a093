"""Muon: SGD whose updates of kernels go equally far along each of their axes."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Of kernels: their part of the learning rate, as their updates have singular values of about 1, and
# their decoupled weight decay, which is torch.optim.Muon's own.
KERNELS_SHARE = 0.15
KERNELS_DECAY = 0.1

# Of the polynomial a x + b x^3 + c x^5, which in five steps brings any singular value from 0.01 to
# 1 to between 0.6 and 1.3.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7


class Muon(Optimizer):
    """SGD with Nesterov momentum that orthogonalizes the updates of convolution kernels.

    A kernel is the matrix W with a row for each output channel and a column for each weight of one.
    With the gradient g, ``m <- momentum m + g``, ``u = g + momentum m``, and ``rate`` the
    learning_rate times KERNELS_SHARE, a step is

        ``W <- (1 - rate KERNELS_DECAY) W - rate sqrt(max(1, rows / columns)) orthogonalized(u)``

    L1 and L2, which are added to the gradient, have a part in the direction alone. All other
    parameters, and kernels of one output channel or of one weight for each, take
    ``p <- p - learning_rate u``.

    torch.optim.Muon takes the same steps of matrices, in bfloat16, and none of a kernel; nor can it
    be captured in a CUDA graph, as it looks at the learning rate.

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | Tensor, momentum: float
    ) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in parameters:
            (kernels if is_kernel(parameter) else others).append(parameter)
        # the first group has the rate that regularizers go by
        groups: list[dict[str, Any]] = [
            {"params": others, "lr": learning_rate, "orthogonalized": False},
            {"params": kernels, "lr": KERNELS_SHARE * learning_rate, "orthogonalized": True},
        ]
        super().__init__(groups, {"momentum": momentum})

    # torch's own takes a closure as well, which nobody here hands over: narrower, and not used
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            if not (parameters := [p for p in group["params"] if p.grad is not None]):
                continue
            gradients = [p.grad for p in parameters]
            momenta = [self._momentum(p) for p in parameters]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, gradients)
            updates = torch._foreach_mul(momenta, group["momentum"])
            torch._foreach_add_(updates, gradients)
            if group["orthogonalized"]:
                for update in updates:
                    update.copy_(_scaled(update.flatten(1)).view_as(update))
                torch._foreach_add_(updates, parameters, alpha=KERNELS_DECAY)
            torch._foreach_mul_(updates, group["lr"])
            torch._foreach_sub_(parameters, updates)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        # called as SGD calls it
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def is_kernel(parameter: Tensor) -> bool:
    """Tell whether a parameter is a kernel of ``(O, I, H, W)`` that makes a matrix."""
    return parameter.ndim == 4 and len(parameter) > 1 and parameter[0].numel() > 1


def _scaled(update: Tensor) -> Tensor:
    rows, columns = update.shape
    return math.sqrt(max(1.0, rows / columns)) * orthogonalized(update)


def orthogonalized(update: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of ``update``, and singular values of about 1.

    Steps of Newton and Schulz, ``X <- a X + (b X X' + c (X X')^2) X``, from ``update / |update|``.
    """
    a, b, c = COEFFICIENTS
    tall = update.shape[0] > update.shape[1]
    made = update.T if tall else update
    made = made / (made.norm() + SMALLEST_NORM)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = made @ made.T
        made = a * made + (b * square + c * square @ square) @ made
    found: Tensor = made.T if tall else made
    return found
