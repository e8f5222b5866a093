"""The matrix over Python and torch: what fits, what was run in it, and the page that tells."""

import configparser
import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

CELL: dict[str, Any] = {
    "cell": "py312-torch214",
    "python": "3.12.1",
    "machine": "Some CPU, 2 cores",
    "versions": {"torch": "2.14.1", "torchvision": "0.29.1"},
    "date": "2026-01-01",
    "pair": "py312-torch214: they fit each other",
    "fits": True,
    "stages": {
        "trace": {
            "command": "pytest bench/test_trace.py",
            "date": "2026-01-02",
            "seconds": 61,
            "exit_status": 1,
            "tests": 5,
            "passed": 2,
            "failed": {"bench.test_trace::test_trace[x]": "AssertionError: step 3"},
            "skipped": {"no GPU": 2},
        }
    },
}


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "perf")


@pytest.fixture
def pairs(perf: None) -> ModuleType:
    return import_module("torch_pair")


@pytest.fixture
def compatibility(perf: None) -> ModuleType:
    return import_module("compatibility")


def works() -> None:
    pass


def fails() -> None:
    raise RuntimeError("operator torchvision::nms does not exist")


def test_a_pair_that_works_is_told_with_its_versions(pairs: ModuleType) -> None:
    pair = pairs.Pair("3.12.1", "2.14.1", "0.29.1")
    told = pairs.check_pair("py312-torch214", pair, works)
    assert told == (
        "py312-torch214: Python 3.12.1 with torch 2.14.1 and torchvision 0.29.1 fit each other"
    )


@pytest.mark.parametrize(
    ("environment", "wrong"), [("py311-torch214", "Python 3.11"), ("py312-torch215", "torch 2.15")]
)
def test_an_environment_of_other_versions_than_its_name_says_so(
    pairs: ModuleType, environment: str, wrong: str
) -> None:
    pair = pairs.Pair("3.12.1", "2.14.1", "0.29.1")
    with pytest.raises(ValueError, match=rf"^{environment} asks for {wrong}, and .* torch 2.14.1"):
        pairs.check_pair(environment, pair, works)


def test_a_pair_that_does_not_work_says_what_came_why_and_what_to_do(pairs: ModuleType) -> None:
    pair = pairs.Pair("3.11.7", "2.13.0+cpu", "0.28.0")
    with pytest.raises(ValueError, match=r"^[^\n]+$") as told:
        pairs.check_pair("py311-torch213", pair, fails)
    line = str(told.value)
    assert line.startswith(
        "py311-torch213: Python 3.11.7 with torch 2.13.0+cpu and torchvision 0.28.0 do not fit "
        "each other (operator torchvision::nms does not exist): "
    )
    assert line.endswith(
        "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu tox -r -e py311-torch213"
    )


def test_an_environment_may_ask_for_no_version(pairs: ModuleType) -> None:
    pair = pairs.Pair("3.13.0", "2.16.0.dev20260101", "0.30.0")
    assert "fit each other" in pairs.check_pair("nightly", pair, works)


def test_the_pair_of_this_environment_works(pairs: ModuleType) -> None:
    assert "fit each other" in pairs.check_pair("tests", pairs.installed_pair())


def tox_ini() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "tox.ini", encoding="utf-8")
    return found


def test_every_torch_of_the_matrix_is_installed_with_its_torchvision() -> None:
    dependencies = tox_ini()["testenv"]["deps"]
    for minor in range(11, 16):
        assert f"torch2{minor}: torch==2.{minor}.*\n" in dependencies + "\n"
        assert f"torch2{minor}: torchvision" in dependencies
    assert "py{311,312,313}-torch{211,212,213,214,215}" in tox_ini()["tox"]["env_list"]


def test_torchs_nightly_blocks_nothing_and_is_asked_for_alone() -> None:
    nightly = tox_ini()["testenv:nightly"]
    assert nightly["ignore_outcome"] == "true"
    assert "{env:TORCH_NIGHTLY_INDEX:" in nightly["deps"]
    assert "nightly" not in tox_ini()["tox"]["env_list"]


def test_what_was_run_stands_on_the_page(compatibility: ModuleType) -> None:
    unfit = CELL | {"cell": "py311-torch213", "fits": False, "pair": "they do not fit"}
    page = compatibility.page([unfit, CELL])
    assert "| environment | Python | torch | torchvision | torch and torchvision |" in page
    assert "| `py311-torch213` | 3.12.1 | 2.14.1 | 0.29.1 | do not fit |" in page
    assert "| `py312-torch214` | trace | 2026-01-02 | 61 | 2 | 1 | 2 |" in page
    assert (
        "## What was not run, for want of time\n\n- `py312-torch214`: check, smoke, tests-" in page
    )
    failed = "- `py312-torch214`, trace: `bench.test_trace::test_trace[x]`: AssertionError: step 3"
    assert f"## What failed\n\n{failed}\n" in page
    assert "## Pairs that do not fit\n\n> they do not fit\n" in page
    assert page.endswith("- 2: no GPU\n")


def test_a_stage_that_ended_without_an_outcome_says_so(compatibility: ModuleType) -> None:
    killed = CELL["stages"]["trace"] | {"exit_status": -9, "tests": None, "failed": {}}
    page = compatibility.page([CELL | {"stages": {"tests-check": killed | {"skipped": {}}}}])
    assert "| 61 | ended with exit status -9 |  |  |" in page
    assert "## What failed\n\nNothing.\n" in page


def test_the_page_in_docs_is_that_of_the_stored_results(compatibility: ModuleType) -> None:
    cells = compatibility.stored_cells(compatibility.STORED)
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.page(cells)
    # at least four environments were really run, on each of the three Pythons
    ran = [cell for cell in cells if set(cell["stages"]) >= {"check", "trace", "smoke"}]
    assert len(ran) >= 4
    assert {cell["python"].rpartition(".")[0] for cell in ran} == {"3.11", "3.12", "3.13"}


def test_every_test_is_a_stage_of_the_matrix(compatibility: ModuleType) -> None:
    given = {word for stage in compatibility.STAGES.values() for word in stage.split()}
    tests = ROOT / "tests"
    found = {
        f for f in tests.iterdir() if f.name.startswith("test_") or (f / "__init__.py").exists()
    }
    assert {str(file.relative_to(ROOT)) for file in found} == {w for w in given if "tests/" in w}


def test_reasons_are_the_first_line_of_an_error(compatibility: ModuleType) -> None:
    traceback = (
        "    def f():\n>       assert x\nE       AssertionError: no\nE         more\n\na.py:1"
    )
    assert compatibility.reason_of(traceback) == "AssertionError: no"
    assert compatibility.reason_of("worker crashed\nwhile running") == "worker crashed"
    assert compatibility.reason_of("") == ""


def test_other_versions_than_those_that_are_stored_begin_anew(
    compatibility: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "STORED", tmp_path)
    file = tmp_path / "this.json"
    file.write_text(json.dumps(CELL | {"cell": "this"}))
    cell = compatibility.run_cell("this", [], 1)
    assert cell["stages"] == {}
    assert cell["fits"]
    assert json.loads(file.read_text()) == cell
    cell["stages"] = {"trace": CELL["stages"]["trace"]}
    compatibility.store(file, cell)
    assert compatibility.run_cell("this", [], 1) == cell
