"""The session's runs: each spec trained once, each finished row on disk at once."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.session import write_atomic
from normbench.training.recipes import fingerprint


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
        self._claim: dict[str, Any] = {}
        self._known: dict[str, RunResult] = {}
        self._read_to = 0

    def results(self) -> dict[str, RunResult]:
        """Return the stored runs by their spec's key, in the order in which they ended."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self._read_to)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read_to += len(line)
                    result = RunResult.from_row(json.loads(line))
                    self._known[result.spec.key] = result
        return dict(self._known)

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

    def get_or_train(
        self, spec: RunSpec, train: Callable[[RunSpec], RunResult], case: str = ""
    ) -> RunResult:
        """Return the stored run of ``spec``, training and storing it where there is none.

        ``case`` is what record_crash returns should this process die. An exception of ``train``
        is stored as a run of status ``error`` and passed on.
        """
        if (known := self.find(spec)) is not None:
            return known
        self._running.mkdir(parents=True, exist_ok=True)
        with FileLock(self._running / f"{spec.key}.lock"):
            if (known := self.find(spec)) is not None:
                return known
            claim = self._running / f"{self.worker}.json"
            self._claim = {"spec": spec.to_dict(), "case": case, "device": self.device}
            self._claim["epochs"] = []
            write_atomic(claim, json.dumps(self._claim))
            try:
                result = train(spec)
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                self.append(RunResult(spec, "error", message, worker=self.worker))
                raise
            else:
                self.append(result)
                return result
            finally:
                claim.unlink(missing_ok=True)

    def note_epoch(self, epoch: Epoch) -> None:
        """Let others see that the run which this process is at has finished an epoch."""
        self._claim["epochs"].append(dataclasses.asdict(epoch))
        write_atomic(self._running / f"{self.worker}.json", json.dumps(self._claim))

    def running(self) -> list[RunningRun]:
        """Return what all workers are at, by worker."""
        runs = []
        for claim in sorted(self._running.glob("*.json")):
            try:
                running = json.loads(claim.read_text())
            except FileNotFoundError:
                continue  # ended since it was listed
            runs.append(
                RunningRun(
                    worker=claim.stem,
                    device=running["device"],
                    case=running["case"],
                    spec=RunSpec(**running["spec"]),
                    epochs=tuple(Epoch(**epoch) for epoch in running["epochs"]),
                )
            )
        return runs

    def reopen(self) -> None:
        """Make a session that was interrupted ready to go on.

        Rows of runs that another attempt may end better, and of networks or recipes that have
        changed since, are dropped; so is what a dead worker claimed to be at.
        """
        shutil.rmtree(self._running, ignore_errors=True)
        kept = [
            result
            for result in self.results().values()
            if result.status in ("ok", "diverged")
            and result.fingerprint == fingerprint(result.spec.network, result.spec.recipe)
        ]
        rows = "".join(f"{json.dumps(result.to_row())}\n" for result in kept)
        write_atomic(self.file, rows)
        self._known, self._read_to = {}, 0

    def close(self, *, finished: bool = True) -> None:
        """Remove the locks and claims of a session that has ended; the rows stay.

        So do the checkpoints of one that was interrupted.
        """
        shutil.rmtree(self._running, ignore_errors=True)
        (self.folder / "runs.lock").unlink(missing_ok=True)
        if finished:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def record_crash(self, worker: str) -> str | None:
        """Store what ``worker`` was training when it died as crashed; return its case's id."""
        claim = self._running / f"{worker}.json"
        try:
            running = json.loads(claim.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        message = f"the process of worker {worker} died while it trained this run"
        ended = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        spec = RunSpec(**running["spec"])
        self.append(RunResult(spec, "crashed", message, worker=worker, ended=ended))
        claim.unlink(missing_ok=True)
        return str(running["case"])
