import importlib
import re
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from normbench.check.faults import FAULTS, PARTS, Fault, find_fault, planted
from normbench.training import trainer

from .computations import COMPUTATIONS


def attributes() -> dict[tuple[str, str], int]:
    """Return what every module of torch's that is patched, and of normbench, holds now."""
    owners: list[ModuleType | type] = [torch, torch.Tensor, torch.nn.functional]
    # torch.optim has taken its module's name away; the engine holds what it imports of training
    owners += map(importlib.import_module, ("torch.optim.sgd", "normbench.engine.runner"))
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


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_fault_says_what_it_breaks_and_stands_for(fault: Fault) -> None:
    assert find_fault(fault.name) is fault
    assert re.fullmatch(r"[a-z0-9-]+", fault.name)
    assert re.fullmatch(r"[A-Z][^\n]{,120}\.", fault.told)
    assert re.fullmatch(r"(\[.+\]\((https://|upstream/).+\))?", fault.source)


def test_there_are_faults_of_every_part_and_each_real_bug_once() -> None:
    assert {fault.part for fault in FAULTS.values()} == set(PARTS)
    assert len(FAULTS) >= 64
    sources = [fault.source for fault in FAULTS.values() if fault.source]
    assert len(sources) == len(set(sources)) >= 23


def test_a_fault_is_undone_though_what_it_broke_raised() -> None:
    held = attributes()
    with pytest.raises(RuntimeError, match="out of memory"), planted("batch-epsilon"):
        raise RuntimeError("out of memory")
    assert attributes() == held


def test_a_fault_reaches_what_modules_have_imported_and_leaves_nothing_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = trainer.prepare_images
    before, meanwhile = ModuleType("normbench.before"), ModuleType("normbench.meanwhile")
    vars(before)["prepare_images"] = original
    monkeypatch.setitem(sys.modules, "normbench.before", before)
    with planted("augmentation-at-test"):
        assert before.prepare_images is trainer.prepare_images is not original
        vars(meanwhile)["prepare_images"] = trainer.prepare_images
        monkeypatch.setitem(sys.modules, "normbench.meanwhile", meanwhile)
    assert before.prepare_images is meanwhile.prepare_images is trainer.prepare_images is original


def test_two_faults_are_undone_one_after_the_other() -> None:
    held = attributes()
    with planted("batch-epsilon"), planted("batch-momentum"):
        pass
    assert attributes() == held


def test_each_planting_has_a_compilers_cache_of_its_own() -> None:
    tags = [torch.compiler.config.cache_key_tag]
    for _ in range(2):
        with planted("batch-epsilon"):
            tags.append(torch.compiler.config.cache_key_tag)
    assert len(set(tags)) == 3
    assert torch.compiler.config.cache_key_tag == tags[0]


def test_an_unknown_fault_is_told_with_the_closest_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown fault 'batch-epsilom': expected one of batch-eps"
    ):
        planted("batch-epsilom")
