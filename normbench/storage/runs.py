"""The session's runs: each finished row on disk at once, and what goes on."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.files import write_atomic


@dataclass(frozen=True)
class RunningRun:
    """A run that a worker is at: the epochs are those that it has finished."""

    worker: str
    device: str
    case: str
    spec: RunSpec
    epochs: tuple[Epoch, ...]

    @property
    def share(self) -> float:
        """The part of the run that is done."""
        return len(self.epochs) / self.spec.epochs


class RunStore:
    """The rows of ``folder/runs.jsonl``, shared by all processes of a session.

    One process writes at a time, under a file lock, whole lines only: what a killed writer left
    unfinished is cut off by the next one, and never read. A spec has a lock of its own, so that
    whoever asks for it while it is trained waits for the row.
    """

    def __init__(self, folder: Path, worker: str = "main", device: str = "") -> None:
        self.folder = folder
        self.worker = worker
        self.device = device
        self.file = folder / "runs.jsonl"
        self._running = folder / "running"
        self._lease: dict[str, Any] = {}
        self._known: dict[str, RunResult] = {}
        self._read_to = self._lines = 0

    def results(self) -> dict[str, RunResult]:
        """Return the stored runs by their spec's key, in the order in which they ended."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self._read_to)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read_to += len(line)
                    self._lines += 1
                    result = self._run(line)
                    self._known[result.spec.key] = result
        return dict(self._known)

    def _run(self, line: bytes) -> RunResult:
        try:
            return RunResult.from_row(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{self.file}, line {self._lines}: {error}; expected a run as normbench writes it"
            ) from error

    def find(self, spec: RunSpec) -> RunResult | None:
        return self.results().get(spec.key)

    def checkpoint(self, spec: RunSpec) -> Path:
        """Return the file for what a run of ``spec`` has come to, should it be interrupted."""
        return self.folder / "checkpoints" / f"{spec.key}.pt"

    def append(self, result: RunResult) -> None:
        """Write the run's row and see it onto the disk."""
        line = json.dumps(result.to_row(), allow_nan=False).encode() + b"\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "runs.lock"), self.file.open("a+b") as file:
            file.seek(0)
            complete = file.read().rfind(b"\n") + 1
            file.truncate(complete)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def exclusive(self, spec: RunSpec) -> Iterator[None]:
        """Keep ``spec`` to this process; another one that asks for it waits."""
        self._running.mkdir(parents=True, exist_ok=True)
        with FileLock(self._running / f"{spec.key}.lock"):
            yield

    @contextmanager
    def lease(self, spec: RunSpec, case: str) -> Iterator[None]:
        """Say that this worker is at ``spec``, as long as it is.

        ``case`` is what record_crash returns should this process die.
        """
        file = self._running / f"{self.worker}.json"
        self._lease = {"spec": spec.to_dict(), "case": case, "device": self.device, "epochs": []}
        write_atomic(file, json.dumps(self._lease))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def note_epoch(self, epoch: Epoch) -> None:
        """Let others see that the run which this process is at has finished an epoch."""
        self._lease["epochs"].append(dataclasses.asdict(epoch))
        write_atomic(self._running / f"{self.worker}.json", json.dumps(self._lease))

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
                    spec=RunSpec(**running["spec"]),
                    epochs=tuple(Epoch(**epoch) for epoch in running["epochs"]),
                )
            )
        return runs

    def reopen(self, is_current: Callable[[RunResult], bool]) -> None:
        """Make a session that was interrupted ready to go on.

        Rows of runs that another attempt may end better are dropped, and those that ``is_current``
        refuses, as a network or recipe has changed since; so is what a dead worker left.
        """
        shutil.rmtree(self._running, ignore_errors=True)
        kept = [
            result
            for result in self.results().values()
            if result.status in ("ok", "diverged") and is_current(result)
        ]
        rows = "".join(f"{json.dumps(result.to_row())}\n" for result in kept)
        write_atomic(self.file, rows)
        self._known, self._read_to, self._lines = {}, 0, 0

    def close(self, *, finished: bool = True) -> None:
        """Remove the locks and leases of a session that has ended; the rows stay.

        So do the checkpoints of one that was interrupted.
        """
        shutil.rmtree(self._running, ignore_errors=True)
        (self.folder / "runs.lock").unlink(missing_ok=True)
        if finished:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def record_crash(self, worker: str) -> str | None:
        """Store what ``worker`` was training when it died as crashed; return its case's id."""
        lease = self._running / f"{worker}.json"
        try:
            running = json.loads(lease.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        message = f"the process of worker {worker} died while it trained this run"
        ended = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        spec = RunSpec(**running["spec"])
        self.append(RunResult(spec, "crashed", message, worker=worker, ended=ended))
        lease.unlink(missing_ok=True)
        return str(running["case"])
