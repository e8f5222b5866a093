"""Monte Carlo arithmetic: float64 whose every operation is as wrong as float32's rounding is.

Each result of an operation, forward and backward, is moved by a random error of the size that
float32 would leave it with; what that does to an outcome is how far rounding alone may take it.

An operation on elements has a relative error of standard deviation at most ``u = 2^-24``, as the
error's size is at most ``u``. A sum ``S`` of ``n`` terms ``t_i``, taken one after the other, rounds
each of its partial sums ``s_k``. For terms in random order ``E s_k^2 <= (k / n)^2 S^2 + k Q / n``
with ``Q = sum t_i^2``, so that independent errors come to a variance of at most
``u^2 sum_k E s_k^2 <= u^2 n (S^2 + Q)``, to which the products' own errors add ``u^2 Q``. Pairwise
and blocked sums, which libraries take, have less.

Sources: Parker, Monte Carlo Arithmetic, 1997; Higham and Mary, A New Approach to Probabilistic
Rounding Error Analysis, 2019, for independent errors of mean zero.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNIT = 2.0**-24
ROOT_3 = math.sqrt(3)

# Operations that bring numbers to another place, choose among them, or change their signs: none of
# them rounds. Views are known by themselves.
EXACT = frozenset(
    (
        *("_to_copy", "_unsafe_view", "abs", "amax", "arange", "argmax", "as_strided"),
        *("bitwise_and", "bitwise_not", "cat", "clamp", "clone", "constant_pad_nd", "contiguous"),
        *("copy_", "detach", "empty", "empty_like", "eq", "fill_", "flip", "full"),
        *("full_like", "gather", "ge", "gt", "im2col", "index", "index_put", "index_put_"),
        *("index_select", "is_same_size", "isnan", "le", "lift_fresh", "logical_and"),
        *("logical_not", "lt", "masked_fill", "max", "maximum", "min", "minimum", "ne"),
        *("neg", "new_empty", "new_zeros", "ones", "ones_like", "relu", "scalar_tensor"),
        *("select_backward", "set_", "sgn", "sign", "slice_backward", "stack"),
        *("threshold_backward", "where", "zero_", "zeros", "zeros_like"),
    )
)
# Operations whose results are right but for their own rounding.
ELEMENTWISE = frozenset(
    (
        *("add", "add_", "addcmul", "addcmul_", "div", "div_", "exp", "log", "log1p", "mul"),
        *("mul_", "pow", "pow_", "reciprocal", "rsqrt", "rsub", "sigmoid", "sqrt", "sub"),
        *("sub_", "tanh"),
    )
)


class Float32Rounding(TorchDispatchMode):
    """Moves the result of each float64 operation as if float32 had rounded it, by random errors.

    An operation of which nothing is known is taken for a sum of all elements of its inputs, and
    what it writes to is moved as well, as the running statistics that batch_norm is given.
    """

    def __init__(self, generator: torch.Generator) -> None:
        # torch's mode has no types
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = generator

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name, rounds = _named(func)
        if not rounds:
            return func(*args, **kwargs)
        deviation = _SUMS[name](func, args, kwargs) if name in _SUMS else None
        if deviation is not None or name in ELEMENTWISE:
            result = func(*args, **kwargs)
            if _is_moved(result):
                self._move(result, deviation, 1)
            return result
        # schemas do not tell: that of native_batch_norm declares no writing
        before = [(a, a.clone()) for a in args if _is_moved(a)]
        result = func(*args, **kwargs)
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        written = [tensor for tensor, copy in before if not torch.equal(tensor, copy)]
        outputs += [each for each in written if all(each is not output for output in outputs)]
        for output in filter(_is_moved, outputs):
            self._move(output, deviation, _largest(args))
        return result

    def _move(self, output: Tensor, deviation: Tensor | None, terms: int) -> None:
        """Add the errors: of one rounding, or of ``deviation`` in place of it, or of ``terms``."""
        # of variance 1
        drawn = torch.empty_like(output).uniform_(-ROOT_3, ROOT_3, generator=self.generator)
        size = output if deviation is None else (deviation + output.square()).sqrt_()
        unit = UNIT * math.sqrt(terms if deviation is None else 1)
        output.addcmul_(size, drawn, value=unit)


@functools.cache
def _named(func: Any) -> tuple[str, bool]:
    """Return an operation's name, and whether it rounds."""
    name: str = func.overloadpacket.__name__
    return name, not func.is_view and name not in EXACT


def _is_moved(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _largest(args: Sequence[Any]) -> int:
    return max((arg.numel() for arg in args if isinstance(arg, Tensor)), default=1)


def _of_sum(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return ``n (S^2 + Q)`` of a sum, or of a mean, which is one over ``n`` as large."""
    terms, *rest = args
    total, squares = func(terms, *rest, **kwargs), func(terms.square(), *rest, **kwargs)
    count = terms.numel() // max(1, total.numel())
    of_mean = func.overloadpacket.__name__ == "mean"
    variance: Tensor = count * (total.square() + squares / (count if of_mean else 1))
    return variance


def _of_product(func: Any, args: tuple[Any, ...], _: Mapping[str, Any]) -> Tensor:
    """Return ``n (S^2 + Q)`` of a product of matrices."""
    first, second = args
    variance: Tensor = first.shape[-1] * (
        func(first, second).square() + func(first.square(), second.square())
    )
    return variance


def _of_windows(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return ``n (S^2 + Q)`` of a sum over the windows that an element lies in."""
    columns, *rest = args
    count = func(torch.ones_like(columns), *rest, **kwargs)
    squares = func(columns.square(), *rest, **kwargs)
    variance: Tensor = count * (func(columns, *rest, **kwargs).square() + squares)
    return variance


# What sums: the variance of the errors, over u^2.
_SUMS: dict[str, Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Tensor]] = {
    "sum": _of_sum,
    "mean": _of_sum,
    "mm": _of_product,
    "bmm": _of_product,
    "col2im": _of_windows,
}
