"""Rows of earlier sessions, for cases whose training would come out the same."""

import dataclasses
import functools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from normbench.analysis.traces import same_training
from normbench.cases.case import Case
from normbench.check.trace_record import GROUND, Trace, case_trace_spec
from normbench.results import CaseVerdict, RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore
from normbench.storage.session import SessionError, read_session
from normbench.storage.traces import has_case_traces, read_case_trace

# What of the ground a trace was taken on has to be equal, by what --bench-replay says. Builds of
# torch often train the same to the bit: docs/replay.md has how often.
GROUNDS = {"same": GROUND, "trace": tuple(name for name in GROUND if name != "torch")}

# Of a case of an earlier session; None is of one that was killed before it gave verdicts.
TAKEN = (
    None,
    CaseVerdict.PASSED,
    CaseVerdict.MEASURED,
    CaseVerdict.MARGINAL,
    CaseVerdict.UNCHANGED,
)


class AuditFailed(AssertionError):
    """A run that was trained again and did not come out as its stored row."""


class Replay:
    """Finds rows that can be taken for a session's runs in place of training them.

    ``sources`` are the folders of sessions, those to be asked first at the beginning. A row is
    taken where the case's trace is equal to the bit to the one that was taken beside it, on equal
    ground: machine, number of threads, device, code, network with recipe, and, of the ``mode``
    ``same``, torch build.
    """

    def __init__(self, sources: Sequence[Path], mode: str = "same") -> None:
        self.sources = sources
        self.ground = GROUNDS[mode]
        self._verdicts = functools.cache(_verdicts_of)
        self._store = functools.cache(RunStore)

    @classmethod
    def of(cls, results: Path, own: Path, mode: str, given: Sequence[str] = ()) -> "Replay":
        """Ask the sessions in ``results``, the newest first, then the folders among ``given``.

        ``own`` is the folder of the session that asks.
        """
        newest = sorted((results / "runs").glob("*"), reverse=True)
        folders = dict.fromkeys((*newest, *filter(Path.is_dir, map(Path, given))))
        kept = [each for each in folders if each.resolve() != own.resolve()]
        return cls([each for each in kept if has_case_traces(each)], mode)

    def rows(self, trace: Trace, case: Case) -> dict[str, RunResult]:
        """Return the case's runs by their specs' keys, where each can be taken; else nothing.

        The newest session with an equal trace decides: where the case has failed there, it is to be
        trained.
        """
        for folder, then in self._traces(trace.spec):
            if not self._is_equal(trace, then):
                continue
            runs = self._runs(folder, case, then)
            if runs is not None:
                return runs
        return {}

    def _traces(self, spec: RunSpec) -> Iterator[tuple[Path, Trace]]:
        for folder in self.sources:
            try:
                found = read_case_trace(folder, spec)
            except ValueError:
                # one that was damaged tells nothing
                continue
            if found is not None:
                yield folder, found

    def _is_equal(self, now: Trace, then: Trace) -> bool:
        on_equal_ground = all(now.ground[name] == then.ground[name] for name in self.ground)
        return on_equal_ground and same_training(now, then)

    def _runs(self, folder: Path, case: Case, then: Trace) -> dict[str, RunResult] | None:
        """Return a session's runs of a case, nothing if it failed there; None if one is missing.

        A run that ended badly or as no audit should tells so even where its session was killed
        before it gave verdicts.
        """
        verdicts = self._verdicts(folder)
        if verdicts is None:
            return None
        if verdicts.get(case.id) not in TAKEN:
            return {}
        found = {}
        for spec in case.specs:
            try:
                run = self._store(folder).find(spec)
            except (OSError, ValueError):
                return None
            if run is None or not _of_the_trace(run, then):
                return {} if run is not None and _went_wrong(run) else None
            since = run.replayed or folder.name
            found[spec.key] = dataclasses.replace(run, replayed=since, audits="", message="")
        return found

    def seconds(self, case: Case) -> float | None:
        """Return what training the case took in the newest session that has a trace of it."""
        for folder, then in self._traces(case_trace_spec(case.spec)):
            if runs := self._runs(folder, case, then):
                return sum(run.train_seconds + run.test_seconds for run in runs.values())
        return None

    def audited(self, cases: Sequence[Case], seconds: float, draw: str) -> frozenset[str]:
        """Draw cases that are trained all the same, as many as fit into ``seconds``, by their ids.

        Every process that is given the same cases and the same text to ``draw`` by draws the same.
        """
        order = sorted(cases, key=lambda case: case.id)
        random.Random(draw).shuffle(order)
        left, drawn = seconds, []
        for case in order:
            cost = self.seconds(case)
            if cost is not None and cost <= left:
                left -= cost
                drawn.append(case.id)
        return frozenset(drawn)


def _verdicts_of(folder: Path) -> dict[str, CaseVerdict | None] | None:
    """Return a session's verdicts by its cases' ids; None where its rows must not be taken."""
    try:
        session = read_session(folder)
    except SessionError:
        return None
    if session.planted:
        return None
    return {stored.case.id: stored.verdict for stored in session.document.cases}


def _went_wrong(run: RunResult) -> bool:
    """Tell whether a run came to a bad end, or was an audit and differs from its stored row."""
    return run.status != "ok" or bool(run.audits and run.message)


def _of_the_trace(run: RunResult, trace: Trace) -> bool:
    """Tell whether a run ended well, by the code and where its case was traced."""
    then = (trace.ground["torch"], trace.ground["threads"], trace.ground["code"])
    prints = run.fingerprint == trace.ground["fingerprint"]
    trained_so = (run.torch, str(run.threads), run.code) == then
    # a session that is resumed where a GPU has come or gone goes on with the traces that it has
    on_cpu = (trace.ground["device"] == "cpu") == (run.device == "cpu")
    return not _went_wrong(run) and not run.planted and prints and trained_so and on_cpu


def difference(now: RunResult, before: RunResult) -> str:
    """Say where two runs of one spec first differ, seconds and places aside; "" where they do not.

    It compares all that a row keeps of training and evaluation.
    """
    one, other = now.decided, before.decided
    for epoch, (new, old) in enumerate(zip(one["epochs"], other["epochs"], strict=False), start=1):
        for name, value in new.items():
            if value != old[name]:
                return f"{name} after epoch {epoch} is {value!r}, and was {old[name]!r}"
    if len(now.epochs) != len(before.epochs):
        return f"it has {len(now.epochs)} epochs, and had {len(before.epochs)}"
    return next((f"{name} differs" for name in one if one[name] != other[name]), "")
