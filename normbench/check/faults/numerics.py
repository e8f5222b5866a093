"""Faults in the precision, and the repeatability, of single operators."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normbench.check.faults.operators import Batch, Operator, in_batch_norm
from normbench.check.faults.planting import fault, instead_of


def _in_bfloat16(original: Operator, *given: Any, **named: Any) -> Tensor:
    short = [g.bfloat16() if isinstance(g, Tensor) else g for g in given]
    wide = {n: g.bfloat16() if isinstance(g, Tensor) else g for n, g in named.items()}
    return original(*short, **wide).to(given[0].dtype)


@fault("convolution-in-bfloat16", "numerics", "Convolutions are computed in bfloat16.")
@instead_of(F, "conv2d")
def _(original: Operator, *given: Any, **named: Any) -> Tensor:
    return _in_bfloat16(original, *given, **named)


@fault("linear-in-bfloat16", "numerics", "Linear layers are computed in bfloat16.")
@instead_of(F, "linear")
def _(original: Operator, *given: Any, **named: Any) -> Tensor:
    return _in_bfloat16(original, *given, **named)


@fault("relu-in-bfloat16", "numerics", "ReLU returns what bfloat16 has left of its values.")
@instead_of(F, "relu")
def _(original: Operator, *given: Any, **named: Any) -> Tensor:
    return _in_bfloat16(original, *given, **named)


@in_batch_norm("batch-in-bfloat16", "Batch normalization is computed in bfloat16.")
def _(original: Operator, at: Batch) -> Tensor:
    return original(*at._replace(input=at.input.bfloat16().to(at.input.dtype)))


@fault("loss-in-bfloat16", "numerics", "The loss is computed in bfloat16.")
@instead_of(F, "cross_entropy")
def _(original: Operator, logits: Tensor, *given: Any, **named: Any) -> Tensor:
    return original(logits.bfloat16(), *given, **named).to(logits.dtype)


def _rounded_anew(output: Tensor) -> Tensor:
    """Move numbers by a few units in the last place, as an order of summands may, each time else.

    The global random numbers are left alone.
    """
    noise = torch.Generator(output.device)
    noise.seed()
    drawn = torch.rand(output.shape, generator=noise, device=output.device, dtype=output.dtype)
    return output * (1 + 4 * torch.finfo(output.dtype).eps * (drawn - 0.5))


@fault("linear-not-repeatable", "numerics", "Linear layers round otherwise from call to call.")
@instead_of(F, "linear")
def _(original: Operator, *given: Any, **named: Any) -> Tensor:
    return _rounded_anew(original(*given, **named))


@fault("norm-not-repeatable", "norm", "Batch normalization rounds otherwise from call to call.")
@instead_of(F, "batch_norm")
def _(original: Operator, *given: Any, **named: Any) -> Tensor:
    return _rounded_anew(original(*given, **named))
