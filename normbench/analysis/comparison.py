"""Is this session worse than that one? A verdict a case, with the error shared by the session."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from normbench.analysis.spread import Spread
from normbench.analysis.statistics import (
    UNKNOWN,
    Estimate,
    Variance,
    holm,
    rank_sum_p,
    without_worst,
)
from normbench.analysis.thresholds import (
    CONFIDENCE,
    FEWEST_RUNS,
    LEVEL,
    LOOKS,
    MOST_SEEDS,
    SLOW,
    SUSPICION,
    minimum_effect,
)
from normbench.results import Outcome
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineCase
from normbench.storage.documents import StoredComparedCase, StoredComparison, StoredVariance
from normbench.storage.environment import PROCESSOR

# The outcomes that are shown case by case; the others are counted.
TOLD = (Outcome.REGRESSION, Outcome.SUSPECTED, Outcome.IMPROVEMENT, Outcome.NOT_COMPARABLE)

# The outcomes of cases that were held against a baseline.
COMPARED = (
    Outcome.REGRESSION,
    Outcome.SUSPECTED,
    Outcome.IMPROVEMENT,
    Outcome.UNCHANGED,
    Outcome.NO_REGRESSION,
    Outcome.UNDECIDED,
)


def unchanged(outcome: Outcome) -> Outcome:
    """Return what a case comes to whose rows were all taken from an earlier session.

    That it is not worse than the baseline was found there; rows that are taken show nothing anew.
    """
    not_worse = (Outcome.IMPROVEMENT, Outcome.NO_REGRESSION, Outcome.UNDECIDED)
    return Outcome.UNCHANGED if outcome in not_worse else outcome


@dataclass(frozen=True)
class CaseComparison:
    """A case's accuracies before and now, fractions, and what their difference comes to.

    ``variance`` is that of one run, ``minimum_effect`` the drop that matters. ``adjusted_p`` is
    one-sided, towards worse, and holds for the session as a whole; ``reason`` says why there is
    none. ``other_code`` says that the runs are known to have run other code than the baseline's.
    """

    spec: RunSpec
    outcome: Outcome
    before: Sequence[float] = ()
    now: Sequence[float] = ()
    variance: Variance = UNKNOWN
    minimum_effect: float = 0.0
    adjusted_p: float | None = None
    reason: str = ""
    other_code: bool = False

    @property
    def difference(self) -> Estimate:
        """The mean now less that of the baseline; raises ValueError where one has no run."""
        return Estimate.difference(self.now, self.before, self.variance)

    @property
    def lasting_difference(self) -> Estimate:
        """The difference that is left when the worst run of now is counted as the second worst.

        Accuracies have long lower tails: now and then, a run of a sound case collapses.
        """
        return Estimate.difference(without_worst(self.now), self.before, self.variance)

    def p_worse(self, share: float) -> float:
        """Return the one-sided p-value of a regression, valid after any of the looks at the case.

        It is the larger one of two: of Student's test, and of the ranks, by which no run that
        collapsed counts for more than a rank. Of so few runs that no ranks could be significant at
        the case's ``share`` of the level, all have to be below all of the baseline.
        """
        if len(self.now) < FEWEST_RUNS:
            return 1.0
        by_mean = LOOKS * self.lasting_difference.p_below()
        if by_mean > 0.05:  # no regression, whatever the ranks say
            return min(1.0, by_mean)
        by_ranks = LOOKS * rank_sum_p(self.now, self.before)
        least = LOOKS / math.comb(len(self.now) + len(self.before), len(self.now))
        if least > share and math.isclose(by_ranks, least):
            return by_mean
        return min(1.0, max(by_mean, by_ranks))

    @property
    def p_better(self) -> float:
        """The one-sided p-value of an improvement, by Student's test alone."""
        if len(self.now) < FEWEST_RUNS:
            return 1.0
        return min(1.0, LOOKS * self.difference.p_above())

    def judged(self, level: float, p_worse: float, p_better: float) -> "CaseComparison":
        """Return the case with its outcome, by p-values that are adjusted for the session."""
        return dataclasses.replace(
            self, outcome=self._outcome(level, p_worse, p_better), adjusted_p=p_worse
        )

    def _outcome(self, level: float, p_worse: float, p_better: float) -> Outcome:
        found, effect = self.difference, self.minimum_effect
        if p_worse <= level and self.lasting_difference.value < -effect:
            return Outcome.REGRESSION
        # of fewer runs, nothing would be left without the worst
        apparent = self.lasting_difference if len(self.now) >= 3 else found
        if apparent.value < -effect and apparent.p_below() <= SUSPICION:
            return Outcome.SUSPECTED
        if p_better <= level and found.value > effect:
            return Outcome.IMPROVEMENT
        if found.p_above(-effect) <= 1 - CONFIDENCE:
            return Outcome.NO_REGRESSION
        return Outcome.UNDECIDED

    @property
    def as_unchanged(self) -> "CaseComparison":
        """The case as one whose rows were all taken from an earlier session, and count for none."""
        if self.outcome in (Outcome.REGRESSION, Outcome.SUSPECTED):
            return self
        return dataclasses.replace(self, outcome=unchanged(self.outcome), now=(), adjusted_p=None)

    def decided_by(self, seeds: int) -> bool:
        """Tell whether so many further seeds, if they come out as the baseline, rule a drop out."""
        if not (self.variance.known and self.minimum_effect):
            return False
        runs = len(self.now) + seeds
        difference = self.difference.value * len(self.now) / runs
        error = math.sqrt(self.variance.value * (1 / runs + 1 / len(self.before)))
        expected = Estimate(difference, error, self.variance.degrees_of_freedom)
        return expected.p_above(-self.minimum_effect) <= 1 - CONFIDENCE

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
            minimum_effect=self.minimum_effect,
            adjusted_p=self.adjusted_p,
            reason=self.reason,
            other_code=self.other_code,
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
            minimum_effect=stored.minimum_effect,
            adjusted_p=stored.adjusted_p,
            reason=stored.reason,
            other_code=stored.other_code,
        )


