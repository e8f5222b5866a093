"""Is this session worse than that one? A verdict a case, with the error shared by the session."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from normbench.analysis.spread import Spread
from normbench.analysis.statistics import (
    UNKNOWN,
    Estimate,
    Variance,
    alarm_runs,
    holm,
    sequential_p,
)
from normbench.analysis.thresholds import LEVEL, MARGIN, MINIMUM_EFFECT, SLOW
from normbench.results import Outcome, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineCase
from normbench.storage.documents import StoredComparedCase, StoredComparison, StoredVariance
from normbench.training.datasets import DATASETS

# The outcomes that are shown case by case; the others are counted.
TOLD = (Outcome.REGRESSION, Outcome.IMPROVEMENT, Outcome.NOT_COMPARABLE)


@dataclass(frozen=True)
class CaseComparison:
    """A case's accuracies before and now, fractions, and what their difference comes to.

    ``variance`` is that of one run. ``adjusted_p`` is one-sided, towards worse, and holds for the
    session as a whole; ``reason`` says why there is none.
    """

    spec: RunSpec
    outcome: Outcome
    before: Sequence[float] = ()
    now: Sequence[float] = ()
    variance: Variance = UNKNOWN
    adjusted_p: float | None = None
    reason: str = ""

    @property
    def difference(self) -> Estimate:
        """The mean now less that of the baseline; raises ValueError where one has no run."""
        return Estimate.difference(self.now, self.before, self.variance)

    def to_stored(self) -> StoredComparedCase:
        """Return what session.json keeps of it."""
        known = (
            StoredVariance(
                value=self.variance.value, degrees_of_freedom=self.variance.degrees_of_freedom
            )
            if self.variance.known
            else None
        )
        return StoredComparedCase(
            spec=self.spec,
            outcome=self.outcome,
            before=tuple(self.before),
            now=tuple(self.now),
            variance=known,
            adjusted_p=self.adjusted_p,
            reason=self.reason,
        )

    @classmethod
    def of_stored(cls, stored: StoredComparedCase) -> "CaseComparison":
        known = stored.variance
        return cls(
            spec=stored.spec,
            outcome=stored.outcome,
            before=stored.before,
            now=stored.now,
            variance=Variance(known.value, known.degrees_of_freedom) if known else UNKNOWN,
            adjusted_p=stored.adjusted_p,
            reason=stored.reason,
        )

    def p_value(self, sequential: bool, worse: bool) -> float:
        """Return the one-sided p-value, one that allows the looks where runs were added by them."""

        def p_at(look: int) -> float:
            estimate = Estimate.difference(self.now[:look], self.before, self.variance)
            return estimate.p_below() if worse else estimate.p_above()

        if not sequential:
            return p_at(len(self.now))
        return sequential_p([p_at(look) for look in alarm_runs(len(self.now))])


@dataclass(frozen=True)
class Comparison:
    """A session held against a baseline.

    ``speed`` is the median over the cases of images per second now over those of the baseline;
    None between machines that are not equal.
    """

    baseline: str
    cases: tuple[CaseComparison, ...]
    speed: float | None = None

    def of(self, outcome: Outcome) -> list[CaseComparison]:
        return [case for case in self.cases if case.outcome is outcome]

    @property
    def regressions(self) -> list[CaseComparison]:
        return self.of(Outcome.REGRESSION)

    @property
    def slow(self) -> bool:
        return self.speed is not None and self.speed < SLOW

    def to_stored(self) -> StoredComparison:
        """Return what session.json keeps of it."""
        return StoredComparison(
            baseline=self.baseline,
            speed=self.speed,
            cases=tuple(case.to_stored() for case in self.cases),
        )

    @classmethod
    def of_stored(cls, stored: StoredComparison) -> "Comparison":
        return cls(
            stored.baseline, tuple(map(CaseComparison.of_stored, stored.cases)), stored.speed
        )


def minimum_effect_of(spec: RunSpec, chosen: float | None) -> float:
    """Return the chosen minimum effect, a fraction, or that of the spec's data set."""
    return MINIMUM_EFFECT[DATASETS[spec.dataset].family] if chosen is None else chosen


