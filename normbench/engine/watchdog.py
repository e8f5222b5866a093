"""Runs that make no progress, and workers in which nothing runs: found, told of, and ended."""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from normbench.engine.costs import estimated_epochs
from normbench.results import Epoch
from normbench.spec import RunSpec
from normbench.storage.runs import Beat, RunStore

# How many times what it should take an epoch may take: by the run's own first one, or, until that
# has ended, by an estimate that is for any machine.
BY_FIRST_EPOCH, LEAST_SECONDS = 20.0, 60.0
BY_ESTIMATE, LEAST_SECONDS_AT_FIRST = 100.0, 600.0

POLL_SECONDS = 0.5
# How often a worker gives a sign of life, and looks are taken for those of others.
BEAT_SECONDS = 5.0
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

    ``beats`` is called at once and every BEAT_SECONDS, for Warden.

    ``limit`` is how many seconds without progress the run now has at most. Time in which the
    process did not run, as it was stopped or had no processor, is not counted.
    """

    def __init__(
        self,
        timeout: float | None,
        stacks: Path,
        last_words: Callable[[str], None],
        interrupts: bool = False,
        exits: Callable[[int], None] = os._exit,
        beats: Callable[[], None] = lambda: None,
    ) -> None:
        self.timeout = timeout
        self.stacks = stacks
        self.last_words = last_words
        self.exits = exits
        self.beats = beats
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
        self.beats()
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
        beaten = looked = time.monotonic()
        while not self._over.wait(POLL_SECONDS):
            since, looked = looked, time.monotonic()
            if looked - beaten > BEAT_SECONDS:
                beaten = looked
                self.beats()
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


class Warden:
    """Ends workers in which nothing runs any more, from the process that looks after all of them.

    A library that holds Python's lock for ever stops a worker's Watchdog as well: what it does not
    do any more is to give a sign of life. Where that is so for as long as a run may make no
    progress, the process is ended by SIGABRT, at which Python's faulthandler, which pytest enables,
    writes all stacks to the terminal; if it is still there after ``grace`` seconds, it is killed.

    ``timeout`` is the watchdogs'. A process that is stopped gives no sign, and is left alone.
    """

    def __init__(
        self,
        store: RunStore,
        timeout: float | None,
        ends: Callable[[int, int], None] = os.kill,
        grace: float = BEAT_SECONDS,
    ) -> None:
        self.store, self.grace = store, grace
        self.limit = LEAST_SECONDS_AT_FIRST if timeout is None else timeout + GRACE_SECONDS
        self.ends = ends
        self._silent: dict[Beat, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="normbench-warden", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(BEAT_SECONDS):
            since, looked = looked, time.monotonic()
            # time in which this process did not run is not counted
            self.look(min(looked - since, 2 * BEAT_SECONDS))

    def look(self, elapsed: float) -> None:
        """End the workers that have been silent for too long, ``elapsed`` after the last look."""
        silent = {}
        try:
            beats = self.store.beats()
        except OSError:  # nobody can give a sign of life
            return
        for beat in beats:
            known = self._silent.get(beat)
            counts = known is not None and not is_stopped(beat.process)
            silent[beat] = (known or 0.0) + (elapsed if counts else 0.0)
            if counts and silent[beat] > self.limit:
                self._end(beat)
        self._silent = silent

    def _end(self, beat: Beat) -> None:
        told = (
            f"its process gave no sign of life for {self.limit:.0f} s, as where a library holds "
            "Python's lock; where it was stands in the worker's output"
        )
        self.store.note_end_of(beat.worker, "stalled", told)
        with suppress(OSError):
            self.ends(beat.process, signal.SIGABRT)
        self._over.wait(self.grace)
        # it is gone from there as soon as its end was noticed
        with suppress(OSError):
            if beat.process in {other.process for other in self.store.beats()}:
                self.ends(beat.process, getattr(signal, "SIGKILL", signal.SIGABRT))


def is_stopped(process: int) -> bool:
    """Tell whether a process is stopped, as by SIGSTOP; False where that cannot be seen."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    # after the name of the program, which may have brackets in it
    return told.rpartition(")")[2].split()[0] in ("T", "t")
