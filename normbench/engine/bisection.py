"""The search along a line of revisions for the one that changed a case."""

import reprlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt

from normbench.analysis.bisection import (
    CONFIDENT,
    END_LOOKS,
    Difference,
    Halving,
    accuracy,
    blocks,
    change_probabilities,
    changes,
    credible,
    difference,
    drop,
    is_worse,
    most_probable,
    most_telling,
)
from normbench.analysis.statistics import Estimate
from normbench.engine.revision_runs import CannotRun
from normbench.engine.revisions import Revision
from normbench.results import UNFINISHED, RunResult
from normbench.training.datasets import find_dataset

# Takes a line of what has been done.
Tell = Callable[[str], None]


class Runs(Protocol):
    """The runs at revisions, as RevisionRuns has them."""

    def runs(self, revision: Revision, count: int) -> list[RunResult]: ...
    def again(self, revision: Revision) -> RunResult: ...


class CannotAsk(ValueError):
    """A question that the runs of the two ends do not allow."""


@dataclass(frozen=True)
class Change:
    """Two revisions, measured one after the other in the line, whose runs differ.

    Where they are not neighbours, those between could not be run, or needed not be.
    """

    before: int
    after: int
    difference: Difference


@dataclass(frozen=True)
class Bisected:
    """What a search came to; positions are those of the ``line``.

    ``candidates`` are the revisions one of which made the change: a single one where it was found.
    ``change`` is the evidence of a search by traces, and ``others`` what else changed on the way;
    ``accuracies`` by position, the positions that are ``alike`` to one of these, the accuracies on
    both ``sides`` of the change, the ``drop`` between them and the ``probability`` of the
    candidates are that of one by accuracy. ``skipped`` says why a revision could not be run.
    """

    line: Sequence[Revision]
    candidates: Sequence[int]
    steps: int
    seconds: float
    skipped: Mapping[int, str] = field(default_factory=dict)
    change: Change | None = None
    others: Sequence[Change] = ()
    accuracies: Mapping[int, Sequence[float]] = field(default_factory=dict)
    alike: Mapping[int, int] = field(default_factory=dict)
    sides: tuple[Sequence[float], Sequence[float]] = ((), ())
    drop: Estimate | None = None
    probability: float = 1.0

    @property
    def found(self) -> Revision | None:
        """The revision that made the change; None where several may have."""
        return self.line[self.candidates[0]] if len(self.candidates) == 1 else None

    @property
    def around(self) -> tuple[int, int]:
        """The positions that the change lies between, the last one being one of the candidates."""
        return self.candidates[0] - 1, self.candidates[-1]


class _Search:
    """What both kinds of a search have in common: its line, what is told, and what is skipped."""

    def __init__(self, line: Sequence[Revision], runs: Runs, tell: Tell) -> None:
        self.line, self.last = line, len(line) - 1
        self.runs, self._tell = runs, tell
        self.skipped: dict[int, str] = {}
        self.steps = 0
        self.started = time.monotonic()

    def taken(self, position: int, count: int) -> list[RunResult]:
        """Return the runs of a position's first seeds; raises CannotAsk for an end without any."""
        try:
            return self.runs.runs(self.line[position], count)
        except CannotRun as error:
            if position not in (0, self.last):
                raise
            end = "bad" if position else "good"
            raise CannotAsk(
                f"{end} ({self.line[position].short}) cannot be run: {error}; expected two "
                "revisions at which the case can"
            ) from error

    def tell(self, label: str, position: int, what: str, started: float) -> None:
        seconds = time.monotonic() - started
        self._tell(f"{label:<8}  {self.line[position].title:<60.60}  {what}  {seconds:.1f} s")


