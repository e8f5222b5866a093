"""Runs as tasks of Ray, on one machine or many: handed out, and collected as they end.

The session is led, and its tests are run, in this process; what they wait for is trained elsewhere.
Nodes need no file of this machine's: images are sent along, and rows come back.

Ray comes with the extra ``ray``: ``pip install 'normbench[ray]'``.
"""

import dataclasses
import os
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from normbench.engine.costs import estimated_seconds
from normbench.engine.options import Options, Share
from normbench.engine.runner import Runner
from normbench.results import UNFINISHED, Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunningRun, RunStore
from normbench.training.data import ImageData, load_dataset
from normbench.training.datasets import (
    Dataset,
    DatasetUnavailable,
    find_dataset,
    is_own,
    note_dataset,
)
from normbench.training.trainer import train

# How often a run is begun anew whose node or process died, before it counts as crashed.
RETRIES = 2
POLL_SECONDS = 0.5
# What an answer of the cluster may take while tests run on.
ANSWER_SECONDS = 10.0


class ClusterUnusable(ValueError):
    """A cluster that cannot be reached, or none of whose nodes can take a run."""


class Board:
    """What goes on in the cluster: an actor that runs tell of their epochs."""

    def __init__(self) -> None:
        self._running: dict[str, RunningRun] = {}

    def note(self, run: RunningRun) -> None:
        self._running[run.spec.key] = run

    def forget(self, spec: RunSpec) -> None:
        self._running.pop(spec.key, None)

    def running(self) -> list[RunningRun]:
        return list(self._running.values())


@dataclass(frozen=True)
class SentData:
    """A data set as it is sent: once to a node, whose processes share it."""

    fields: Mapping[str, Any]
    facts: Dataset | None

    @classmethod
    def of(cls, data: ImageData) -> "SentData":
        fields = {name: getattr(data, name) for name in data.__dataclass_fields__}
        arrays = {n: v.numpy() if isinstance(v, torch.Tensor) else v for n, v in fields.items()}
        return cls(arrays, find_dataset(data.name) if is_own(data.name) else None)

    def unpacked(self) -> ImageData:
        """Return the data set, and have this process know its facts; nobody may write to it."""
        if self.facts is not None:
            note_dataset(self.fields["name"], self.facts)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            fields: dict[str, Any] = {
                name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                for name, value in self.fields.items()
            }
        return ImageData(**fields)


