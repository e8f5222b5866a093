"""The regularizer that this repository is about."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]


def group_lasso(strength: float) -> Callable[[Parameters], Tensor]:
    """Return the penalty ``strength * sum(||w||)``, of which each filter of a convolution has a w.

    Source: Wen et al., Learning Structured Sparsity in Deep Neural Networks, 2016.
    """

    def penalty(parameters: Parameters) -> Tensor:
        kernels = [p for p in parameters.values() if p.ndim == 4]
        return strength * torch.stack([k.flatten(1).norm(dim=1).sum() for k in kernels]).sum()

    return penalty
