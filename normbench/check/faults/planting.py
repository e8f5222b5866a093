"""How a fault is planted: attributes replaced where they are looked up, and all put back."""

import functools
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.compiler import config

PARTS = (
    *("norm", "gradient", "optimizer", "schedule", "regularizer"),
    *("loss", "data", "evaluation", "network", "numerics"),
)

Planting = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One thing that can be broken in this process.

    ``part`` is one of PARTS, ``told`` says in a sentence what is broken, and ``source`` links to
    the real bug that it stands for, if there is one. ``plant`` returns a context manager in which
    it is broken. ``why_not_found`` is the reason where no check is expected to find it.
    """

    name: str
    part: str
    told: str
    source: str
    plant: Planting
    why_not_found: str = ""


# All that the decorator below has gathered.
GATHERED: dict[str, Fault] = {}


def fault(
    name: str, part: str, told: str, source: str = "", why_not_found: str = ""
) -> Callable[[Planting], Planting]:
    """Gather what the decorated function plants as the fault called ``name``."""
    assert part in PARTS, f"{name} has the part {part!r}: expected one of {PARTS}"
    assert name not in GATHERED, f"{name} is there twice"

    def gather(plant: Planting) -> Planting:
        GATHERED[name] = Fault(name, part, told, source, plant, why_not_found)
        return plant

    return gather


def instead_of(owner: object, name: str) -> Callable[[Callable[..., Any]], Planting]:
    """Plant the decorated function in place of the owner's, which is its first argument."""

    def planting(broken: Callable[..., Any]) -> Planting:
        def plant() -> AbstractContextManager[None]:
            original = getattr(owner, name)

            @functools.wraps(original)
            def planted(*args: Any, **kwargs: Any) -> Any:
                return broken(original, *args, **kwargs)

            return replaced(owner, name, planted)

        return plant

    return planting


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Put ``value`` in place of an attribute of a module or class.

    And of the copies that ``from module import name`` has left in normbench's modules, also in
    those that are imported in the meantime.
    """
    original = getattr(owner, name)
    # as it stands there: a staticmethod is more than what getattr returns of it
    own = vars(owner).get(name)
    with _compiling_afresh():
        setattr(owner, name, value)
        _exchange(original, value)
        try:
            yield
        finally:
            if own is None:
                # it was inherited
                delattr(owner, name)
            else:
                setattr(owner, name, own)
            _exchange(value, original)


@contextmanager
def _compiling_afresh() -> Iterator[None]:
    """Have torch.compile take nothing that it compiled before for what is compiled now, nor later.

    Its cache on disk knows an operator by its name alone, whatever stands there; a tag of this
    planting's own sets it apart. Machine code, which is known by its source, is not built again: in
    an empty folder, that took 12 s of a core for the first norm that is checked, and 3 s for
    others.
    """
    before = config.cache_key_tag
    config.cache_key_tag = f"planted {uuid.uuid4()}"
    _forget_compiled()
    try:
        yield
    finally:
        config.cache_key_tag = before
        _forget_compiled()


def _forget_compiled() -> None:
    # a compiler that is not imported has compiled nothing; to import it takes a second
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _exchange(one: object, other: object) -> None:
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("normbench.") and module_name != __name__:
            for name, found in list(vars(module).items()):
                if found is one:
                    setattr(module, name, other)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0]), None


def with_gradient(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the tensor; what the backward pass brings to it is changed by ``change``."""
    # torch gives Function.apply no types
    return _WithGradient.apply(tensor, change)  # type: ignore[no-any-return]


class _WithGradientOf(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor, _path: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def with_gradient_of(value: Tensor, path: Tensor) -> Tensor:
    """Return ``value``, whose gradient goes back by the way that ``path`` was computed."""
    # torch gives Function.apply no types
    return _WithGradientOf.apply(value.detach(), path)  # type: ignore[no-any-return]


def lies_last(tensor: Tensor) -> bool:
    """Tell whether a tensor's memory is in channels_last, and not in the plain order as well."""
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def in_plain_order(tensor: Tensor) -> Tensor:
    """Read the memory of a channels_last tensor as if it were in the plain order."""
    return tensor.permute(0, 2, 3, 1).reshape(tensor.shape) if lies_last(tensor) else tensor


def in_other_order(tensor: Tensor) -> Tensor:
    """Read a tensor's memory as if it were in the other of the two orders."""
    if lies_last(tensor) or tensor.dim() != 4:
        return in_plain_order(tensor)
    images, channels, height, width = tensor.shape
    return tensor.reshape(images, height, width, channels).permute(0, 3, 1, 2)
