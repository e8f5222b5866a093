"""--bench-resume: an interrupted session goes on, and nothing is trained twice."""

import json

import pytest

from .conftest import Project
from .test_plugin import rows

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


@pytest.fixture
def killed(project: Project) -> Project:
    """Return a project whose last session was killed in its third run of six."""
    project.write("killer.py", KILLER)
    project.write("kill", "")
    project.grid(norms=["batch", "killer:Killer", "layer"])
    assert project.run_apart("-p", "no:xdist").ret == -9
    (project.path / "kill").unlink()
    return project


def test_a_killed_session_is_finished(killed):
    before = rows(killed)
    assert 0 < len(before) < 6
    session = killed.session
    result = killed.run_apart("-p", "no:xdist", "--bench-resume")
    result.assert_outcomes(passed=6)
    assert killed.session == session
    assert len(list(session.parent.iterdir())) == 1
    assert rows(killed)[: len(before)] == before
    assert len(rows(killed)) == 6
    document = json.loads((session / "session.json").read_text())
    assert (document["status"], document["resumed"]) == ("finished", 1)
    assert (session / "report.html").exists()
    again = killed.run("--bench-resume")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["*--bench-resume: the last session, *, has finished: there is*"])


def test_workers_go_on_with_it_as_well(killed):
    before = rows(killed)
    killed.run_apart("-n", "2", "--bench-resume").assert_outcomes(passed=6)
    assert rows(killed)[: len(before)] == before
    assert len(rows(killed)) == 6


def test_runs_that_ended_badly_are_tried_again(killed):
    file = killed.session / "runs.jsonl"
    stored = rows(killed)
    stored[0] |= {"status": "crashed", "epochs": []}
    file.write_text("".join(f"{json.dumps(row)}\n" for row in stored))
    killed.run_apart("-p", "no:xdist", "--bench-resume").assert_outcomes(passed=6)
    assert [row["status"] for row in rows(killed)] == ["ok"] * 6


def test_runs_of_another_recipe_are_not_reused(killed):
    file = killed.session / "runs.jsonl"
    stored = rows(killed)
    file.write_text("".join(f"{json.dumps(row | {'fingerprint': 'old'})}\n" for row in stored))
    killed.run_apart("-p", "no:xdist", "--bench-resume").assert_outcomes(passed=6)
    assert "old" not in {row["fingerprint"] for row in rows(killed)}


def test_a_session_of_another_torch_is_refused(killed):
    file = killed.session / "session.json"
    document = json.loads(file.read_text())
    document["environment"]["torch"] = "1.0"
    file.write_text(json.dumps(document))
    result = killed.run("--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was begun with torch 1.0, and this is torch *"])


def test_a_session_that_still_runs_is_refused(project):
    project.write(
        "bench/test_inner.py",
        "import subprocess, sys\n"
        "def test_resume_me(request):\n"
        "    command = [sys.executable, '-m', 'pytest', 'bench/test_tiny.py', '--bench-resume']\n"
        "    done = subprocess.run(command, capture_output=True, text=True)\n"
        "    assert done.returncode == 4\n"
        "    assert 'is still running in another process' in done.stderr\n",
    )
    project.grid(norms=["batch"])
    project.run_apart("-p", "no:xdist").assert_outcomes(passed=3)
