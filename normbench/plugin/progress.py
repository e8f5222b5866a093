"""What a session is doing right now: a board below pytest's lines, or a line now and then."""

import io
import os
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from normbench.cases.case import Case
from normbench.engine.costs import estimated_seconds, measured_factors, share_done
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunningRun, RunStore
from normbench.training.datasets import images_per_epoch

BOARD_INTERVAL = 1.0
LINE_INTERVAL = 30.0
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def clock(seconds: float) -> str:
    """Format a duration as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment.

    ``share_before`` was done when it began, in the session that it goes on with. ``seconds_left``
    is None before anything is done.
    """

    done: int
    cases: int
    share: float
    share_before: float
    elapsed_seconds: float
    failed: tuple[str, ...]
    running: tuple[RunningRun, ...]

    @property
    def seconds_left(self) -> float | None:
        if self.share <= self.share_before:
            return None
        return self.elapsed_seconds * (1 - self.share) / (self.share - self.share_before)


class SessionProgress:
    """Reads how far a session is from its store.

    What a run costs is estimated_seconds, times what these have been so far with its network.
    """

    def __init__(self, store: RunStore, cases: Sequence[Case]) -> None:
        self.store = store
        # looked at every second, so worked out once
        self._keys = {case.id: [spec.key for spec in case.specs] for case in cases}
        self._costs = {case.id: estimated_seconds(case.spec) * case.seeds for case in cases}
        self._networks = {case.id: case.spec.network for case in cases}
        self._parts_before = dict.fromkeys(store.results(), 1.0)
        self.started = time.monotonic()

    def _share(
        self,
        costs: Mapping[str, float],
        parts: Mapping[str, float],
        outcomes: Mapping[str, str],
    ) -> float:
        """Return the part of all costs that is spent; ``parts`` says how much of a run is done."""

        def share_of(case: str) -> float:
            keys = self._keys[case]
            return 1.0 if case in outcomes else sum(parts.get(k, 0.0) for k in keys) / len(keys)

        spent = sum(cost * share_of(case) for case, cost in costs.items())
        return spent / sum(costs.values())

    def _costs_now(
        self, finished: Mapping[str, RunResult], running: Sequence[RunningRun]
    ) -> dict[str, float]:
        """Return the cases' costs; a network without an epoch yet is as far off as the others."""
        factors = measured_factors(
            [
                *((run.spec, run.epochs) for run in finished.values()),
                *((run.spec, run.epochs) for run in running),
            ]
        )
        usual = statistics.fmean(factors.values()) if factors else 1.0
        return {
            case: cost * factors.get(self._networks[case], usual)
            for case, cost in self._costs.items()
        }

    def epochs(self) -> Iterator[tuple[RunSpec, tuple[Epoch, ...]]]:
        """Yield the epochs of every run that has ended or goes on."""
        ended = self.store.results()
        yield from ((result.spec, result.epochs) for result in ended.values())
        yield from (
            (run.spec, run.epochs) for run in self.store.running() if run.spec.key not in ended
        )

    def snapshot(self, outcomes: Mapping[str, str]) -> Snapshot:
        """Return where the session is; ``outcomes`` are those of the cases that are over."""
        finished = self.store.results()
        running = self.store.running()
        begun = {run.spec.key: share_done(run.spec, len(run.epochs)) for run in running}
        parts = begun | dict.fromkeys(finished, 1.0)
        over = [case for case in self._costs if case in outcomes]
        costs = self._costs_now(finished, running)
        return Snapshot(
            done=len(over),
            cases=len(self._costs),
            share=self._share(costs, parts, outcomes),
            share_before=self._share(costs, self._parts_before, {}),
            elapsed_seconds=time.monotonic() - self.started,
            failed=tuple(case for case in over if outcomes[case] == "failed"),
            running=tuple(running),
        )


def describe(run: RunningRun) -> list[str]:
    """Return the cells of a running case: worker, device, case, and how far it is."""
    cells = [run.worker, run.device, f"{run.case or run.spec.label} seed {run.spec.seed}"]
    if not run.epochs:
        return [*cells, f"epoch 0/{run.spec.epochs}", "", "", ""]
    return [*cells, *_figures(run.epochs[-1], run.spec)]


def _figures(epoch: Epoch, spec: RunSpec) -> list[str]:
    images = images_per_epoch(spec)[epoch.epoch - 1]
    rate = images / epoch.train_seconds if epoch.train_seconds else 0.0
    return [
        f"epoch {epoch.epoch}/{spec.epochs}",
        f"loss {epoch.train_loss:.4f}",
        f"{100 * epoch.test_accuracy:.2f} %",
        f"{rate:,.0f} images/s",
    ]


def epoch_line(epoch: Epoch, spec: RunSpec) -> str:
    """Return a finished epoch in one line."""
    return ", ".join(_figures(epoch, spec))


def headline(snapshot: Snapshot) -> str:
    """Return how many cases are over, how many failed, and the time gone and left."""
    left = "" if snapshot.seconds_left is None else f", {clock(snapshot.seconds_left)} left"
    failed = f", {len(snapshot.failed)} failed" if snapshot.failed else ""
    elapsed = clock(snapshot.elapsed_seconds)
    return f"{snapshot.done} of {snapshot.cases} cases{failed}, {elapsed} so far{left}"


def line(snapshot: Snapshot) -> str:
    """Return a session in one line, for logs."""
    running = "; ".join(" ".join(filter(None, describe(run))) for run in snapshot.running)
    return f"normbench: {headline(snapshot)}" + (f": {running}" if running else "")


