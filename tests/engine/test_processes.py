"""Processes that a command starts: what they are given, what they say, and that they end."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from normbench.engine.processes import environment_of_a_user, last_words, run_process


def test_a_process_has_its_folder_and_environment_and_both_channels_are_read(
    tmp_path: Path,
) -> None:
    told = "import os, sys; print(os.getcwd(), flush=True); sys.exit(os.environ['GIVEN'])"
    ended = run_process((sys.executable, "-c", told), tmp_path, {**os.environ, "GIVEN": "here"})
    assert ended.code == 1
    assert ended.output == f"{tmp_path}\nhere\n"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # dead, and not yet noted so
    return not (stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2][1] == "Z")


def test_what_a_stopped_process_started_ends_with_it(tmp_path: Path) -> None:
    inner = "echo $$ > new; mv new inner; exec sleep 60"
    command = ("sh", "-c", f"sh -c '{inner}'; true")
    main = threading.get_ident()

    def stop() -> None:
        while not (tmp_path / "inner").exists():
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    # a shell has what it starts in the background ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_process(command, tmp_path, os.environ)
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert not is_alive(int((tmp_path / "inner").read_text(encoding="utf-8")))


def test_what_an_outer_session_put_into_the_environment_is_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
    monkeypatch.setenv("NORMBENCH_DATA", "data")
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.chdir(tmp_path)
    kept = environment_of_a_user()
    assert {"PYTEST_ADDOPTS", "GITHUB_STEP_SUMMARY"}.isdisjoint(kept)
    assert (kept["NORMBENCH_DATA"], kept["KEPT"]) == (str(tmp_path / "data"), "kept")


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("normbench: no pass, none ran\nERROR: other\n===\n", "none ran"),
        ("E   ValueError: it is off\nERROR: first\n1 passed\n", "ERROR: first"),
        ("E   ValueError: it is off\nend\n", "E   ValueError: it is off"),
        ("one\ntwo\n=====\n", "two"),
        ("no wheels\npy311: exit 1 (0.1 seconds) /x> python -m pytest pid=7\n", "no wheels"),
        ("\n", "it printed nothing"),
    ],
)
def test_the_line_that_tells_most_is_picked(output: str, told: str) -> None:
    assert last_words(output) == told
