"""pytest-rerunfailures: a rerun takes the stored run, and trains again what had no end."""

import pytest

from ..conftest import Project
from .conftest import ALONE

# Fails the first training that it is in, as a device that runs out of memory for a moment does.
NORMS = """
import os, pathlib, signal
from torch import nn

class Fails(nn.BatchNorm2d):
    def forward(self, x):
        if len(x) > 2 and self.training:
            self.fail()
        return super().forward(x)

class Once(Fails):
    def fail(self):
        if not pathlib.Path("failed").exists():
            pathlib.Path("failed").touch()
            self.end()

class Raises(Once):
    def end(self):
        raise RuntimeError("out of memory")

class Dies(Once):
    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)

class AlwaysRaises(Fails):
    def fail(self):
        raise RuntimeError("out of memory")
"""


@pytest.fixture
def rerun(alone: Project) -> Project:
    """Return a project with norms of its own, each of which fails in a way of its own."""
    alone.write("own_norms.py", NORMS)
    alone.pytester.syspathinsert()
    return alone


def stored_rows(project: Project) -> int:
    """Return the number of all rows, also of those that a later one stands for."""
    return len((project.session / "runs.jsonl").read_text(encoding="utf-8").splitlines())


def assert_passed_at_a_second_attempt(rerun: Project) -> None:
    """Run the four cases, one of which ends badly at first, and leave five rows."""
    result = rerun.run_apart("--reruns", "1")
    assert result.ret == pytest.ExitCode.OK
    outcome = result.parseoutcomes()
    assert (outcome["passed"], outcome["rerun"]) == (4, 1)
    assert list(rerun.verdicts.values()) == ["passed"] * 4
    assert [run.status for run in rerun.rows] == ["ok"] * 4
    assert stored_rows(rerun) == 5


@pytest.mark.parametrize("workers", [ALONE, ("-n", "2")], ids=["no xdist", "n2"])
def test_a_run_that_raised_is_tried_again_and_the_last_attempt_counts(
    rerun: Project, workers: tuple[str, ...]
) -> None:
    rerun.workers = workers
    rerun.grid(norms=["batch", "own_norms:Raises"])
    assert_passed_at_a_second_attempt(rerun)
    assert rerun.stored.document.status == "finished"


def test_a_run_that_killed_its_worker_is_tried_again_in_another_one(rerun: Project) -> None:
    rerun.workers = ("-n", "2")
    rerun.grid(norms=["batch", "own_norms:Dies"])
    assert_passed_at_a_second_attempt(rerun)


def test_a_run_that_raises_each_time_is_an_error(rerun: Project) -> None:
    rerun.grid(norms=["own_norms:AlwaysRaises"])
    outcome = rerun.run("--reruns", "2").parseoutcomes()
    assert (outcome["failed"], outcome["rerun"]) == (2, 4)
    assert list(rerun.verdicts.values()) == ["error"] * 2
    assert (len(rerun.rows), stored_rows(rerun)) == (2, 6)


@pytest.mark.parametrize("workers", [ALONE, ("-n", "2")], ids=["no xdist", "n2"])
def test_a_case_that_missed_its_target_is_not_trained_until_it_meets_it(
    rerun: Project, workers: tuple[str, ...]
) -> None:
    rerun.workers = workers
    rerun.grid(norms=["batch"], target=99.99)
    result = rerun.run("--reruns", "2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcome = result.parseoutcomes()
    assert (outcome["failed"], outcome["rerun"]) == (2, 4)
    assert list(rerun.verdicts.values()) == ["failed"] * 2
    assert stored_rows(rerun) == 2
