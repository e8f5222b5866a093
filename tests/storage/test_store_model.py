"""The store and the slots of workers beside models of them, whatever happens in which order."""

import dataclasses
import itertools
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from normbench import locks
from normbench.engine.devices import WorkerSlots
from normbench.results import UNFINISHED, Epoch, RunResult, Status
from normbench.spec import RunSpec
from normbench.storage import runs as stored_runs
from normbench.storage.runs import RunStore

from ..mutated import mutated_often

SPECS = st.integers(0, 4).map(RunSpec("digits", "digits", "batch", epochs=2).with_seed)
STATUSES = st.sampled_from(("ok", "diverged", "error", "stalled"))
EPOCH = Epoch(1, 0.1, 1.0, 0.6, 0.8, 0.9, 2.0, 0.5)


class Store(RuleBasedStateMachine):
    """Two workers write rows and die; a controller reads, tells of crashes, and resumes."""

    locks_work = True

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.ticks = itertools.count()
        clock = SimpleNamespace(strftime=lambda *_: self._now(), gmtime=time.gmtime)
        self.patched = ExitStack()
        self.patched.enter_context(mock.patch.object(stored_runs, "time", clock))
        for module in (stored_runs, locks):
            patch = mock.patch.object(module, "locks_work", return_value=self.locks_work)
            self.patched.enter_context(patch)
        self.workers = [RunStore(self.folder, f"gw{number}") for number in range(2)]
        self.controller = RunStore(self.folder)
        self.rows: dict[str, RunResult] = {}
        self.at: dict[int, tuple[RunSpec, int, ExitStack]] = {}

    def _now(self) -> str:
        return f"{next(self.ticks):09}"

    def teardown(self) -> None:
        for *_, leases in self.at.values():
            leases.close()
        self.patched.close()
        shutil.rmtree(self.folder)

    def _stored(self, run: RunResult) -> None:
        self.rows.pop(run.spec.key, None)
        self.rows[run.spec.key] = run

    @rule(worker=st.integers(0, 1), spec=SPECS)
    def take_up(self, worker: int, spec: RunSpec) -> None:
        if worker in self.at or any(spec == taken for taken, *_ in self.at.values()):
            return
        leases = ExitStack()
        leases.enter_context(self.workers[worker].exclusive(spec))
        leases.enter_context(self.workers[worker].lease(spec, f"case-{spec.seed}"))
        self.at[worker] = (spec, 0, leases)

    @rule(worker=st.integers(0, 1))
    def end_an_epoch(self, worker: int) -> None:
        if worker in self.at and self.at[worker][1] < 2:
            spec, epochs, leases = self.at[worker]
            self.workers[worker].note_epoch(dataclasses.replace(EPOCH, epoch=epochs + 1))
            self.at[worker] = (spec, epochs + 1, leases)

    @rule(worker=st.integers(0, 1), status=STATUSES)
    def end_a_run(self, worker: int, status: Status) -> None:
        if worker in self.at:
            spec, _, leases = self.at.pop(worker)
            run = RunResult(spec, status, epochs=(EPOCH,), ended=self._now())
            self.workers[worker].append(run)
            leases.close()
            self._stored(run)

    @rule(worker=st.integers(0, 1), half_a_row=st.booleans())
    def die(self, worker: int, half_a_row: bool) -> None:
        """Kill a worker: its locks go, its lease and half of a row that it was writing stay."""
        if worker not in self.at:
            return
        spec, epochs, leases = self.at.pop(worker)
        lease = self.folder / "running" / f"gw{worker}.json"
        left = lease.read_bytes()
        leases.close()
        lease.write_bytes(left)
        if half_a_row:
            rows = "runs.jsonl" if self.locks_work else f"runs-gw{worker}.jsonl"
            with (self.folder / rows).open("ab") as file:
                file.write(b'{"key": "0123456789abcdef", "schema"')
        assert self.controller.record_crash(f"gw{worker}") == f"case-{spec.seed}"
        known = self.rows.get(spec.key)
        if known is None or known.status in UNFINISHED:
            crashed = self.controller.find(spec)
            assert crashed is not None
            assert (crashed.status, len(crashed.epochs)) == ("crashed", epochs)
            self._stored(crashed)
        self.workers[worker] = RunStore(self.folder, f"gw{worker}")

    @precondition(lambda self: not self.at)
    @rule(outdated=st.sets(st.integers(0, 4)))
    def resume(self, outdated: set[int]) -> None:
        ended = {key: run for key, run in self.rows.items() if run.status not in UNFINISHED}
        self.rows = {key: run for key, run in ended.items() if run.spec.seed not in outdated}
        self.controller = RunStore(self.folder)
        dropped = self.controller.reopen(lambda run: run.spec.seed not in outdated)
        assert dropped == len(ended) - len(self.rows)
        self.workers = [RunStore(self.folder, f"gw{number}") for number in range(2)]

    @precondition(lambda self: not self.at)
    @rule()
    def close(self) -> None:
        """End the session: whoever reads it has one file."""
        self.controller.close()
        left = [file.name for file in self.folder.glob("runs*.jsonl")]
        assert left == ["runs.jsonl"] or not (left or self.rows)
        self.controller = RunStore(self.folder)
        self.workers = [RunStore(self.folder, f"gw{number}") for number in range(2)]

    @invariant()
    def every_process_reads_the_same_rows_in_the_order_of_their_ends(self) -> None:
        for store in (self.controller, *self.workers, RunStore(self.folder)):
            assert list(store.results().values()) == list(self.rows.values())

    @invariant()
    def what_runs_is_what_was_taken_up(self) -> None:
        running = {run.worker: (run.spec, len(run.epochs)) for run in self.controller.running()}
        assert running == {f"gw{at}": taken[:2] for at, taken in self.at.items()}


class LocklessStore(Store):
    """The same on a file system whose locks do not work: each writes a file of its own."""

    locks_work = False


class Slots(RuleBasedStateMachine):
    """Workers come, die, and are replaced by others of new names."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = WorkerSlots()
        self.taken: dict[str, int] = {}
        self.born = 0

    @rule()
    def come(self) -> None:
        free = min(set(range(len(self.taken) + 1)) - set(self.taken.values()))
        name = f"gw{self.born}"
        self.born += 1
        assert self.slots.assign(name) == free
        self.taken[name] = free

    @rule(number=st.integers(0, 20))
    def go(self, number: int) -> None:
        name = f"gw{number}"
        self.slots.release(name)
        self.taken.pop(name, None)

    @invariant()
    def no_two_share_one(self) -> None:
        assert self.slots.assigned == self.taken
        assert len(set(self.taken.values())) == len(self.taken)


TestStore = Store.TestCase
TestStore.settings = mutated_often
TestLocklessStore = LocklessStore.TestCase
TestLocklessStore.settings = mutated_often
TestSlots = Slots.TestCase
TestSlots.settings = mutated_often
