"""Runs in this process: each spec trained once in a session, whoever asks first."""

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NoReturn, Protocol

import torch

from normbench.analysis.claims import ClaimResult, judge
from normbench.analysis.comparison import CaseComparison, Reference, unchanged
from normbench.analysis.looks import goes_on, planned_looks
from normbench.analysis.statistics import UNKNOWN
from normbench.analysis.traces import TraceStanding, beside
from normbench.cases.case import Case, Claim, MeansCount
from normbench.check.conformance import CHECKS
from normbench.check.properties import Checked
from normbench.check.statistics import means_computed
from normbench.check.trace import take_case_trace, take_trace
from normbench.check.trace_record import Trace, Traced, case_trace_spec
from normbench.engine.devices import parse_device, tune_malloc
from normbench.engine.options import Options
from normbench.engine.replay import AuditFailed, Replay, difference
from normbench.engine.watchdog import EXIT_CODE, RunStalled, Watchdog
from normbench.results import UNFINISHED, Epoch, Outcome, RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.baseline import BaselineCase, find_baseline
from normbench.storage.checks import store_check
from normbench.storage.environment import processor_kind
from normbench.storage.runs import RunStore
from normbench.storage.traces import has_case_trace, store_case_trace, store_trace
from normbench.training.data import ImageData, load_dataset
from normbench.training.trainer import train

# What the one process is called that both collects and runs, without xdist.
MAIN = "main"

Train = Callable[
    [RunSpec, ImageData, torch.device, Callable[[Epoch], None], Path | None], RunResult
]

Load = Callable[[str, Path, torch.device], ImageData]


class Elsewhere(Protocol):
    """What has runs trained by others than this process."""

    def hand_out(self, runs: Mapping[RunSpec, str]) -> None:
        """Have runs trained that nobody has begun; of each, the id of its case is told."""

    def run(self, spec: RunSpec, case: str, before: RunResult | None) -> RunResult:
        """Return the stored run once there is another one than ``before``."""


