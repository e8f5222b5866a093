"""``normbench run``: the suite out of the installed package, from whatever folder."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from normbench.commands.run import pytest_arguments
from normbench.storage.session import StoredSession, latest_session, read_session

from ..conftest import WITHOUT, tiny_grid

LOADED = "raise AssertionError('a file of the project was loaded')\n"

# A project whose own folders are called as the suite's are, and whose settings are not for it.
PROJECT = {
    "models/__init__.py": LOADED,
    "bench/__init__.py": LOADED,
    "bench/test_digits.py": LOADED,
    "bench/cases/digits.toml": "not a cases file",
    "test_mine.py": LOADED,
    "conftest.py": LOADED,
    "results/notes.txt": "mine",
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--no-such-option"\n',
    "mynorms.py": "from torch import nn\n\nclass Norm(nn.BatchNorm2d):\n    pass\n",
}


def normbench_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": WITHOUT}
    command = [sys.executable, "-m", "normbench", "run", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def last_session(folder: Path) -> StoredSession:
    return read_session(latest_session(folder / "results"))


def test_an_empty_folder_is_enough_and_keeps_the_results(tmp_path: Path) -> None:
    one = ("-k", "digits-batch-none-b64", "-n", "2")
    done = normbench_run(tmp_path, "--bench-tier", "smoke", *one)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 1 passed" in done.stdout
    assert {file.name for file in tmp_path.iterdir()} <= {"results", ".pytest_cache"}
    stored = last_session(tmp_path)
    assert stored.folder.parent == tmp_path / "results" / "runs"
    assert (stored.document.status, stored.document.workers) == ("finished", 2)
    assert {c.case.id: c.verdict for c in stored.judged_cases} == {
        "digits-batch-none-b64": "passed"
    }


def test_a_project_keeps_to_itself_but_for_the_norms_that_are_asked_for(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    two = ("-k", "digits-batch-none-b64 or digits-mynorms:Norm-none-b64", "-n", "2")
    done = normbench_run(tmp_path, "--bench-tier", "smoke", "--bench-norm", "mynorms:Norm", *two)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 1 passed, 1 measured" in done.stdout
    stored = last_session(tmp_path)
    assert {c.case.id: c.verdict for c in stored.judged_cases} == {
        "digits-batch-none-b64": "passed",
        "digits-mynorms:Norm-none-b64": "measured",
    }
    # a norm that is batch normalization trains as it does
    batch, mine = stored.results.values()
    assert (batch.test_accuracy, batch.parameters) == (mine.test_accuracy, mine.parameters)
    assert (tmp_path / "results" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_cases_file_of_ones_own_is_run_alone(tmp_path: Path) -> None:
    text = tiny_grid(norms=["batch"]).replace('"smoke"', '"full"')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    done = normbench_run(tmp_path, "--bench-cases", "mine.toml", "-p", "no:xdist")
    assert done.returncode == 0, done.stdout + done.stderr
    stored = last_session(tmp_path)
    assert [c.case.id for c in stored.judged_cases] == [
        *("mine-batch-none-b64", "mine-batch-l1:0.001-b64")
    ]
    assert " 2 passed" in done.stdout


def test_a_usage_error_calls_the_command_by_its_name(tmp_path: Path) -> None:
    done = normbench_run(tmp_path, "--bench-tier", "quick", "-n", "2")
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert lines[0].startswith("ERROR: usage: normbench run [options] ")
    assert lines[1].startswith("normbench run: error: argument --bench-tier: 'quick' is no tier")


def pairs(arguments: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(arguments))


@pytest.mark.parametrize("given", [["--bench-cases", "mine.toml"], ["--bench-cases=mine.toml"]])
def test_without_a_tier_ones_own_file_is_asked_for_alone(given: list[str]) -> None:
    arguments = pytest_arguments(given, Path("/somewhere"))
    assert ("--bench-tier", "own") in pairs(arguments)
    ignored = {Path(a.partition("=")[2]).name for a in arguments if a.startswith("--ignore=")}
    assert "test_digits.py" in ignored
    assert not ignored & {"test_own_cases.py", "test_claims.py"}


@pytest.mark.parametrize(
    "given",
    [
        ["--bench-cases", "mine.toml", "--bench-tier", "smoke"],
        ["--bench-tier=smoke", "--bench-cases=mine.toml"],
        ["-k", "digits"],
        [],
    ],
)
def test_with_a_tier_or_without_a_file_the_suite_is_asked_for(given: list[str]) -> None:
    arguments = pytest_arguments(given, Path("/somewhere"))
    assert "own" not in arguments
    assert not [argument for argument in arguments if argument.startswith("--ignore")]


def test_the_users_arguments_are_given_to_pytest_as_they_are() -> None:
    given = ["-k", "batch and none", "-n", "2", "--bench-seeds", "3", "-x"]
    arguments = pytest_arguments(given, Path("/somewhere"))
    assert any(arguments[at : at + len(given)] == given for at in range(len(arguments)))
    assert ("--rootdir", "/somewhere") in pairs(arguments)
    (suite,) = (a for a in arguments if a.endswith("bench"))
    assert (Path(suite) / "test_digits.py").is_file()