def compare(
    before: Baseline, now: Baseline, minimum_effect: float | None = None, level: float = LEVEL
) -> Comparison:
    """Hold every case of ``now`` against the baseline.

    A case is a regression where its mean is lower by more than the minimum effect, and
    significantly: a one-sided t-test, adjusted after Holm over the cases that can be compared. The
    variance is the baseline's own: were the new runs' taken in, one collapsed run would hide
    itself behind the spread that it makes. A run that came to a bad end is a regression where
    the baseline had none.

    Source: significance and effect size together are asv's rule (asv/_stats.py); the tests follow
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, 2021.
    """
    both = [spec for spec in now.cases if spec in before.cases]
    spread = Spread(before)
    found = {
        spec: _look(before, now.cases[spec], spread.variance(spec), level / len(both))
        for spec in both
    }
    tested = [case for case in found.values() if not case.reason]
    worse = holm([case.p_value(now.sequential, worse=True) for case in tested])
    better = holm([case.p_value(now.sequential, worse=False) for case in tested])
    for case, p_worse, p_better in zip(tested, worse, better, strict=True):
        effect = minimum_effect_of(case.spec, minimum_effect)
        outcome = Outcome.NO_DIFFERENCE
        if p_worse <= level and case.difference.value < -effect:
            outcome = Outcome.REGRESSION
        elif p_better <= level and case.difference.value > effect:
            outcome = Outcome.IMPROVEMENT
        found[case.spec] = dataclasses.replace(case, outcome=outcome, adjusted_p=p_worse)
    missing = [spec for spec in before.cases if spec not in now.cases]
    cases = [found.get(spec, CaseComparison(spec, Outcome.ONLY_NOW)) for spec in now.cases]
    cases += [CaseComparison(spec, Outcome.ONLY_BASELINE) for spec in missing]
    return Comparison(before.name, tuple(cases), _speed(before, now, both))


def _look(before: Baseline, now: BaselineCase, variance: Variance, share: float) -> CaseComparison:
    """Return the case ready to be tested, or with the reason why it cannot be.

    ``share`` is the part of the level that Holm's first step leaves to each case.
    """
    old = before.cases[now.spec]
    outcome, reason = Outcome.NOT_COMPARABLE, ""
    if old.complete and not now.complete:
        outcome = Outcome.REGRESSION
        ends = sorted({run.status for run in now.runs if run.status != "ok"})
        bad = len(now.runs) - len(now.accuracies)
        reason = f"{bad} of {len(now.runs)} runs {', '.join(ends)}"
    elif not old.accuracies or not now.accuracies:
        reason = "no run of the baseline, or none of now, ended well"
    elif old.fingerprint != now.fingerprint:
        reason = "trained with another network or recipe than the baseline"
    elif not variance.known or _never_significant(old, now, variance, share):
        reason = f"{len(old.accuracies)} and {len(now.accuracies)} runs are too few to tell"
    return CaseComparison(
        now.spec, outcome, old.accuracies, now.accuracies, variance, reason=reason
    )


def _never_significant(
    old: BaselineCase, now: BaselineCase, variance: Variance, share: float
) -> bool:
    """Tell whether even a drop to zero could not be significant."""
    difference = Estimate.difference(now.accuracies, old.accuracies, variance)
    return difference.margin_of_error(share) > statistics.fmean(old.accuracies)


def _speed(before: Baseline, now: Baseline, both: Iterable[RunSpec]) -> float | None:
    """Return the median ratio of images per second; None unless the machines are equal."""

    def machine(side: Baseline) -> list[object]:
        return [side.workers, *(side.environment.get(k) for k in ("processor", "cores", "gpus"))]

    if machine(before) != machine(now):
        return None
    rates = [
        (before.cases[spec].images_per_second, now.cases[spec].images_per_second) for spec in both
    ]
    ratios = [new / old for old, new in rates if old and new]
    return statistics.median(ratios) if ratios else None


def margin_in_standard_errors(
    accuracies: Sequence[float], target: float, variance: Variance
) -> float:
    """Return how many standard errors the mean lies above its target; NaN if none is known."""
    if not (accuracies and variance.known):
        return math.nan
    mean = Estimate.mean(accuracies, variance)
    if mean.standard_error == 0:
        return math.copysign(math.inf, mean.value - target)
    return (mean.value - target) / mean.standard_error


def undecided(
    now: Sequence[RunResult],
    target: float,
    before: Baseline,
    spread: Spread,
    cases: int,
    minimum_effect: float | None = None,
    level: float = LEVEL,
) -> bool:
    """Tell whether one more run of a case could change what is said of it.

    ``now`` are its runs so far, which ended well; ``spread`` is that of the baseline ``before``.

    That is so while the mean is close to the target, or while the case is neither a regression,
    at its part of the ``level`` of a session of so many ``cases``, nor is a drop by the minimum
    effect ruled out at 95 %. Whatever this answers, the p-values of compare stay valid: they spend
    their error over the looks that may be taken, not over those that were.
    """
    spec, accuracies = now[0].spec, [run.test_accuracy for run in now]
    variance = spread.variance(spec)
    if not variance.known:
        return False
    if abs(margin_in_standard_errors(accuracies, target, variance)) < MARGIN:
        return True
    old = before.cases.get(spec.with_seed(0))
    if old is None or not old.accuracies:
        return False
    if old.fingerprint != now[0].fingerprint:
        return False
    effect = minimum_effect_of(spec, minimum_effect)
    difference = Estimate.difference(accuracies, old.accuracies, variance)
    if difference.p_above(-effect) <= 0.05:
        return False
    case = CaseComparison(spec, Outcome.NO_DIFFERENCE, old.accuracies, accuracies, variance)
    regressed = case.p_value(sequential=True, worse=True) <= level / cases
    return not (regressed and difference.value < -effect)