def board(snapshot: Snapshot, width: int) -> str:
    """Draw a session: a line a running case, the session's bar, and what has failed."""
    table = Table.grid(padding=(0, 1))
    for column in range(7):
        table.add_column(
            no_wrap=True, overflow="ellipsis", justify="left" if column < 4 else "right"
        )
    for run in snapshot.running:
        table.add_row(*map(Text, describe(run)))
    bar = Table.grid(padding=(0, 1))
    told = Text(headline(snapshot), no_wrap=True, overflow="ellipsis")
    bar.add_row(ProgressBar(1.0, snapshot.share, width=width // 4), told)
    parts: list[Any] = [table, bar] if snapshot.running else [bar]
    if snapshot.failed:
        shown = ", ".join(snapshot.failed[-3:])
        more = f" and {len(snapshot.failed) - 3} before" if len(snapshot.failed) > 3 else ""
        parts.append(Text(f"failed: {shown}{more}", style="red", no_wrap=True, overflow="ellipsis"))
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=width, color_system="standard")
    console.print(Group(*parts), end="")
    return drawn.getvalue().rstrip("\n")


class SharedTerminal:
    """A terminal that pytest writes to, with a board below its lines.

    Stands in for pytest's own file: whatever pytest writes takes the board away, and continues
    the line that pytest left unfinished; the board returns with the next show.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._board_lines = 0
        self._column = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with self._lock:
            self._erase()
            last = ESCAPE.sub("", text.rpartition("\n")[2]).rpartition("\r")[2]
            fresh = "\n" in text or "\r" in text
            self._column = len(last) + (0 if fresh else self._column)
            return self._file.write(text)

    def flush(self) -> None:
        self._file.flush()

    def write_line(self, text: str) -> None:
        """Write a line of its own, below what pytest may have left unfinished."""
        self.write(f"\n{text}\n" if self._column else f"{text}\n")
        self.flush()

    def show(self, text: str) -> None:
        """Draw a board in place of the last one."""
        with self._lock:
            self._erase()
            self._file.write(f"\n{text}")
            self._board_lines = text.count("\n") + 1
            self._file.flush()

    def clear(self) -> None:
        with self._lock:
            self._erase()
            self._file.flush()

    def _erase(self) -> None:
        """Take the board away, and go back to where pytest's text ended."""
        if self._board_lines:
            self._file.write("\r" + "\x1b[2K\x1b[1A" * self._board_lines)
            self._file.write(f"\x1b[{self._column}C" if self._column else "")
            self._board_lines = 0


def uncaptured(file: TextIO) -> TextIO:
    """Return a file to the same terminal that pytest's capture of file descriptors leaves alone."""
    try:
        descriptor = os.dup(file.fileno())
    except (OSError, ValueError):
        return file
    return os.fdopen(descriptor, "w", encoding=file.encoding or "utf-8", errors="replace")


class LiveProgress:
    """Tells of a session while it runs, from a thread of its own, until it is stopped.

    ``writer`` is pytest's terminal writer. On a terminal there is a board, elsewhere a line every
    30 seconds; ``verbose`` adds a line for each finished epoch. In between, it can be paused.
    """

    def __init__(
        self,
        progress: SessionProgress,
        outcomes: Mapping[str, str],
        writer: Any,
        on_terminal: bool,
        verbose: bool,
    ) -> None:
        self._progress = progress
        self._outcomes = outcomes
        self._writer = writer
        self._on_terminal = on_terminal
        self._verbose = verbose
        self._told: Counter[str] = Counter()
        self._next_line = LINE_INTERVAL
        self._stopped = threading.Event()
        self._paused = False
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="normbench-progress", daemon=True)
        self._file = writer._file
        self._own_file = uncaptured(self._file)
        self._terminal = SharedTerminal(self._own_file)

    def start(self) -> None:
        self._file.flush()
        # TerminalWriter has no other way to share what it writes to
        self._writer._file = self._terminal
        self._thread.start()

    def stop(self) -> None:
        """Take the board away and give pytest its terminal back."""
        self._stopped.set()
        self._thread.join()
        self.tell_epochs()
        self._terminal.clear()
        self._writer._file = self._file
        if self._own_file is not self._file:
            self._own_file.close()

    def pause(self) -> None:
        """Leave the terminal to somebody else, such as a debugger, until ``resume``."""
        with self._telling:
            self._paused = True
            self._terminal.clear()

    def resume(self) -> None:
        self._paused = False

    def _run(self) -> None:
        while not self._stopped.wait(BOARD_INTERVAL):
            with self._telling:
                if not self._paused:
                    self._tell()

    def _tell(self) -> None:
        self._write_epochs()
        if not self._on_terminal and self._elapsed < self._next_line:
            return
        snapshot = self._progress.snapshot(self._outcomes)
        if self._on_terminal:
            self._terminal.show(board(snapshot, self._writer.fullwidth))
        else:
            self._terminal.write_line(line(snapshot))
            self._next_line = self._elapsed + LINE_INTERVAL

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._progress.started

    def tell_epochs(self) -> None:
        """Write a line for each epoch that has ended and is not told yet, if they are wanted."""
        with self._telling:
            self._write_epochs()

    def _write_epochs(self) -> None:
        if not self._verbose or self._paused:
            return
        for spec, epochs in self._progress.epochs():
            for epoch in epochs[self._told[spec.key] :]:
                self._terminal.write_line(f"{spec} {epoch_line(epoch, spec)}")
            self._told[spec.key] = len(epochs)
