"""Runs that make no progress are ended, and those that make some are left alone."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.engine import watchdog
from normbench.engine.watchdog import (
    EXIT_CODE,
    RunStalled,
    Warden,
    Watchdog,
    debugging,
    is_stopped,
)
from normbench.results import Epoch
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=3)


class Ended:
    """Stands for the end of the process; notes its exit code and last words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.codes: list[int] = []

    def watchdog(self, folder: Path, timeout: float | None, interrupts: bool = False) -> Watchdog:
        stacks = folder / "stalls" / "run.txt"
        return Watchdog(timeout, stacks, self.words.append, interrupts, self.codes.append)


def epoch(seconds: float) -> Epoch:
    return Epoch(1, 0.1, 0.2, 0.9, 0.2, 0.9, seconds, 0.0)


def wait_for(met: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not met() and time.monotonic() < until:
        time.sleep(0.05)


def test_a_run_that_hangs_is_interrupted_with_its_stacks_dumped(tmp_path: Path) -> None:
    ended = Ended()

    def hangs() -> None:
        time.sleep(60)

    message = r"it made no progress for 1 s, after 0 epochs; where it was is in .*run\.txt"
    begun = time.monotonic()
    with (
        pytest.raises(RunStalled, match=message),
        ended.watchdog(tmp_path, 0.6, True).watching(SPEC),
    ):
        hangs()
    assert time.monotonic() - begun < 30
    assert "in hangs" in (tmp_path / "stalls" / "run.txt").read_text()
    assert (ended.words, ended.codes) == ([], [])


def test_where_another_process_takes_over_the_process_is_ended(tmp_path: Path) -> None:
    ended = Ended()
    with ended.watchdog(tmp_path, 0.6).watching(SPEC):
        wait_for(lambda: ended.codes)
    assert ended.codes == [EXIT_CODE]
    assert "no progress for 1 s" in ended.words[0]


def test_a_run_that_makes_progress_is_left_alone(tmp_path: Path) -> None:
    ended = Ended()
    with ended.watchdog(tmp_path, 1.2).watching(SPEC) as note:
        for _ in range(6):
            time.sleep(0.3)
            note(epoch(0.3))
    assert not ended.codes
    # nor does anything look after it when it is over
    assert "normbench-watchdog" not in {thread.name for thread in threading.enumerate()}


def test_a_run_in_a_debugger_is_not_stalled(tmp_path: Path) -> None:
    ended = Ended()
    debugging.set()
    try:
        with ended.watchdog(tmp_path, 0.5).watching(SPEC):
            time.sleep(1.5)
    finally:
        debugging.clear()
    assert not ended.codes


@pytest.mark.parametrize(
    ("timeout", "epochs", "seconds"),
    [
        # ten minutes are more than a hundred times the estimate of a third of a second
        (None, [], 600),
        (None, [0.5], 60),
        (None, [30.0], 600),
        (None, [30.0, 90.0], 600),
        (7.0, [30.0], 7),
    ],
)
def test_how_long_a_run_may_take_follows_from_its_first_epoch(
    tmp_path: Path, timeout: float | None, epochs: list[float], seconds: float
) -> None:
    watchdog = Ended().watchdog(tmp_path, timeout)
    with watchdog.watching(SPEC) as note:
        for taken in epochs:
            note(epoch(taken))
        assert watchdog.limit == seconds


def test_with_a_timeout_of_zero_nothing_is_watched(tmp_path: Path) -> None:
    before = threading.active_count()
    with Ended().watchdog(tmp_path, 0.0).watching(SPEC):
        assert threading.active_count() == before


def test_the_exit_code_is_none_that_pytest_or_a_signal_has() -> None:
    assert EXIT_CODE == os.EX_SOFTWARE


def silent_worker(folder: Path, program: str) -> tuple["subprocess.Popen[str]", RunStore]:
    """Start a process that says it is at a run; the store is that of the process beside."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, stdin=subprocess.PIPE
    )
    store = RunStore(folder, "gw1")
    with store.exclusive(SPEC), store.lease(SPEC, "case"):
        store.beat()
        lease = folder / "running" / "gw1.json"
        told = json.loads(lease.read_text()) | {"process": process.pid}
    lease.write_text(json.dumps(told))
    return process, RunStore(folder)


# sleeps for ever with Python's lock, as PyDLL does not give it up
HOLDS_THE_LOCK = """
import ctypes, faulthandler, sys
faulthandler.enable()
def holds_the_lock():
    print("ready", file=sys.stderr, flush=True)
    ctypes.PyDLL(None).sleep(1000)
holds_the_lock()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill sends no signals there")
def test_a_worker_in_which_nothing_runs_is_ended_with_its_stacks(tmp_path: Path) -> None:
    process, store = silent_worker(tmp_path, HOLDS_THE_LOCK)
    assert process.stderr
    assert process.stderr.readline() == "ready\n"
    warden = Warden(store, timeout=40.0)
    for _ in range(7):
        warden.look(10.0)
    # silent for 60 seconds, which is the timeout and what a run may take to end
    assert process.poll() is None
    warden.look(10.0)
    _, output = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGABRT
    assert "in holds_the_lock" in output
    assert store.record_crash("gw1") == "case"
    (run,) = store.results().values()
    assert run.status == "stalled"
    assert run.message.startswith("its process gave no sign of life for 60 s")


def test_a_worker_that_gives_signs_of_life_is_left_alone(tmp_path: Path) -> None:
    store, sent = RunStore(tmp_path, "gw0"), []
    warden = Warden(RunStore(tmp_path), None, lambda *given: sent.append(given), grace=0.0)
    with store.exclusive(SPEC), store.lease(SPEC, "case"):
        # before its run is watched, nobody gives signs
        for _ in range(5):
            warden.look(1000.0)
        for _ in range(5):
            store.beat()
            warden.look(300.0)
        assert sent == []
        warden.look(0.0)
        for _ in range(3):
            warden.look(300.0)
    # it is still there after the first signal
    assert sent == [(os.getpid(), signal.SIGABRT), (os.getpid(), signal.SIGKILL)]


def test_where_no_sign_can_be_given_nobody_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    store, sent = RunStore(tmp_path, "gw0"), []
    warden = Warden(RunStore(tmp_path), 1.0, lambda *given: sent.append(given))
    with store.exclusive(SPEC), store.lease(SPEC, "case"):
        store.beat()
        monkeypatch.setattr(Path, "touch", refuse)
        for _ in range(5):
            warden.look(1000.0)
    assert sent == []


def test_a_process_that_is_stopped_is_not_silent(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    process, store = silent_worker(tmp_path, "import time; time.sleep(1000)")
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: is_stopped(process.pid))
    warden = Warden(store, timeout=1.0)
    for _ in range(5):
        warden.look(1000.0)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert not is_stopped(os.getpid())


def test_a_watchdog_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "BEAT_SECONDS", 0.1)
    beats: list[float] = []
    looking = Watchdog(None, tmp_path / "stacks", print, beats=lambda: beats.append(0.0))
    with looking.watching(SPEC):
        wait_for(lambda: len(beats) >= 2)
    assert len(beats) >= 2