class TraceSearch(_Search):
    """A search for the first revision whose trace differs from that of the good one."""

    def __init__(self, line: Sequence[Revision], runs: Runs, tell: Tell) -> None:
        super().__init__(line, runs, tell)
        self.traces: dict[int, RunResult] = {}
        self._repeated = False

    def bisected(self) -> Bisected:
        """Search; raises CannotAsk where the ends are equal, or good differs from itself."""
        self._measure_ends()
        search = Halving(self.last)
        while (position := search.position()) is not None:
            self.steps += 1
            label = f"step {self.steps}/{self.steps - 1 + search.most_steps}"
            started = time.monotonic()
            try:
                what = self._measure(position, search)
            except CannotRun as error:
                search.skip(position)
                self.skipped[position] = str(error)
                what = f"skipped: {error}"
            self.tell(label, position, what, started)
        self._require_equal_to_itself()
        return self._come_to(search)

    def _measure_ends(self) -> None:
        for label, position in (("good", 0), ("bad", self.last)):
            started = time.monotonic()
            self.traces[position] = self.taken(position, 1)[0]
            self.tell(label, position, "traced", started)
        if difference(self.traces[0], self.traces[self.last]) is None:
            raise CannotAsk(
                "the traces of good and bad are equal to the bit: the trace does not see a change; "
                "expected two that differ: widen the range, or search with --test accuracy"
            )

    def _measure(self, position: int, search: Halving) -> str:
        """Trace a revision and tell the search; return what it came to, in words."""
        good, bad = self.traces[0], self.traces[self.last]
        run = self.taken(position, 1)[0]
        if run.status in UNFINISHED and run.status not in (good.status, bad.status):
            raise CannotRun(f"the run ended as {run.status}: {run.message}")
        self.traces[position] = run
        if difference(good, run) is None:
            search.equals_good(position)
            return "equals good"
        search.differs(position)
        if difference(run, bad) is None:
            return "equals bad"
        self._require_equal_to_itself()
        return "equals neither: a change of its own"

    def _require_equal_to_itself(self) -> None:
        """Trace good a second time, where no two traces have been equal so far.

        Raises CannotAsk if that comes out differently.
        """
        pairs = combinations(self.traces.values(), 2)
        if self._repeated or any(difference(*pair) is None for pair in pairs):
            return
        self._repeated = True
        if found := difference(self.traces[0], self.runs.again(self.line[0])):
            raise CannotAsk(
                f"two traces of good differ ({found.figure}: {shown(found.before_value)} and "
                f"{shown(found.after_value)}): expected runs that are equal to the bit each time; "
                "search with --test accuracy, or on the CPU with --device cpu"
            )

    def _come_to(self, search: Halving) -> Bisected:
        low, high = search.low, search.high
        # an older row may lack what low and high have, and so be equal to two that are not
        pairs = changes(self.traces, lambda a, b: difference(a, b) is None)
        return Bisected(
            line=self.line,
            candidates=search.candidates,
            steps=self.steps,
            seconds=time.monotonic() - self.started,
            skipped=self.skipped,
            change=self._change(low, high),
            others=[self._change(*pair) for pair in pairs if pair != (low, high)],
        )

    def _change(self, before: int, after: int) -> Change:
        old, good, new = self.traces[before], self.traces[0], self.traces[after]
        found = difference(old, new) or difference(good, new)
        assert found is not None
        return Change(before, after, found)


