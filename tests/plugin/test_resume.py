"""--bench-resume: an interrupted session goes on, and nothing is trained twice."""

import json

import pytest
from filelock import FileLock

from ..conftest import Project
from .test_sessions import rows

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


def edit_session(project: Project, **changes) -> None:
    file = project.session / "session.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_rows(project: Project, stored: list[dict]) -> None:
    text = "".join(f"{json.dumps(row)}\n" for row in stored)
    (project.session / "runs.jsonl").write_text(text)


@pytest.fixture
def interrupted(project: Project) -> Project:
    """Return a project whose last session has two of four runs, and no end."""
    project.run().assert_outcomes(passed=4)
    edit_rows(project, rows(project)[:2])
    edit_session(project, status="running")
    return project


def test_a_killed_session_is_finished(project):
    project.write("killer.py", KILLER)
    project.write("kill", "")
    project.grid(norms=["batch", "killer:Killer"])
    assert project.run_apart("-p", "no:xdist").ret == -9
    (project.path / "kill").unlink()
    before, session = rows(project), project.session
    assert 0 < len(before) < 4
    project.run_apart("-n", "2", "--bench-resume").assert_outcomes(passed=4)
    assert project.session == session
    assert len(list(session.parent.iterdir())) == 1
    assert rows(project)[: len(before)] == before
    assert len(rows(project)) == 4
    document = json.loads((session / "session.json").read_text())
    assert (document["status"], document["resumed"]) == ("finished", 1)


def test_a_session_that_has_finished_is_not_gone_on_with(interrupted):
    before = rows(interrupted)
    interrupted.run("--bench-resume").assert_outcomes(passed=4)
    assert rows(interrupted)[:2] == before
    assert (interrupted.session / "report.html").exists()
    again = interrupted.run("--bench-resume")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["*--bench-resume: the last session, *, has finished: there is*"])


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "1"]])
def test_a_session_that_stopped_at_a_failure_is_finished(project, workers, one_thread):
    project.grid(target=99.9)
    project.run_apart("-x", "--bench-save-baseline", "part", *workers).assert_outcomes(failed=1)
    assert not (project.path / "results" / "reference" / "part.json").exists()
    project.grid()
    project.run_apart("--bench-resume", *workers).assert_outcomes(passed=4)
    assert len(rows(project)) == 4


def test_runs_that_ended_badly_are_tried_again(interrupted):
    first, second = rows(interrupted)
    edit_rows(interrupted, [first | {"status": "crashed", "epochs": []}, second])
    interrupted.run("--bench-resume").assert_outcomes(passed=4)
    assert [row["status"] for row in rows(interrupted)] == ["ok"] * 4


def test_runs_of_another_recipe_are_not_reused(interrupted):
    edit_rows(interrupted, [row | {"fingerprint": "old"} for row in rows(interrupted)])
    interrupted.run("--bench-resume").assert_outcomes(passed=4)
    assert len(rows(interrupted)) == 4
    assert "old" not in {row["fingerprint"] for row in rows(interrupted)}


def test_a_session_of_another_torch_is_refused(interrupted):
    edit_session(interrupted, environment={"torch": "1.0"})
    result = interrupted.run("--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was begun with torch 1.0, and this is torch *"])


def test_a_session_that_still_runs_is_refused(interrupted):
    with FileLock(interrupted.session / "session.lock"):
        result = interrupted.run("--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is still running in another process*"])
