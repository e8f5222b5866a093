"""--bench-resume: an interrupted session goes on, and nothing is trained twice."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from filelock import FileLock

from normbench.results import RunResult

from ..conftest import Project

# Kills the process that trains it, as a machine that goes down does, as long as there is a file.
KILLER = """
import os, pathlib, signal
from torch import nn

class Killer(nn.Identity):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        if len(x) > 2 and self.training and pathlib.Path("kill").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return x
"""


def edit_session(project: Project, **changes: Any) -> None:
    file = project.session / "session.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(document | changes), encoding="utf-8")


def store_rows(project: Project, runs: Iterable[RunResult], **changes: Any) -> None:
    """Leave these runs alone in the session, with ``changes`` in the stored rows."""
    text = "".join(f"{json.dumps(run.to_row() | changes)}\n" for run in runs)
    (project.session / "runs.jsonl").write_text(text, encoding="utf-8")


def interrupt(project: Project) -> None:
    """Run a session and leave two of its four runs, and no end."""
    project.run().assert_outcomes(passed=4)
    store_rows(project, project.rows[:2])
    edit_session(project, status="running")


def test_a_killed_session_is_finished(alone: Project) -> None:
    alone.write("killer.py", KILLER)
    alone.write("kill", "")
    alone.grid(norms=["batch", "killer:Killer"])
    assert alone.run_apart().ret == -9
    (alone.path / "kill").unlink()
    before, session = alone.rows, alone.session
    assert 0 < len(before) < 4
    alone.workers = ("-n", "2")
    alone.run_apart("--bench-resume").assert_outcomes(passed=4)
    assert alone.session == session
    assert len(list(session.parent.iterdir())) == 1
    assert alone.rows[: len(before)] == before
    assert len(alone.rows) == 4
    document = alone.stored.document
    assert (document.status, document.resumed, document.workers) == ("finished", 1, 2)


def test_an_interrupted_session_is_finished(alone: Project, project: Project) -> None:
    interrupt(alone)
    before, session = project.rows, project.session
    project.run("--bench-resume").assert_outcomes(passed=4)
    assert project.session == session
    assert project.rows[:2] == before
    assert len(project.rows) == 4
    assert (project.stored.document.status, project.stored.document.resumed) == ("finished", 1)
    assert (project.session / "report.html").exists()


def test_a_session_that_has_finished_is_not_resumed(alone: Project) -> None:
    alone.run().assert_outcomes(passed=4)
    again = alone.run("--bench-resume")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["*--bench-resume: the last session, *, has finished: there is*"])


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "1"]])
def test_a_session_that_stopped_at_a_failure_is_finished(
    alone: Project, workers: list[str]
) -> None:
    alone.grid(target=99.9)
    stopping = ["-x", "--bench-save-baseline", "part"]
    result = alone.pytester.runpytest_inprocess("bench", *workers, *stopping)
    result.assert_outcomes(failed=1)
    left = "[23] of 4 cases are left; the same command with --bench-resume goes on with them"
    result.stdout.re_match_lines([f"normbench: interrupted, {left}"])
    assert not (alone.results / "reference" / "part.json").exists()
    assert alone.stored.document.status == "interrupted"
    alone.grid()
    alone.run("--bench-resume").assert_outcomes(passed=4)
    assert len(alone.rows) == 4


def test_runs_that_ended_badly_are_tried_again(alone: Project) -> None:
    interrupt(alone)
    first, second = alone.rows
    store_rows(alone, [RunResult(first.spec, "crashed", "its process died"), second])
    alone.run("--bench-resume").assert_outcomes(passed=4)
    assert [run.status for run in alone.rows] == ["ok"] * 4


def test_runs_of_another_recipe_are_not_reused(alone: Project) -> None:
    interrupt(alone)
    store_rows(alone, alone.rows, fingerprint="old")
    alone.run("--bench-resume").assert_outcomes(passed=4)
    assert len(alone.rows) == 4
    assert "old" not in {run.fingerprint for run in alone.rows}


def test_runs_of_a_norm_that_was_edited_since_are_not_reused(alone: Project) -> None:
    alone.norm("Ours", "return x")
    alone.grid(norms=["batch", "own_norms:Ours"])
    alone.run_apart().assert_outcomes(passed=4)
    before = {run.spec.norm: run for run in alone.rows}
    edit_session(alone, status="running")
    alone.norm("Ours", "return 2 * x")
    result = alone.run_apart("--bench-resume")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["normbench: 2 of the stored runs will be trained again: the code*"]
    )
    after = {run.spec.norm: run for run in alone.rows}
    assert len(alone.rows) == 4
    assert after["batch"] == before["batch"]
    assert after["own_norms:Ours"].code != before["own_norms:Ours"].code
    # a fingerprint says what runs compare by, and code is none of it
    assert after["own_norms:Ours"].fingerprint == before["own_norms:Ours"].fingerprint


NO_LOCKS = """
import errno, fcntl

def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = refuse
"""


def test_on_a_file_system_without_locks_each_worker_has_its_own_file(alone: Project) -> None:
    alone.write("conftest.py", NO_LOCKS)
    alone.workers = ("-n", "2")
    result = alone.run_apart()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*lies on a file system whose locks do not work*"])
    assert {run.worker for run in alone.rows} == {"gw0", "gw1"}
    assert [file.name for file in alone.session.glob("*.jsonl")] == ["runs.jsonl"]


def test_a_session_of_another_torch_is_refused(alone: Project) -> None:
    interrupt(alone)
    edit_session(alone, environment={"torch": "1.0"})
    result = alone.run("--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was begun with torch 1.0, and this is torch *"])


def test_a_session_that_still_runs_is_refused_as_often_as_it_is_tried(alone: Project) -> None:
    interrupt(alone)
    with FileLock(alone.session / "session.lock"):
        for _ in range(2):
            result = alone.run("--bench-resume")
            assert result.ret == pytest.ExitCode.USAGE_ERROR
            result.stderr.fnmatch_lines(["*is still running in another process*"])
    assert len(alone.rows) == 2
    alone.run("--bench-resume").assert_outcomes(passed=4)