class AccuracySearch(_Search):
    """A search for the revision from which on accuracies are lower, by as few runs as that takes.

    At most ``most_runs`` are trained in all. A revision whose first run is equal to the bit to that
    of another computes the same, and settles at once on which side of the change it is; only where
    numbers differ do accuracies have to tell.
    """

    def __init__(self, line: Sequence[Revision], runs: Runs, tell: Tell, most_runs: int) -> None:
        super().__init__(line, runs, tell)
        self.most_runs = most_runs
        self.count = 0
        self.accuracies: dict[int, list[float]] = {}
        self._first: dict[int, RunResult] = {}
        self._alike: dict[int, int] = {}
        self._resolution = 0.0

    def bisected(self) -> Bisected:
        """Search; raises CannotAsk where bad does not come out as worse than good."""
        if self.most_runs < 2 * END_LOOKS[0]:
            raise CannotAsk(
                f"{self.most_runs} runs are too few to compare the ends: expected at least "
                f"{2 * END_LOOKS[0]}"
            )
        self._compare_ends()
        while True:
            found = self._probabilities()
            block, probability = most_probable(found, blocks(self.last, self.skipped))
            if probability >= CONFIDENT or self.count >= self.most_runs:
                break
            position = most_telling(found, {*self.skipped, *self._alike})
            self._add_run(position, self.line[block[-1]], probability)
        candidates: Sequence[int] = block
        if probability < CONFIDENT:
            candidates = credible(found)
            probability = float(found[candidates].sum())
        return self._come_to(candidates, probability)

    def _probabilities(self) -> npt.NDArray[np.float64]:
        pairs = [(min(pair), max(pair)) for pair in self._alike.items()]
        return change_probabilities(self.accuracies, self.last, self._resolution, pairs)

    def _compare_ends(self) -> None:
        """Train both ends until bad is known to be worse."""
        for look in END_LOOKS:
            if 2 * look > self.most_runs:
                break
            for label, position in (("good", 0), ("bad", self.last)):
                started = time.monotonic()
                self._train(position, look)
                mean = 100 * statistics.fmean(self.accuracies[position])
                self.tell(label, position, f"{look} runs, {mean:.2f} % on average", started)
            if difference(self._first[0], self._first[self.last]) is None:
                raise CannotAsk(
                    "the runs of good and bad are equal to the bit: nothing has changed between "
                    "the two; expected two that differ: widen the range"
                )
            if is_worse(self.accuracies[0], self.accuracies[self.last], self._resolution):
                return
        found = drop(self.accuracies[0], self.accuracies[self.last], self._resolution)
        raise CannotAsk(
            f"bad is not known to be worse than good after {len(self.accuracies[0])} runs each: "
            f"{points(found)}; expected a drop that so many runs show"
        )

    def _add_run(self, position: int, likely: Revision, probability: float) -> None:
        """Train one more run of a position, and note what it is alike or how it came out."""
        self.steps += 1
        started = time.monotonic()
        try:
            value = self._train(position, len(self.accuracies.get(position, ())) + 1)[-1]
            what = f"{100 * value:.2f} %; so far {likely.short} with {probability:.2f}"
            if (twin := self._twin(position)) is not None:
                # no further evidence: it is the same run once more
                del self.accuracies[position]
                self._alike[position] = twin
                ends = {0: "good", self.last: "bad"}
                what = f"{100 * value:.2f} %, equals {ends.get(twin, self.line[twin].short)}"
        except CannotRun as error:
            self.skipped[position] = str(error)
            what = f"skipped: {error}"
        self.tell(f"run {self.count}", position, what, started)

    def _twin(self, position: int) -> int | None:
        """Return a position, the good end first, whose first run is equal to this one's."""
        if len(self.accuracies[position]) > 1:
            return None
        run = self._first[position]
        others = (p for p in (0, self.last, *self.accuracies) if p != position)
        return next((p for p in others if difference(self._first[p], run) is None), None)

    def _train(self, position: int, count: int) -> list[float]:
        runs = self.taken(position, count)
        if bad := next((run for run in runs if run.status in UNFINISHED), None):
            error = CannotRun(f"a run ended as {bad.status}: {bad.message}")
            if position in (0, self.last):
                raise CannotAsk(f"{self.line[position].short}: {error}; search with --test trace")
            raise error
        self.count += count - len(self.accuracies.get(position, ()))
        self._resolution = 1 / find_dataset(runs[0].spec.dataset).test_images
        self._first[position] = runs[0]
        self.accuracies[position] = [accuracy(run) for run in runs]
        return self.accuracies[position]

    def _come_to(self, candidates: Sequence[int], probability: float) -> Bisected:
        sides: tuple[list[float], list[float]] = ([], [])
        for position, values in self.accuracies.items():
            if not candidates[0] <= position < candidates[-1]:
                sides[position >= candidates[-1]].extend(values)
        return Bisected(
            line=self.line,
            candidates=candidates,
            steps=self.count,
            seconds=time.monotonic() - self.started,
            skipped=self.skipped,
            accuracies=self.accuracies,
            alike=self._alike,
            sides=sides,
            drop=drop(*sides, self._resolution),
            probability=probability,
        )


def shown(value: object) -> str:
    """Return a figure as text: numbers in all their digits, of many the first."""
    return repr(value) if isinstance(value, float) else reprlib.repr(value)


def points(found: Estimate) -> str:
    """Return a difference of accuracies in percentage points, with its 95 % interval."""
    low, high = found.interval()
    return f"{100 * found.value:+.2f} points (95 %: {100 * low:+.2f} to {100 * high:+.2f})"
