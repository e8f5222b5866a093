"""What runs compare by, which new fields leave alone, and the code that they ran."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from normbench.models.networks import NETWORKS
from normbench.models.stacks import DigitsNet
from normbench.spec import RunSpec
from normbench.training.fingerprints import code_digest, fingerprint, sources_digest
from normbench.training.recipes import RECIPES, Augmentation, Recipe

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")
# As normbench 0.1 had them; what is stored holds some of them.
FIRST = {
    ("digits", "digits"): "2ad369566b42",
    ("mnist", "mnist"): "ae3318c0a763",
    ("mnist", "mnist-l1"): "9435ddb3056b",
    ("mnist", "mnist-batch-size"): "8f7b5e98e47b",
    ("cifar10", "cifar10"): "70e0bff2ff5a",
    ("cifar10", "cifar10-batch-size"): "2d33cc2cb67a",
}


@pytest.mark.parametrize(("network", "recipe"), FIRST)
def test_the_first_fingerprints_stay_as_they_were(network: str, recipe: str) -> None:
    assert fingerprint(RunSpec("digits", network, "batch", recipe=recipe)) == FIRST[network, recipe]


@dataclasses.dataclass(frozen=True)
class LaterAugmentation(Augmentation):
    cutout: int = 0


@dataclasses.dataclass(frozen=True)
class LaterRecipe(Recipe):
    decoupled: bool = False


class LaterStage(NamedTuple):
    """A Stage with one more field."""

    channels: int
    kernel: int = 3
    stride: int = 1
    pool: int = 1
    groups: int = 1
    residual: bool = False
    dilation: int = 1


def later_recipe(decoupled: bool = False, cutout: int = 0) -> LaterRecipe:
    augmentation = LaterAugmentation(shift=0.5, cutout=cutout)
    return LaterRecipe(learning_rate=0.05, augmentation=augmentation, decoupled=decoupled)


def later_network(dilation: int) -> type[DigitsNet]:
    class LaterNet(DigitsNet):
        stages = (
            # no Stage: it stands for what Stage is in a later version, with one more field
            LaterStage(16, dilation=dilation),  # type: ignore[assignment]
            *DigitsNet.stages[1:],
        )

    return LaterNet


def test_a_later_field_enters_a_fingerprint_where_it_is_not_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = FIRST["digits", "digits"]
    monkeypatch.setitem(RECIPES, "digits", later_recipe())
    monkeypatch.setitem(NETWORKS, "digits", later_network(dilation=1))
    assert fingerprint(SPEC) == first
    found = {first}
    for recipe in (later_recipe(decoupled=True), later_recipe(cutout=2)):
        monkeypatch.setitem(RECIPES, "digits", recipe)
        found.add(fingerprint(SPEC))
    monkeypatch.setitem(RECIPES, "digits", later_recipe())
    monkeypatch.setitem(NETWORKS, "digits", later_network(dilation=2))
    found.add(fingerprint(SPEC))
    assert len(found) == 4


def test_a_first_field_always_enters_a_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {fingerprint(SPEC)}
    for change in ({"momentum": 0.8}, {"warmup": 0.2}, {"augmentation": Augmentation()}):
        recipe = dataclasses.replace(Recipe(0.05, augmentation=Augmentation(shift=0.5)), **change)
        monkeypatch.setitem(RECIPES, "digits", recipe)
        found.add(fingerprint(SPEC))
    assert len(found) == 4


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return code_digest as a new process has it, that finds modules in tmp_path."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(norm: str) -> str:
        monkeypatch.syspath_prepend(tmp_path)  # forgets what was found before
        sources_digest.cache_clear()
        return code_digest(dataclasses.replace(SPEC, norm=norm))

    return digest


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_the_code_of_a_norm_of_ones_own_is_all_of_its_package(
    tmp_path: Path, digest_of: Callable[[str], str]
) -> None:
    norm, package = "ourpackage.norms:Ours", tmp_path / "ourpackage"
    found = {digest_of("batch"), digest_of(norm)}
    # without a package there is no code of its own
    assert len(found) == 1
    for name, text in (
        ("__init__.py", ""),
        ("norms.py", "Ours = 1"),
        ("norms.py", "Ours = 2"),
        ("deep/kernels.py", "a = 1"),
        ("deep/kernels.py", "a = 2"),
    ):
        write(package / name, text)
        found.add(digest_of(norm))
    assert len(found) == 6
    write(package / "deep" / "notes.txt", "no code")
    write(tmp_path / "other.py", "no code of this norm")
    (package / ".#norms.py").symlink_to("an-editors-lock")
    assert digest_of(norm) in found
    assert digest_of("batch") in found


def test_the_code_of_a_norm_in_a_module_is_that_module(
    tmp_path: Path, digest_of: Callable[[str], str]
) -> None:
    write(tmp_path / "our_module.py", "Ours = 1")
    before = digest_of("our_module:Ours")
    write(tmp_path / "our_other.py", "Ours = 1")
    assert digest_of("our_module:Ours") == before
    write(tmp_path / "our_module.py", "Ours = 2")
    assert digest_of("our_module:Ours") != before


def test_built_in_norms_run_the_same_code_whatever_lies_around(
    tmp_path: Path, digest_of: Callable[[str], str]
) -> None:
    before = digest_of("batch")
    write(tmp_path / "group.py", "no norm")
    assert {digest_of(norm) for norm in ("none", "group:4", "torch.nn:BatchNorm2d")} == {before}


def test_the_code_of_a_run_is_that_of_the_rooms_that_train(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for room in ("models", "training"):
        write(tmp_path / room / "code.py", "a = 1")
    monkeypatch.setattr("normbench.training.fingerprints.PACKAGE", tmp_path)
    found = {sources_digest.__wrapped__()}
    for room in ("models", "training"):
        write(tmp_path / room / "code.py", "a = 2")
        found.add(sources_digest.__wrapped__())
    write(tmp_path / "report" / "code.py", "a = 2")
    assert sources_digest.__wrapped__() in found
    assert len(found) == 3
