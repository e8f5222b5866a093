"""Runs that make no progress: found, told of with their stacks, and ended."""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from normbench.engine.costs import estimated_epochs
from normbench.results import Epoch
from normbench.spec import RunSpec

# How many times what it should take an epoch may take: by the run's own first one, or, until that
# has ended, by an estimate that is for any machine.
BY_FIRST_EPOCH, LEAST_SECONDS = 20.0, 60.0
BY_ESTIMATE, LEAST_SECONDS_AT_FIRST = 100.0, 600.0

POLL_SECONDS = 0.5
# What a run that was told to end may take to do so, before its process is ended.
GRACE_SECONDS = 20.0
EXIT_CODE = 70
# pytest-timeout has SIGALRM, and schedulers of clusters tell by SIGUSR1 that time is up.
INTERRUPT: int = getattr(signal, "SIGVTALRM", 0)  # Windows has none

# While somebody looks at the run in a debugger, it makes no progress and is not stalled.
debugging = threading.Event()


class RunStalled(RuntimeError):
    """A run that made no progress for too long."""


class Watchdog:
    """Looks after a run from a thread of its own, and ends it where it makes no progress.

    ``timeout`` is how many seconds it may make none; None works it out, and 0 is for ever. The
    stacks of all threads are dumped to ``stacks``. Then the process is ended after ``last_words``,
    or, where ``interrupts`` says so and the run is in the main thread, RunStalled is raised in it;
    the process is ended if that does not help.

    ``limit`` is how many seconds without progress it now has at most. Time in which the process did
    not run, as it was stopped or had no processor, is not counted.
    """

    def __init__(
        self,
        timeout: float | None,
        stacks: Path,
        last_words: Callable[[str], None],
        interrupts: bool = False,
        exits: Callable[[int], None] = os._exit,
    ) -> None:
        self.timeout = timeout
        self.stacks = stacks
        self.last_words = last_words
        self.exits = exits
        in_main = threading.current_thread() is threading.main_thread()
        self.interrupts = interrupts and in_main and INTERRUPT > 0
        self._idle = 0.0
        self.limit = 0.0
        self._epochs = 0
        self._over = threading.Event()

    @contextmanager
    def watching(self, spec: RunSpec) -> Iterator[Callable[[Epoch], None]]:
        """Watch the run in the block, which calls what is yielded at each epoch's end.

        Raises RunStalled where the run is interrupted.
        """
        if self.timeout == 0:
            yield lambda _: None
            return
        epoch_seconds = BY_ESTIMATE * estimated_epochs(spec)[0]
        self.limit = self.timeout or max(LEAST_SECONDS_AT_FIRST, epoch_seconds)
        thread = threading.Thread(target=self._watch, name="normbench-watchdog", daemon=True)
        with self._interrupted():
            thread.start()
            try:
                yield self._note
            finally:
                self._over.set()
                thread.join()

    def _note(self, epoch: Epoch) -> None:
        if not self._epochs and self.timeout is None:
            first = epoch.train_seconds + epoch.test_seconds
            self.limit = max(LEAST_SECONDS, BY_FIRST_EPOCH * first)
        self._epochs += 1
        self._idle = 0.0

    @contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Let the watchdog raise RunStalled in the main thread, by a signal."""
        if not self.interrupts:
            yield
            return
        before = signal.signal(INTERRUPT, self._raise)
        try:
            yield
        finally:
            signal.signal(INTERRUPT, before)

    def _raise(self, *_: int | FrameType | None) -> None:
        raise RunStalled(self._told())

    def _told(self) -> str:
        return (
            f"it made no progress for {self.limit:.0f} s, after {self._epochs} epochs; where it "
            f"was is in {self.stacks}"
        )

    def _watch(self) -> None:
        if not self._stalls():
            return
        self._dump()
        if self.interrupts:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
            if self._over.wait(GRACE_SECONDS):
                return
        self.last_words(self._told())
        self.exits(EXIT_CODE)

    def _stalls(self) -> bool:
        """Wait until the run is over, or has made no progress for too long."""
        looked = time.monotonic()
        while not self._over.wait(POLL_SECONDS):
            since, looked = looked, time.monotonic()
            if not debugging.is_set():
                self._idle += min(looked - since, 2 * POLL_SECONDS)
            if self._idle > self.limit:
                return True
        return False

    def _dump(self) -> None:
        try:
            self.stacks.parent.mkdir(parents=True, exist_ok=True)
            with self.stacks.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file=file, all_threads=True)
        except OSError as error:  # as on a full disk
            print(f"normbench: {self.stacks}: {error}", file=sys.stderr)
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
