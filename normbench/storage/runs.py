"""The session's runs: each finished row on disk at once, and what goes on."""

import dataclasses
import json
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from normbench.locks import locked, locks_work
from normbench.results import UNFINISHED, Epoch, RunResult, Status
from normbench.spec import RunSpec
from normbench.storage.files import remove_if_possible, remove_unnamed, write_atomic

# A row begins with its spec's key, so that it is found without reading the rest; an older one not.
KEY = re.compile(rb'\{"key": "([0-9a-f]{16})", ')
BLOCK_BYTES = 1 << 16


class RunNotStored(ValueError):
    """A run whose row cannot be written, as on a disk that is full."""


class _Row(NamedTuple):
    """Where a row lies: its file, the position of its first byte, and the number of its line."""

    file: Path
    start: int
    line: int


@dataclass(frozen=True)
class RunningRun:
    """A run that a worker is at: the epochs are those that it has finished."""

    worker: str
    device: str
    case: str
    spec: RunSpec
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class Beat:
    """The last sign of life of a worker's process while it is at a run: ``at`` tells it apart."""

    worker: str
    process: int
    at: int


class RunStore:
    """The rows of ``folder/runs.jsonl``, shared by all processes of a session.

    One process writes at a time, under a file lock, whole lines only: what a killed writer left
    unfinished is cut off by the next one, and never read. A spec has a lock of its own, so that
    whoever asks for it while it is trained waits for the row. Where the file system has no locks
    that work, each worker writes ``runs-WORKER.jsonl`` instead, until the session closes, and a
    spec that two of them ask for at once is trained by both. ``planted`` names the fault that is
    planted in the process that trains, for the row of a run that it dies with.
    """

    def __init__(
        self, folder: Path, worker: str = "main", device: str = "", planted: str = ""
    ) -> None:
        self.folder = folder
        self.worker = worker
        self.device = device
        self.planted = planted
        self.file = folder / "runs.jsonl"
        self._running = folder / "running"
        self._lease: dict[str, Any] = {}
        self._warned = False
        self._forget()

    def _forget(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._parsed: dict[_Row, RunResult] = {}
        # how far each file was read: to which byte, and which line
        self._read_to: dict[Path, tuple[int, int]] = {}

    def results(self) -> dict[str, RunResult]:
        """Return the stored runs by their spec's key, in the order in which they ended.

        Of several runs of one spec, the last one counts.
        """
        self._scan()
        results = self._runs(self._rows.values())
        if len(self._read_to) > 1:
            results.sort(key=lambda result: result.ended)
        return {result.spec.key: result for result in results}

    def find(self, spec: RunSpec) -> RunResult | None:
        """Return the last run of ``spec``; other rows are not parsed."""
        self._scan()
        row = self._rows.get(spec.key)
        return None if row is None else self._runs([row])[0]

    def _scan(self) -> None:
        """Note where the rows lie that have been written since the last look."""
        for path in filter(Path.exists, (self.file, *self._separate())):
            start, number = self._read_to.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    number += 1
                    self._note(line, _Row(path, start, number))
                    start += len(line)
            self._read_to[path] = (start, number)

    def _separate(self) -> list[Path]:
        """Return the files of single workers, where they cannot share one."""
        return sorted(self.folder.glob("runs-*.jsonl"))

    def _note(self, line: bytes, row: _Row) -> None:
        key = self._key(line, row)
        known = self._rows.get(key)
        if known is not None and known.file != row.file:
            before, now = self._runs([known, row])
            if before.ended > now.ended:
                return
        # at the end, where the order is that of the last runs
        self._rows.pop(key, None)
        self._rows[key] = row

    def _key(self, line: bytes, row: _Row) -> str:
        if (begins := KEY.match(line)) is not None:
            return begins[1].decode()
        self._parsed[row] = run = self._run(line, row)
        return run.spec.key

    def _runs(self, rows: Collection[_Row]) -> list[RunResult]:
        """Return the runs of ``rows``, each parsed when it is first asked for."""
        unread = [row for row in rows if row not in self._parsed]
        for path in {row.file for row in unread}:
            with path.open("rb") as file:
                for row in unread:
                    if row.file == path:
                        file.seek(row.start)
                        self._parsed[row] = self._run(file.readline(), row)
        return [self._parsed[row] for row in rows]

    def _run(self, line: bytes, row: _Row) -> RunResult:
        try:
            return RunResult.from_row(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{row.file}, line {row.line}: {error}; expected a run as normbench writes it"
            ) from error

    def checkpoint(self, spec: RunSpec) -> Path:
        """Return the file for what a run of ``spec`` has come to, should it be interrupted."""
        return self.folder / "checkpoints" / f"{spec.key}.pt"

    def append(self, result: RunResult) -> None:
        """Write the run's row and see it onto the disk; raises RunNotStored if it cannot."""
        line = _line(result).encode()
        with self._told(f"the run of {result.spec}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            shared = locks_work(self.folder)
            rows = self.file if shared else self.folder / f"runs-{self.worker}.jsonl"
            with locked(self.folder / "runs.lock"), rows.open("a+b") as file:
                file.truncate(_end_of_lines(file))
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Tell in one line why ``what`` cannot be stored."""
        try:
            yield
        except OSError as error:
            raise RunNotStored(
                f"cannot store {what} in {self.folder}: {error.strerror or error}; free some "
                "space there, or let it be written to, and go on with --bench-resume"
            ) from error

    @contextmanager
    def exclusive(self, spec: RunSpec) -> Iterator[None]:
        """Keep ``spec`` to this process; another one that asks for it waits.

        Raises RunNotStored where the folder cannot be written to.
        """
        with ExitStack() as lock:
            with self._told(f"the run of {spec}"):
                self._running.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(self._running / f"{spec.key}.lock"))
            yield

    @contextmanager
    def lease(self, spec: RunSpec, case: str) -> Iterator[None]:
        """Say that this worker is at ``spec``, as long as it is.

        ``case`` is what record_crash returns should this process die.
        """
        self._lease = {
            "spec": spec.to_dict(),
            "case": case,
            "device": self.device,
            "planted": self.planted,
            "epochs": [],
        }
        self._write_lease(self.worker, self._lease)
        try:
            yield
        finally:
            remove_if_possible(self._lease_file(self.worker))

    def note_epoch(self, epoch: Epoch) -> None:
        """Let others see that the run which this process is at has finished an epoch."""
        self._lease["epochs"].append(dataclasses.asdict(epoch))
        self._write_lease(self.worker, self._lease)

    def beat(self) -> None:
        """Let others see that this process runs, whatever its run does; from the first time on."""
        if "process" not in self._lease:
            self._lease |= {"process": os.getpid(), "host": platform.node()}
            self._write_lease(self.worker, self._lease)
            return
        with suppress(OSError):
            os.utime(self._lease_file(self.worker))

    def beats(self) -> list[Beat]:
        """Return the signs of life of this machine's workers that have given any at their run.

        Raises OSError where none can be given, as on a disk that was made read-only.
        """
        found = []
        if self._running.exists():
            (self._running / ".beats").touch()
        for lease in sorted(self._running.glob("*.json")):
            # it may have ended since it was listed
            with suppress(OSError, ValueError):
                at, told = lease.stat().st_mtime_ns, json.loads(lease.read_text())
                if told.get("host") == platform.node():
                    found.append(Beat(lease.stem, told["process"], at))
        return found

    def note_running(self, run: RunningRun) -> None:
        """Say what a worker is at that does not share this folder."""
        lease = {
            "spec": run.spec.to_dict(),
            "case": run.case,
            "device": run.device,
            "epochs": [dataclasses.asdict(epoch) for epoch in run.epochs],
        }
        self._running.mkdir(parents=True, exist_ok=True)
        self._write_lease(run.worker, lease)

    def forget_running(self, worker: str) -> None:
        """Say that such a worker is through with its run."""
        remove_if_possible(self._lease_file(worker))

    def note_end(self, status: Status, told: str) -> None:
        """Let record_crash know how the run has ended that this process is at, and ends with."""
        self._lease["ended"] = [status, told]
        self._write_lease(self.worker, self._lease)

    def note_end_of(self, worker: str, status: Status, told: str) -> None:
        """Do so for another worker, which is about to be ended."""
        _, running = self._left_by(worker)
        if running is not None:
            self._write_lease(worker, running | {"ended": [status, told]})

    @property
    def noted(self) -> tuple[Epoch, ...]:
        """The epochs of the run that this process is at, or was at last."""
        return _epochs(self._lease) if self._lease else ()

    def _lease_file(self, worker: str) -> Path:
        return self._running / f"{worker}.json"

    def _write_lease(self, worker: str, lease: Mapping[str, Any]) -> None:
        """Write what a worker is at; that it cannot is no reason to end a run."""
        try:
            write_atomic(self._lease_file(worker), json.dumps(lease))
        except OSError as error:
            if not self._warned:
                self._warned = True
                told = f"cannot note in {self._running} how far a run is: {error}; it goes on"
                warnings.warn(told, stacklevel=3)

    def running(self) -> list[RunningRun]:
        """Return what all workers are at, by worker."""
        runs = []
        for lease in sorted(self._running.glob("*.json")):
            try:
                running = json.loads(lease.read_text())
            except FileNotFoundError:
                continue  # ended since it was listed
            runs.append(
                RunningRun(
                    worker=lease.stem,
                    device=running["device"],
                    case=running["case"],
                    spec=RunSpec.of_dict(running["spec"]),
                    epochs=_epochs(running),
                )
            )
        return runs

    def reopen(self, is_current: Callable[[RunResult], bool]) -> int:
        """Make a session that was interrupted ready to go on.

        Rows of runs that another attempt may end better are dropped, and those that ``is_current``
        refuses, as code, network or recipe have changed since: their number is returned. So is
        what a dead worker left. Raises RunNotStored where the folder cannot be written to.
        """
        shutil.rmtree(self._running, ignore_errors=True)
        remove_unnamed(self.folder)
        ended = [run for run in self.results().values() if run.status not in UNFINISHED]
        kept = [run for run in ended if is_current(run)]
        with self._told("the runs to go on with"):
            self.write(kept)
        return len(ended) - len(kept)

    def write(self, runs: Iterable[RunResult]) -> None:
        """Write the rows of ``runs``, in place of those that are there, all or none."""
        write_atomic(self.file, map(_line, runs))
        for file in self._separate():
            remove_if_possible(file)
        self._forget()

    def close(self, *, finished: bool = True) -> None:
        """Remove the locks and leases of a session that has ended; the rows stay, in one file.

        So do the checkpoints of one that was interrupted.
        """
        if self._separate():
            with self._told("the rows of all workers"):
                self.write(self.results().values())
        shutil.rmtree(self._running, ignore_errors=True)
        remove_unnamed(self.folder)
        remove_if_possible(self.folder / "runs.lock")
        if finished:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def record_crash(self, worker: str) -> str | None:
        """Store what ``worker`` was training when it died: as crashed, or as it had noted.

        Returns the case's id.
        """
        lease, running = self._left_by(worker)
        if running is None:
            return None
        spec = RunSpec.of_dict(running["spec"])
        known = self.find(spec)
        # it may have died in the moment after it had stored the row
        if known is None or known.status in UNFINISHED:
            died = f"the process of worker {worker} died while it trained this run"
            status: Status
            status, told = running.get("ended") or ("crashed", died)
            ended = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            self.append(
                RunResult(
                    spec,
                    status,
                    told,
                    epochs=_epochs(running),
                    worker=worker,
                    ended=ended,
                    planted=running.get("planted", ""),
                )
            )
        remove_if_possible(lease)
        return str(running["case"])

    def last_words(self, worker: str) -> str:
        """Return what note_end told before ``worker`` died; empty where it told nothing."""
        _, running = self._left_by(worker)
        _, told = (running or {}).get("ended") or ("", "")
        return str(told)

    def _left_by(self, worker: str) -> tuple[Path, dict[str, Any] | None]:
        """Return the lease of a worker that died, and what it says; None if it was at nothing."""
        lease = self._lease_file(worker)
        if not lease.exists():
            # it may have died before the first one that it wrote had got its name
            lease = next(self._running.glob(f".{lease.name}.*"), lease)
        try:
            return lease, dict(json.loads(lease.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return lease, None


def _epochs(lease: dict[str, Any]) -> tuple[Epoch, ...]:
    return tuple(Epoch(**epoch) for epoch in lease["epochs"])


def _line(result: RunResult) -> str:
    row = {"key": result.spec.key, **result.to_row()}
    return f"{json.dumps(row, allow_nan=False)}\n"


def _end_of_lines(file: BinaryIO) -> int:
    """Return where the last whole line ends, reading back from the end of the file."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