def train_here(options: Options, spec: RunSpec, case: str, sent: SentData, board: Any) -> RunResult:
    """Train on the node that this is run on, and return the row, however the run has ended.

    Raises what kept even a row of an error from being made.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}"
    torch.set_num_threads(options.share.cpus)
    data = sent.unpacked()

    def told(
        spec: RunSpec,
        data: ImageData,
        device: torch.device,
        note: Callable[[Epoch], None],
        checkpoint: Path | None,
    ) -> RunResult:
        running = RunningRun(worker, str(device), case, spec, ())
        board.note.remote(running)

        def noted(epoch: Epoch) -> None:
            nonlocal running
            note(epoch)
            running = dataclasses.replace(running, epochs=(*running.epochs, epoch))
            board.note.remote(running)

        return train(spec, data, device, noted, checkpoint)

    with tempfile.TemporaryDirectory(prefix="normbench-") as folder:
        runner = Runner(
            options, Path(folder), train=told, load=lambda _name, _root, device: data.to(device)
        )
        try:
            row = runner.run(spec)
        except (Exception, SystemExit):
            stored = runner.store.find(spec)
            if stored is None:
                raise
            row = stored
    return dataclasses.replace(row, worker=worker)


class Cluster:
    """Has the runs of a session trained by Ray, and stores their rows as they end.

    ``slots`` is how many runs the cluster takes at once. Raises ClusterUnusable.
    """

    def __init__(self, options: Options) -> None:
        self._data_root = options.data
        share = options.share
        device = "cuda" if share.gpus else "cpu"
        # what a run stands beside is the session's matter
        self._options = dataclasses.replace(options, baselines=(), device=device)
        self.slots = _joined(options.ray_address, share)
        self._board: Any = ray.remote(Board).options(num_cpus=0, max_restarts=-1).remote()
        # cores are asked for by their number, and a GPU by the part of it
        self._train = ray.remote(train_here).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_retries=RETRIES
        )
        self._sent: dict[str, Any] = {}
        self._tasks: dict[Any, RunSpec] = {}
        self._begun: set[str] = set()
        self._rows: dict[str, RunResult] = {}
        self._told: dict[str, RunningRun] = {}
        self._failed: Exception | None = None
        self._over = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, folder: Path, is_current: Callable[[RunResult], bool]) -> None:
        """Store rows in a session's folder from now on, beside those that are there.

        ``is_current`` says whether a row is what this machine's code and data come to.
        """
        self._is_current = is_current
        self._store = RunStore(folder, "ray")
        self._rows = self._store.results()
        self._thread = threading.Thread(target=self._collect, name="normbench-ray", daemon=True)
        self._thread.start()

    def hand_out(self, runs: Mapping[RunSpec, str]) -> None:
        """Have runs trained that nobody has trained or begun, the longest first.

        Of each, the id of the case is told that asks for it. Where there are no data, nothing is
        begun: the test that asks for it says so.
        """
        for spec in sorted(runs, key=estimated_seconds, reverse=True):
            with suppress(DatasetUnavailable):
                self._hand_out(spec, runs[spec], before=None)

    def _hand_out(self, spec: RunSpec, case: str, before: RunResult | None) -> None:
        """Begin a run, unless it was begun, or there is another row of it than ``before``."""
        if spec.dataset not in self._sent:
            data = load_dataset(spec.dataset, self._data_root, torch.device("cpu"))
            self._sent[spec.dataset] = ray.put(SentData.of(data))
        with self._changed:
            if spec.key in self._begun or self._rows.get(spec.key) != before:
                return
            task = self._train.remote(
                self._options, spec, case, self._sent[spec.dataset], self._board
            )
            self._tasks[task] = spec
            self._begun.add(spec.key)

    def run(self, spec: RunSpec, case: str, before: RunResult | None) -> RunResult:
        """Return the run's row, which is another one than ``before``; waits for it.

        Raises RunNotStored where it cannot be stored, DatasetUnavailable and DatasetDamaged.
        """
        self._hand_out(spec, case, before)
        with self._changed:
            while self._failed is None and self._rows.get(spec.key) in (None, before):
                # by and by, so that Ctrl-C is heard
                self._changed.wait(POLL_SECONDS)
            if self._failed is not None:
                raise self._failed
            return self._rows[spec.key]

    def _collect(self) -> None:
        """Store each row as it comes, until the session is over."""
        while not self._over:
            with self._changed:
                tasks = list(self._tasks)
                if not tasks:
                    self._changed.wait(POLL_SECONDS)
                    continue
            try:
                ended, _ = ray.wait(tasks, num_returns=len(tasks), timeout=POLL_SECONDS)
                for task in ended:
                    self._take(task)
                self._tell_running()
            except Exception as error:  # the tests that wait are told, each of them
                with self._changed:
                    self._failed = error
                    self._changed.notify_all()
                return

    def _take(self, task: Any) -> None:
        spec = self._tasks[task]
        row = self._row(task, spec)
        self._store.append(row)
        self._board.forget.remote(spec)
        with self._changed:
            del self._tasks[task]
            self._begun.discard(spec.key)
            self._rows[spec.key] = row
            self._changed.notify_all()

    def _row(self, task: Any, spec: RunSpec) -> RunResult:
        """Return what came of a task; what it has not told itself is told for it."""
        try:
            row: RunResult = ray.get(task)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            return RunResult(spec, "error", f"{type(cause).__name__}: {cause}")
        except RayError as error:
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            died = f"the process or the node died that trained this run, {1 + RETRIES} times"
            return RunResult(spec, "crashed", f"{died}: {first}")
        if row.status in UNFINISHED or self._is_current(row):
            return row
        return RunResult(
            spec,
            "error",
            f"{row.worker} trained it by other code, a network, recipe or packages other than this "
            "machine's; expected the same on all nodes: install the same there",
            worker=row.worker,
        )

    def _tell_running(self) -> None:
        """Let the progress of the session see what all nodes are at."""
        try:
            running = ray.get(self._board.running.remote(), timeout=ANSWER_SECONDS)
        except RayError:
            return  # it has died with its node, and is begun anew
        now = {run.worker: run for run in running}
        for worker, run in now.items():
            # most have not ended an epoch since the last look
            if self._told.get(worker) != run:
                self._store.note_running(run)
        for gone in self._told.keys() - now.keys():
            self._store.forget_running(gone)
        self._told = now

    def close(self) -> None:
        """Give up what was not waited for, and leave the cluster."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        # of a cluster that is gone there is nothing to give up
        with suppress(RayError):
            for task in self._tasks:
                ray.cancel(task, force=True)
        for worker in self._told:
            self._store.forget_running(worker)
        ray.shutdown()


def _joined(address: str | None, share: Share) -> int:
    """Join the cluster, or begin one of this machine alone; return how many runs it takes at once.

    Raises ClusterUnusable.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address in (None, "local"):
            ray.init(address=address, include_dashboard=False, **quiet)
        else:
            _require_answer(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterUnusable(
            f"--bench-engine ray: cannot join the cluster {address or ''}: {error}; expected one "
            "that runs: begin it with `ray start --head`, or leave out --bench-ray-address for "
            "this machine alone"
        ) from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(_fitting(node, share) for node in nodes)
    if not slots:
        ray.shutdown()
        most = {name: max(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise ClusterUnusable(
            f"no node of Ray's cluster can take a run: one is given {share.cpus} cores and "
            f"{share.gpus:g} of a GPU, and the largest node has {most['CPU']:g} cores and "
            f"{most['GPU']:g} GPUs; choose less by --bench-ray-cpus and --bench-ray-gpus"
        )
    return slots


def _require_answer(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def _fitting(node: Mapping[str, float], share: Share) -> int:
    """Return how many runs a node takes at once."""
    by_cores = node.get("CPU", 0) // share.cpus
    by_gpus = node.get("GPU", 0) / share.gpus if share.gpus else by_cores
    return int(min(by_cores, by_gpus + 1e-9))
