"""The fixtures beyond cases: a run of a spec of one's own, and a disk that is full."""

import pytest

from ..conftest import Project

OWN_SPEC = """
from normbench.spec import RunSpec

def test_own(run):
    spec = RunSpec("digits", "digits", "batch", recipe="digits")
    assert run(spec).test_accuracy > 0.05
    assert run(spec) == run(spec)
"""

OWN_FIXTURE = """
import pytest

@pytest.fixture
def run():
    return 1

def test_own(run):
    assert run == 1
"""

FULL_DISK = """
import errno, os
from normbench.storage import session

def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

write = session.write_atomic

def write_at_first(file, text):
    (write if '"running"' in text else full)(file, text)

os.fsync, session.write_atomic = full, write_at_first
pytest_plugins = ["normbench.plugin"]
"""


def only(project: Project, text: str) -> None:
    (project.path / "bench" / "test_tiny.py").unlink()
    project.write("bench/test_own.py", text)


def test_a_run_of_a_spec_that_is_no_cases_has_a_session_too(project: Project) -> None:
    only(project, OWN_SPEC)
    project.run().assert_outcomes(passed=1)
    assert [run.spec.norm for run in project.rows] == ["batch"]
    document = project.stored.document
    assert (document.status, document.cases) == ("finished", ())
    assert document.environment["torch"]
    assert {file.name for file in project.session.iterdir()} == {"session.json", "runs.jsonl"}


def test_a_fixture_of_ones_own_that_is_called_run_opens_no_session(project: Project) -> None:
    only(project, OWN_FIXTURE)
    project.run().assert_outcomes(passed=1)
    assert not project.results.exists()


def test_a_full_disk_stops_the_session_in_one_line_and_it_can_be_resumed(project: Project) -> None:
    project.pytester.makeconftest(FULL_DISK)
    project.grid(norms=["batch"])
    result = project.run_apart()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    told = "cannot store the run of digits batch-*: No space left on device; free some space *"
    result.stdout.fnmatch_lines([told, "normbench: cannot write how the session * stands: No spa*"])
    for line in ("*Traceback*", "*During handling*", "*storage/runs.py*"):
        result.stdout.no_fnmatch_line(line)
    assert project.stored.document.status == "running"
    project.pytester.makeconftest('pytest_plugins = ["normbench.plugin"]')
    project.run("--bench-resume").assert_outcomes(passed=2)