@dataclass(frozen=True)
class Comparison:
    """A session held against what ``baseline`` names: one, or several.

    ``speed`` is the median over the cases of images per second now over those of the baseline;
    None between machines that are not equal, which ``elsewhere`` says. ``idle`` names those of
    several baselines that have none of the cases.
    """

    baseline: str
    cases: tuple[CaseComparison, ...]
    speed: float | None = None
    elsewhere: bool = False
    idle: tuple[str, ...] = ()

    def of(self, *outcomes: Outcome) -> list[CaseComparison]:
        return [case for case in self.cases if case.outcome in outcomes]

    @property
    def by_configuration(self) -> dict[RunSpec, CaseComparison]:
        """The cases by their specs with seed 0."""
        return {case.spec.with_seed(0): case for case in self.cases}

    @property
    def regressions(self) -> list[CaseComparison]:
        return self.of(Outcome.REGRESSION)

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many cases came to each outcome, those to look at first."""
        counts = Counter(case.outcome for case in self.cases)
        return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}

    @property
    def slow(self) -> bool:
        return self.speed is not None and self.speed < SLOW

    def seeds_to_decide(self) -> tuple[int, int]:
        """Return a number of further seeds, and how many undecided cases they would decide.

        It is the least that decides three quarters of those that up to MOST_SEEDS can, if the seeds
        come out as the baseline did; both are 0 where there are none.
        """
        undecided = self.of(Outcome.UNDECIDED)
        decided = {
            seeds: sum(case.decided_by(seeds) for case in undecided)
            for seeds in range(1, MOST_SEEDS + 1)
        }
        most = max(decided.values())
        enough = (seeds for seeds, count in decided.items() if count and count >= 0.75 * most)
        seeds = next(enough, 0)
        return seeds, decided.get(seeds, 0)

    def to_stored(self) -> StoredComparison:
        """Return what session.json keeps of it."""
        return StoredComparison(
            baseline=self.baseline,
            speed=self.speed,
            elsewhere=self.elsewhere,
            idle=self.idle,
            cases=tuple(case.to_stored() for case in self.cases),
        )

    @classmethod
    def of_stored(cls, stored: StoredComparison) -> "Comparison":
        return cls(
            stored.baseline,
            tuple(map(CaseComparison.of_stored, stored.cases)),
            stored.speed,
            stored.elsewhere,
            stored.idle,
        )


def minimum_effect_of(spec: RunSpec, chosen: float | None) -> float:
    """Return the chosen minimum effect, a fraction, or that of the spec's data set."""
    return minimum_effect(spec.dataset) if chosen is None else chosen


