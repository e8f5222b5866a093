"""What a session hands on: the files of --bench-json, and the hook that feeds trackers."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from normbench.plugin import hookspec
from normbench.plugin.outputs import OutputError, make_way, tell_others, write_files
from normbench.plugin.parsers import parse_json_file
from normbench.storage.session import read_session

from ..conftest import Project
from ..storage.stored import golden_copy
from .conftest import ALONE

# The folder of a tracker is the project's: it hears of one session more with each call.
TRACKER = """
import json
from pathlib import Path

pytest_plugins = ["normbench.plugin"]

def pytest_bench_session_finished(session):
    verdicts = {stored.case.id: stored.verdict for stored in session.judged_cases}
    told = [session.name, (session.folder / "report.html").is_file(), verdicts]
    with Path("tracked").open("a") as file:
        print(json.dumps(told), file=file)
"""
FAILING = """
def pytest_bench_session_finished(session):
    raise ConnectionError("nobody\\nanswers")
"""


@pytest.fixture(params=[ALONE, ("-n", "2")], ids=["alone", "n2"])
def tracked(
    request: pytest.FixtureRequest,
    modules_loaded: None,
    one_thread: None,
    pytester: pytest.Pytester,
) -> Project:
    """Return a project with a tracker in its conftest.py, and one that fails beside its tests."""
    project = Project(pytester, *request.param)
    project.grid(norms=["batch"])
    project.write("conftest.py", TRACKER)
    project.write("bench/conftest.py", FAILING)
    return project


def test_a_finished_session_is_written_and_told_once(tracked: Project) -> None:
    stale = tracked.write("accuracy.json", "of an earlier session")
    result = tracked.run(
        *("--bench-json", "session.json", "--bench-json", f"github-accuracy:{stale.name}")
    )
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    document = json.loads((tracked.path / "session.json").read_text(encoding="utf-8"))
    assert document["session"] == tracked.stored.name
    assert {case["id"]: case["verdict"] for case in document["cases"]} == tracked.verdicts
    entries = json.loads(stale.read_text(encoding="utf-8"))
    assert [entry["name"] for entry in entries] == list(tracked.verdicts)
    (told,) = (tracked.path / "tracked").read_text(encoding="utf-8").splitlines()
    assert json.loads(told) == [tracked.stored.name, True, tracked.verdicts]
    result.stdout.fnmatch_lines(
        "normbench: pytest_bench_session_finished of *bench*conftest.py failed: "
        "ConnectionError: nobody answers"
    )


def test_a_session_without_our_tests_calls_no_hook(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(TRACKER)
    pytester.makepyfile(test_x="def test_x(): pass\n")
    pytester.runpytest_inprocess(*ALONE, "--bench-json", "x.json").assert_outcomes(passed=1)
    assert not (pytester.path / "tracked").exists()
    assert not (pytester.path / "x.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no/such/file.json", "*'no/such/file.json' is no file that can be written: expected a*"),
        (".", "*--bench-json: '.' is no file that can be written: *in a folder that exists*"),
        ("github-accuracy:", "*'github-accuracy:' is no file that can be written: *"),
        ("github:x.json", "*'github' is no format: expected normbench, github-accuracy, github-s*"),
    ],
)
def test_a_file_that_cannot_be_written_ends_pytest_at_once(
    alone: Project, given: str, message: str
) -> None:
    result = alone.run("--bench-json", given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not alone.results.exists()


def test_a_device_or_a_pipe_is_no_file_to_write_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(argparse.ArgumentTypeError, match="is no file that can be written"):
        parse_json_file(str(pipe))


def test_a_file_that_is_given_twice_trains_nothing(alone: Project) -> None:
    result = alone.run("--bench-json", "x.json", "--bench-json", "github-seconds:./x.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bench-json: *x.json is given twice; expected another*"])
    assert not alone.results.exists()


def test_way_is_made_for_files_before_anything_trains(tmp_path: Path) -> None:
    stale, proc = tmp_path / "x.json", Path("/proc/x.json")
    stale.write_text("of an earlier session")
    make_way([("normbench", stale)])
    assert list(tmp_path.iterdir()) == []
    if not proc.parent.is_dir():
        pytest.skip("there is no /proc, in which nobody can make a file")
    with pytest.raises(OutputError, match=r"--bench-json: cannot write to /proc/x\.json: "):
        make_way([("normbench", proc)])


def test_a_file_that_cannot_be_written_at_the_end_is_a_note(tmp_path: Path) -> None:
    session = read_session(golden_copy("session-2", tmp_path))
    whole, gone = tmp_path / "whole.json", tmp_path / "gone" / "x.json"
    (note,) = write_files([("normbench", gone), ("github-seconds", whole)], session)
    assert note.startswith(f"{gone} could not be written: FileNotFoundError: ")
    assert note.endswith(f"; all runs and verdicts are in {session.folder}")
    assert json.loads(whole.read_text(encoding="utf-8"))


class Heard:
    """A plugin that notes the sessions that it hears of, then fails if it is to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.sessions: list[object] = []
        self.error = error

    def pytest_bench_session_finished(self, session: object) -> None:
        self.sessions.append(session)
        if self.error is not None:
            raise self.error


def test_a_hook_that_fails_keeps_the_session_from_no_other(tmp_path: Path) -> None:
    class Config:
        pluginmanager = pytest.PytestPluginManager()
        hook = pluginmanager.hook

    config: Any = Config
    config.pluginmanager.add_hookspecs(hookspec)
    plugins = {
        "first": Heard(),
        "raises": Heard(ValueError("no token")),
        "exits": Heard(SystemExit(3)),
        "fails": Heard(pytest.fail.Exception("by hand")),
        "last": Heard(),
    }
    for name, plugin in plugins.items():
        config.pluginmanager.register(plugin, name)
    session = read_session(golden_copy("session-2", tmp_path))
    assert sorted(tell_others(config, session)) == [
        "pytest_bench_session_finished of exits failed: SystemExit: 3",
        "pytest_bench_session_finished of fails failed: Failed: by hand",
        "pytest_bench_session_finished of raises failed: ValueError: no token",
    ]
    assert [plugin.sessions for plugin in plugins.values()] == [[session]] * 5