def leaves_unfit(error: BaseException) -> bool:
    """Tell whether a process in which a run has ended so is of no use to other runs.

    What a norm has hoarded stays its own, and after an error on a GPU each call there fails.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)):
        return True
    told = ("DefaultCPUAllocator", "CUDA error", "cuDNN error")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in told)


def devices_of(options: Options) -> tuple[str, ...]:
    """Return the devices that runs go to; raises ValueError for one that is not there."""
    return parse_device(options.device, torch.cuda.device_count())


def reference_of(options: Options) -> Reference | None:
    """Return what the session is held against; raises BaselineError where it cannot be had."""
    if not options.baselines:
        return None
    baselines = [find_baseline(text, options.reference) for text in options.baselines]
    return Reference(baselines, options.minimum_effect)


def replay_of(options: Options, own: Path) -> Replay | None:
    """Return what finds rows to take for the runs of the session in the folder ``own``."""
    if options.replay is None:
        return None
    return Replay.of(options.results, own, options.replay, options.baselines)


def found_means(claim: Claim) -> dict[MeansCount, int]:
    """Count the means that the norms of the claim compute, by what is claimed."""
    return {
        count: means_computed(count.norm, count.images, count.channels) for count in claim.counts
    }


class Runner:
    """Trains in this process, on one device, what nobody in the session has trained.

    Where there is an ``elsewhere``, that has it trained instead.

    ``folder`` is the session's; ``slot`` is this worker's number among those that run now, which
    decides on its device; ``threads`` is the share of cores of a worker, unless the environment
    sets OMP_NUM_THREADS; ``cases`` are the session's, which share the error of its verdicts. While
    it ``tries_again``, as for a test that is rerun, it trains what crashed, stalled or raised once
    more; what came to an end stays. Raises ValueError for a device or a baseline that cannot be
    had.
    """

    def __init__(
        self,
        options: Options,
        folder: Path,
        *,
        worker: str = MAIN,
        slot: int = 0,
        threads: int | None = None,
        cases: Sequence[Case] = (),
        train: Train = train,
        load: Load = load_dataset,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.options = options
        devices = devices_of(options)
        self.device = torch.device(devices[slot % len(devices)])
        self.planted = options.plant or ""
        self.store = RunStore(folder, worker, str(self.device), self.planted)
        self.cases = cases
        self.tries_again = False
        self._train, self._load = train, load
        self._elsewhere = elsewhere
        self._reference = reference_of(options)
        self._replay = replay_of(options, folder)
        self._replayed: dict[str, Mapping[str, RunResult]] = {}
        self._audits: dict[str, RunResult] = {}
        if threads is not None and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(threads)
        tune_malloc()

    def run(self, spec: RunSpec, case: Case | None = None) -> RunResult:
        """Return the session's run of ``spec``, training and storing it if nobody has.

        Of a ``case`` that would come out as in an earlier session, that one's row is stored. An
        exception of the training is stored as a run of status ``error`` and passed on. Raises
        DatasetUnavailable and DatasetDamaged, RunNotStored, and AuditFailed.
        """
        result = self._run(spec, case)
        if result.audits and result.message:
            raise AuditFailed(f"{spec}: {result.message}")
        return result

    def _run(self, spec: RunSpec, case: Case | None) -> RunResult:
        data = self._load(spec.dataset, self.options.data, self.device)
        before = self.store.find(spec)
        if before is not None and not (self.tries_again and before.status in UNFINISHED):
            return before
        if self._elsewhere is not None:
            return self._elsewhere.run(spec, case.id if case else "", before)
        with self.store.exclusive(spec):
            known = self.store.find(spec)
            # also where somebody else has tried it again meanwhile
            if known is not None and known != before:
                return known
            with self.store.lease(spec, case.id if case else ""):
                taken = self._taken(case, data) if case else {}
                if spec.key in taken:
                    return self._append(taken[spec.key])
                return self._trained(spec, data)

    def _taken(self, case: Case, data: ImageData) -> Mapping[str, RunResult]:
        """Return the rows that are taken for the case's runs by their specs' keys: all, or none."""
        if self._replay is None:
            return {}
        if case.id not in self._replayed:
            rows = self._found(self._replay, case, data)
            if rows and case.id in self._audited:
                self._audits |= rows
                rows = {}
            self._replayed[case.id] = rows
        return self._replayed[case.id]

    def _found(self, replay: Replay, case: Case, data: ImageData) -> Mapping[str, RunResult]:
        """Return the rows that could be taken for the case; traces it, for later sessions as well.

        A case below its target, or that looks worse than the baseline, is trained: what is red
        rests on runs of its own session.
        """
        spec = case_trace_spec(case.spec)
        begun = [run for run in map(self.store.find, case.specs) if run is not None]
        if not all(run.replayed for run in begun):
            return {}
        try:
            trace = take_case_trace(Traced(case.id, spec), self._machine, data, self.device)
        # whatever a user's norm raises: training raises it again, and tells of it
        except (Exception, SystemExit):
            return {}
        # what there is already may be another machine's, which was interrupted
        half_done = any(self.store.checkpoint(each).is_file() for each in case.specs)
        if not (begun or half_done or has_case_trace(self.store.folder, spec)):
            store_case_trace(self.store.folder, trace)
        rows = replay.rows(trace, case)
        if not rows:
            return {}
        runs = Runs(tuple(rows.values()))
        # a short trace sees a part of the data
        if any(run.data and data.content and run.data != data.content for run in runs):
            return {}
        compared = self._compared(runs.results)
        looks_worse = compared and compared.outcome in (Outcome.REGRESSION, Outcome.SUSPECTED)
        return {} if looks_worse or runs.test_accuracy <= self._highest_target(case) else rows

    def _highest_target(self, case: Case) -> float:
        """Return the highest target of the session's cases that ask for the case's runs."""
        configuration = case.spec.with_seed(0)
        same = (c.target for c in self.cases if c.spec.with_seed(0) == configuration)
        return max((case.target, *same))

    @cached_property
    def _audited(self) -> frozenset[str]:
        if self._replay is None or not self.options.replay_audit:
            return frozenset()
        seconds, draw = self.options.replay_audit, self.store.folder.name
        return self._replay.audited(self.cases, seconds, draw)

    @cached_property
    def _machine(self) -> str:
        return processor_kind()

    def _trained(self, spec: RunSpec, data: ImageData) -> RunResult:
        checkpoint = self.store.checkpoint(spec)
        try:
            result = self._watched(spec, data, checkpoint)
        except RunStalled as error:
            self._append(RunResult(spec, "stalled", str(error), epochs=self.store.noted))
            raise
        # a norm may raise SystemExit, and end no more than its own case
        except (Exception, SystemExit) as error:
            message = f"{type(error).__name__}: {error}"
            if leaves_unfit(error) and self.store.worker != MAIN:
                self._end_with(spec, message)
            self._append(RunResult(spec, "error", message, epochs=self.store.noted))
            raise
        result = self._append(self._held(result))
        # not earlier: until the row is stored, it is all that is left of the run
        with suppress(OSError):
            checkpoint.unlink(missing_ok=True)
        return result

    def _watched(self, spec: RunSpec, data: ImageData, checkpoint: Path) -> RunResult:
        """Train, with a watchdog beside; a process that a norm has forked ends here."""
        alone = self.store.worker == MAIN

        def last_words(told: str) -> None:
            if not alone:
                # the controller stores the row, and replaces this worker
                self.store.note_end("stalled", told)
                return
            self._append(RunResult(spec, "stalled", told, epochs=self.store.noted))
            sys.stderr.write(
                f"\nnormbench: {spec} stalled: {told}. It did not end when it was told to, so that "
                "the session ends; run it with -n 2, where a worker takes its place\n"
            )

        timeout = self.options.stall_timeout
        watchdog = Watchdog(
            timeout, self._stacks(spec), last_words, interrupts=alone, beats=self.store.beat
        )
        process = os.getpid()
        try:
            with watchdog.watching(spec) as note:

                def noted(epoch: Epoch) -> None:
                    note(epoch)
                    self.store.note_epoch(epoch)

                return self._train(spec, data, self.device, noted, checkpoint)
        finally:
            if os.getpid() != process:
                os._exit(EXIT_CODE)

    def _end_with(self, spec: RunSpec, message: str) -> NoReturn:
        """End this process with a run's error: the controller stores the row, and replaces it."""
        # pytest has no report of a process that ends
        with suppress(OSError):
            stacks = self._stacks(spec)
            stacks.parent.mkdir(exist_ok=True)
            stacks.write_text(traceback.format_exc(), encoding="utf-8")
            message += f"; where it was is in {stacks}"
        self.store.note_end("error", message)
        os._exit(EXIT_CODE)

    def _stacks(self, spec: RunSpec) -> Path:
        """Return the file that tells where a run was whose process had to be ended."""
        return self.store.folder / "stalls" / f"{spec.key}.txt"

    def _held(self, result: RunResult) -> RunResult:
        """Hold a run that is an audit against the row that it stands for; it notes a difference."""
        before = self._audits.get(result.spec.key)
        if before is None or result.status != "ok":
            return result
        differs = difference(result, before)
        told = (
            f"trained again, it differs from the row of the session {before.replayed}, though the "
            f"trace is equal: {differs}; expected them equal to the bit: training is not "
            "deterministic, or something has changed that a short trace does not show. Run without "
            "--bench-replay"
        )
        return dataclasses.replace(
            result, audits=before.replayed, message=told if differs else result.message
        )

    def _append(self, result: RunResult) -> RunResult:
        """Store a run with who has trained it, and with which fault planted; return it so."""
        result = dataclasses.replace(result, worker=self.store.worker, planted=self.planted)
        self.store.append(result)
        return result

    def run_case(self, case: Case) -> Runs:
        """Return the case's runs: those of its seeds, and further ones while its verdict is open.

        Raises what run raises.
        """
        runs: list[RunResult] = []
        compared = None
        sequential = self.options.grid.sequential
        for look in planned_looks(case.seeds, case.least, sequential, self._confirm):
            further = case.first_specs(look)[len(runs) :]
            if self._elsewhere is not None:
                self._elsewhere.hand_out(dict.fromkeys(further, case.id))
            runs += [self.run(spec, case) for spec in further]
            compared = self._compared(runs)
            accuracies = [run.test_accuracy for run in runs if run.status == "ok"]
            variance = self._reference.variance(case.spec) if self._reference else UNKNOWN
            added = sequential and look < case.seeds
            open_still = goes_on(compared, accuracies, case.target, variance, added)
            if len(accuracies) < len(runs) or not open_still:
                break
        found = Runs(tuple(runs), compared.outcome if compared else None)
        if found.unchanged and found.outcome is not None:
            return dataclasses.replace(found, outcome=unchanged(found.outcome))
        return found

    @property
    def _confirm(self) -> int:
        return self.options.confirm if self._reference else 0

    def _compared(self, runs: Sequence[RunResult]) -> CaseComparison | None:
        """Hold a case against the baselines, at its share of the session's level."""
        if self._reference is None:
            return None
        return self._reference.look(BaselineCase.of(runs[0].spec.with_seed(0), runs), self._family)

    @cached_property
    def _family(self) -> int:
        """How many cases share the level: those of the whole that the baselines have."""
        reference = self._reference
        known = [case for case in self.cases if reference and reference.baseline(case.spec)]
        return max(self.options.selection_size, len(known))

    def check(self, kind: str, name: str) -> Checked:
        """Return what a check of the norm, regularizer or network finds, once it is stored.

        Raises ValueError for another kind, and for a name that stands for none.
        """
        if kind not in CHECKS:
            raise ValueError(f"unknown kind {kind!r}: expected one of {', '.join(CHECKS)}")
        checked = dataclasses.replace(CHECKS[kind](name), planted=self.planted)
        store_check(self.store.folder, checked)
        return checked

    def trace(self, traced: Traced) -> Trace:
        """Return a trace once it is stored, and how it stands beside those of the baselines.

        A difference from a baseline's on the same ground breaks it.
        """
        trace = take_trace(traced, self._machine, device=self.device)
        for baseline in self._reference.baselines if self._reference else ():
            found = beside(trace, baseline.traces, baseline.name)
            if found is None:
                continue
            if found.standing is TraceStanding.EQUAL:
                trace = dataclasses.replace(trace, equal_to=(*trace.equal_to, baseline.name))
                continue
            trace = dataclasses.replace(trace, beside=(*trace.beside, found.told))
            if found.standing is TraceStanding.DIFFERENT:
                trace = dataclasses.replace(trace, broken=(found.told, *trace.broken))
        store_trace(self.store.folder, trace)
        return trace

    def judge(self, claim: Claim) -> ClaimResult:
        """Return what the runs say of the claim, training those that nobody has.

        Raises what run raises.
        """
        runs = [self.run(spec, case) for case in claim.cases for spec in case.specs[: claim.seeds]]
        return judge(claim, {run.spec.key: run for run in runs}, found_means(claim))
