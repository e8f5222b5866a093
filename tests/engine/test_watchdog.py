"""Runs that make no progress are ended, and those that make some are left alone."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.engine.watchdog import EXIT_CODE, RunStalled, Watchdog, debugging
from normbench.results import Epoch
from normbench.spec import RunSpec

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