class Reference:
    """What sessions are held against: the cases of one baseline, or of several.

    Of a case that several have, the first one's runs count. A case is a **regression** where its
    mean is lower by more than the minimum effect, and significantly, by FEWEST_RUNS or more runs:
    by a one-sided t-test in which the worst run is counted as the second worst, and by an exact
    test of ranks; adjusted for the LOOKS at it, and after Holm over the cases that can be
    compared. It is **suspected** where it looks worse, and cannot yet be called so; ``look`` is
    what decides whether it is trained again.
    The variance is the baseline's own: were the new runs' taken in, collapsed runs would hide
    behind the spread that they make. A run that came to a bad end is a regression where the
    baseline had none.

    Source: significance and effect size together are asv's rule (asv/_stats.py); the tests follow
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, 2021.
    """

    def __init__(
        self,
        baselines: Sequence[Baseline],
        minimum_effect: float | None = None,
        level: float = LEVEL,
    ) -> None:
        self.baselines = tuple(baselines)
        self.minimum_effect = minimum_effect
        self.level = level
        self._spreads = [Spread(baseline) for baseline in baselines]

    @property
    def name(self) -> str:
        return ", ".join(baseline.name for baseline in self.baselines)

    def baseline(self, spec: RunSpec) -> Baseline | None:
        """Return the baseline that has runs of this configuration, whatever the spec's seed."""
        configuration = spec.with_seed(0)
        return next((b for b in self.baselines if configuration in b.cases), None)

    def variance(self, spec: RunSpec) -> Variance:
        """Return the variance of one run of a configuration.

        Of one that no baseline has, it is what those of the same data set and recipe have in
        common.
        """
        holding = self.baseline(spec)
        for baseline, spread in zip(self.baselines, self._spreads, strict=True):
            if holding in (baseline, None):
                variance = spread.variance(spec)
                if variance.known or baseline is holding:
                    return variance
        return UNKNOWN

    def look(self, now: BaselineCase, cases: int) -> CaseComparison:
        """Hold one case against the baseline, at its share of the level of so many cases."""
        share = self.level / max(1, cases)
        case = self._comparable(now)
        return case if case.reason else case.judged(share, case.p_worse(share), case.p_better)

    def compare(self, now: Baseline, cases: int = 0) -> Comparison:
        """Hold a session against the baselines.

        ``cases`` is how many the whole has of which this session is a part, where it is one.
        """
        of_now = {**now.cases, **now.unchanged}
        both = [spec for spec in of_now if self.baseline(spec)]
        family = max(cases, len(both), 1)
        found = {spec: self._comparable(of_now[spec]) for spec in both}
        tested = [case for case in found.values() if not case.reason]
        share = self.level / family
        worse = _adjusted([case.p_worse(share) for case in tested], family - len(both))
        better = _adjusted([case.p_better for case in tested], family - len(both))
        for case, p_worse, p_better in zip(tested, worse, better, strict=True):
            judged = case.judged(self.level, p_worse, p_better)
            found[case.spec] = judged
        found |= {spec: found[spec].as_unchanged for spec in now.unchanged if spec in found}
        compared = [found.get(s, CaseComparison(s, Outcome.ONLY_NOW)) for s in of_now]
        missing = dict.fromkeys(s for b in self.baselines for s in b.cases if s not in of_now)
        compared += [CaseComparison(spec, Outcome.ONLY_BASELINE) for spec in missing]
        ratios, elsewhere = self._speeds(now, [spec for spec in both if spec in now.cases])
        speed = statistics.median(ratios) if ratios else None
        used = [self.baseline(spec) for spec in both]
        idle = tuple(b.name for b in self.baselines if not any(b is other for other in used))
        return Comparison(self.name, tuple(compared), speed, elsewhere, idle)

    def _comparable(self, now: BaselineCase) -> CaseComparison:
        """Return the case ready to be tested, or with the reason why it cannot be."""
        baseline = self.baseline(now.spec)
        if baseline is None:
            return CaseComparison(now.spec, Outcome.ONLY_NOW, reason="not in the baseline")
        old, variance = baseline.cases[now.spec], self.variance(now.spec)
        outcome, reason = Outcome.NOT_COMPARABLE, ""
        # a run that raised has no fingerprint
        if now.fingerprint and old.fingerprint != now.fingerprint:
            reason = "trained with another network or recipe than the baseline"
        elif old.contents and now.contents and old.contents != now.contents:
            reason = "trained on other images or labels than the baseline"
        elif old.complete and not now.complete:
            outcome = Outcome.REGRESSION
            ends = sorted({run.status for run in now.runs if run.status != "ok"})
            bad = len(now.runs) - len(now.accuracies)
            reason = f"{bad} of {len(now.runs)} runs {', '.join(ends)}"
        elif not old.accuracies or not now.accuracies:
            reason = "no run of the baseline, or none of now, ended well"
        elif not variance.known or _never_suspected(old, now, variance):
            reason = f"{len(old.accuracies)} and {len(now.accuracies)} runs are too few to tell"
        return CaseComparison(
            now.spec,
            outcome,
            old.accuracies,
            now.accuracies,
            variance,
            minimum_effect_of(now.spec, self.minimum_effect),
            reason=reason,
            other_code=bool(old.codes and now.codes) and old.codes != now.codes,
        )

    def _speeds(self, now: Baseline, both: Iterable[RunSpec]) -> tuple[list[float], bool]:
        """Return the ratios of images per second, and whether a machine differs.

        They are those of the cases whose baseline was made by an equal machine with as many
        workers.
        """
        ratios, elsewhere = [], False
        for spec in both:
            before = self.baseline(spec)
            if before is None:
                continue
            same = same_machine(before, now)
            elsewhere = elsewhere or same is False
            old, new = (side.cases[spec].images_per_second for side in (before, now))
            if same and before.workers == now.workers and old and new:
                ratios.append(new / old)
        return ratios, elsewhere


