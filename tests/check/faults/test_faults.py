import importlib
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import normbench.engine.runner  # what sessions hold of the engine is restored as well
from normbench.check.faults import FAULTS, PARTS, find_fault, planted

from .computations import COMPUTATIONS

del normbench


def attributes() -> dict[tuple[str, str], int]:
    """Return what every module of torch's that is patched, and of normbench, holds now."""
    owners: list[ModuleType | type] = [torch, torch.Tensor, torch.nn.functional]
    owners += [importlib.import_module("torch.optim.sgd")]
    owners += [torch.optim.lr_scheduler, torch.optim.lr_scheduler.OneCycleLR, torch.nn.init]
    owners += [cls for cls in vars(nn).values() if isinstance(cls, type)]
    modules = [m for n, m in sys.modules.items() if n.startswith("normbench.")]
    owners += modules
    owners += [c for m in modules for c in vars(m).values() if isinstance(c, type)]
    return {
        (f"{owner.__module__ if isinstance(owner, type) else ''}.{owner.__name__}", name): id(value)
        for owner in owners
        for name, value in list(vars(owner).items())
        if callable(value) or isinstance(value, (staticmethod, classmethod))
    }


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_every_fault_has_a_computation_that_it_changes() -> None:
    assert COMPUTATIONS.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_planted_fault_changes_its_computation_until_it_is_undone(name: str) -> None:
    compute = COMPUTATIONS[name]
    before, held = compute(), attributes()
    with planted(name):
        broken = compute()
    assert not equal(before, broken)
    assert equal(before, compute())
    assert attributes() == held


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_a_fault_says_what_it_breaks_and_stands_for(fault: object) -> None:
    known = find_fault(getattr(fault, "name", ""))
    assert known.part in PARTS
    assert known.told.endswith(".")
    assert len(known.told) < 140
    assert known.source == "" or known.source.startswith("[")


def test_a_fault_is_undone_though_what_it_broke_raised() -> None:
    held = attributes()
    with pytest.raises(RuntimeError, match="out of memory"), planted("batch-epsilon"):
        raise RuntimeError("out of memory")
    assert attributes() == held


def test_an_unknown_fault_is_told_with_the_closest_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown fault 'batch-epsilom': expected one of batch-eps"
    ):
        planted("batch-epsilom")
