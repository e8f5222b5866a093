"""L1 and L2 on all parameters, as the published tables have them and as the optimizer sees them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regularizer:
    """A penalty ``l1 * sum(|p|) + l2 / 2 * sum(p ** 2)`` on every parameter.

    The L2 part is SGD's coupled weight decay, whose gradient is ``l2 * p``.
    """

    l1: float = 0.0
    l2: float = 0.0

    def penalty(self, parameters: Iterable[Tensor]) -> Tensor:
        """Return the penalty as a scalar that autograd can differentiate: the textbook form."""
        tensors = list(parameters)
        l1 = torch.stack([p.abs().sum() for p in tensors]).sum()
        l2 = torch.stack([p.square().sum() for p in tensors]).sum()
        return self.l1 * l1 + 0.5 * self.l2 * l2

    @torch.no_grad()
    def add_l1_gradient_(self, gradient: Tensor, parameter: Tensor) -> None:
        """Add ``l1 * sign(p)`` to the gradient in place: what autograd gives, without its graph."""
        if self.l1:
            gradient.add_(parameter.sign(), alpha=self.l1)