def compare(
    before: Baseline, now: Baseline, minimum_effect: float | None = None, level: float = LEVEL
) -> Comparison:
    """Hold a session against one baseline, as Reference does."""
    return Reference([before], minimum_effect, level).compare(now)


def _adjusted(p_values: Sequence[float], others: int) -> list[float]:
    """Adjust p-values after Holm, where ``others`` are tested elsewhere."""
    return holm([*p_values, *[1.0] * others])[: len(p_values)]


def _never_suspected(old: BaselineCase, now: BaselineCase, variance: Variance) -> bool:
    """Tell whether not even a drop to zero would look worse."""
    difference = Estimate.difference(now.accuracies, old.accuracies, variance)
    return difference.margin_of_error(SUSPICION) > statistics.fmean(old.accuracies)


def _told(side: Baseline, key: str) -> object:
    """Return what a side says of its machine; a joined baseline that names several says nothing."""
    value = side.environment.get(key)
    return None if isinstance(value, str) and " + " in value else value


def same_machine(before: Baseline, now: Baseline) -> bool | None:
    """Tell whether two sides were made by machines of one kind; None where they do not say.

    Older baselines have the processor's name alone, which is that of several kinds.
    """
    keys = (*PROCESSOR, "cores", "gpus")
    pairs = [(_told(before, key), _told(now, key)) for key in keys]
    if any(old != new and None not in (old, new) for old, new in pairs):
        return False
    return True if all(old == new for old, new in pairs) else None


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
