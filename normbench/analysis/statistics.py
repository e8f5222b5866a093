"""Statistics of verdicts: pure functions of accuracies, with the source of each."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import optimize, special, stats

K = TypeVar("K", bound=Hashable)

# How improbable a variance must be beside the others to stay out of what is common. It is meant for
# runs that collapsed: at 0.01, merely noisy cases were taken too, and intervals covered less.
OUTLIER_P = 1e-6

# The most values whose rank sums are counted one by one, which takes milliseconds.
EXACT_VALUES = 150


@dataclass(frozen=True)
class Variance:
    """The variance of one run over its seeds, and the degrees of freedom that it is known with.

    No degrees of freedom say that it is not known; infinitely many, that it is.
    """

    value: float
    degrees_of_freedom: float

    @property
    def known(self) -> bool:
        return self.degrees_of_freedom > 0


UNKNOWN = Variance(math.nan, 0.0)


def pooled_variance(samples: Iterable[Sequence[float]]) -> Variance:
    """Return the variance within the samples, taken to be the same in all of them."""
    return _pooled([_own_variance(sample) for sample in samples])


def _own_variance(sample: Sequence[float]) -> Variance:
    if len(sample) < 2:
        return UNKNOWN
    return Variance(float(np.var(sample, ddof=1)), len(sample) - 1)


def _pooled(variances: Iterable[Variance]) -> Variance:
    """Return the mean of the variances that are known, weighted by their degrees of freedom."""
    known = [variance for variance in variances if variance.known]
    if not known:
        return UNKNOWN
    degrees_of_freedom = sum(variance.degrees_of_freedom for variance in known)
    return Variance(
        sum(v.degrees_of_freedom * v.value for v in known) / degrees_of_freedom, degrees_of_freedom
    )


def moderated_variances(
    samples: Mapping[K, Sequence[float]], resolution: float = 0.0
) -> dict[K, Variance]:
    """Return each sample's variance, drawn towards what the samples have in common.

    Of a sample of two or three runs the variance is hardly known; the pooled one of all samples
    is known well, but wrong for a case that is noisier than the others. The estimate in between
    weighs the two by how much the samples' variances differ, which the samples themselves tell:
    where that is no more than chance, it is the pooled one.
    ``resolution`` is the smallest step of the values: no variance is taken to be known below
    that of rounding to it, ``resolution ** 2 / 12``.

    A sample far wilder than the others, as one of many runs that collapsed makes it, keeps a
    variance of its own, and stays out of what is common: else it would cost each of the others
    its precision.

    Source: Smyth, Linear Models and Empirical Bayes Methods for Assessing Differential Expression,
    2004, sections 3 and 6.2; Phipson et al., Robust Hyperparameter Estimation Protects against
    Hypervariable Genes, 2016, on why outliers are to be kept out.
    """
    own = {key: _own_variance(sample) for key, sample in samples.items()}
    floor = resolution**2 / 12
    known = {key: variance for key, variance in own.items() if variance.known}
    outliers = _outliers(known, floor)
    alike = [variance for key, variance in known.items() if key not in outliers]
    if not alike:
        return own
    pooled, common = _pooled(alike), _common_variance(alike, floor)

    def moderate(variance: Variance) -> Variance:
        if math.isinf(common.degrees_of_freedom):
            return Variance(max(common.value, floor), pooled.degrees_of_freedom)
        degrees_of_freedom = common.degrees_of_freedom + variance.degrees_of_freedom
        squares = common.degrees_of_freedom * common.value
        if variance.known:
            squares += variance.degrees_of_freedom * variance.value
        return Variance(
            max(squares / degrees_of_freedom, floor),
            min(degrees_of_freedom, pooled.degrees_of_freedom),
        )

    return {key: own[key] if key in outliers else moderate(own[key]) for key in own}


def _outliers(variances: Mapping[K, Variance], floor: float) -> set[K]:
    """Return the keys of the variances that are too large to be chance beside the others.

    The largest is held against the common variance of all others, then the second largest against
    the others but the largest, and so on to a quarter of them. The last that is improbable,
    as the largest of so many, counts with all those before it: two that are wild would hide each
    other if the search ended at the first that is not.

    Source: Rosner, Percentage Points for a Generalized ESD Many-Outlier Procedure, 1983, with F
    distributions in place of normal ones.
    """
    order = sorted(variances, key=lambda key: -variances[key].value)
    outliers = 0
    for rank in range(len(order) // 4):
        suspect, *others = (variances[key] for key in order[rank:])
        common = _common_variance(others, floor)
        if common.value == 0:
            break
        p = _p_larger(
            suspect.value / common.value, suspect.degrees_of_freedom, common.degrees_of_freedom
        )
        # of two runs a variance is hardly known, and its own would be of no use
        if suspect.degrees_of_freedom > 1 and p * (len(others) + 1) <= OUTLIER_P:
            outliers = rank + 1
    return set(order[:outliers])


def _p_larger(ratio: float, degrees_of_freedom: float, other: float) -> float:
    """Return the probability of a larger ratio of two equal variances."""
    if math.isinf(other):
        return float(special.chdtrc(degrees_of_freedom, degrees_of_freedom * ratio))
    return float(special.fdtrc(degrees_of_freedom, other, ratio))


def _common_variance(variances: Sequence[Variance], floor: float) -> Variance:
    """Fit a scaled F distribution to the variances by the moments of their logarithms.

    Returns its scale and its second degrees of freedom: the pooled variance, and infinitely many,
    where the variances differ by no more than chance.
    """
    values = np.array([max(v.value, floor) for v in variances])
    same = Variance(_pooled(variances).value, math.inf)
    if len(values) < 3 or not values.all():
        return same
    half = np.array([v.degrees_of_freedom for v in variances]) / 2
    logs = np.log(values) - special.digamma(half) + np.log(half)
    excess = logs.var(ddof=1) - special.polygamma(1, half).mean()
    if excess <= special.polygamma(1, 5e3):
        return same
    solution = optimize.brentq(lambda h: float(special.polygamma(1, h)) - excess, 1e-6, 5e3)
    scale = math.exp(float(logs.mean()) + float(special.digamma(solution)) - math.log(solution))
    return Variance(scale, 2 * float(solution))


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with its standard error; Student's t gives the rest.

    Raises ValueError, where a probability is asked for, if the variance is not known.
    """

    value: float
    standard_error: float
    degrees_of_freedom: float

    @classmethod
    def mean(cls, values: Sequence[float], variance: Variance) -> "Estimate":
        error = math.sqrt(variance.value / len(values))
        return cls(float(np.mean(values)), error, variance.degrees_of_freedom)

    @classmethod
    def difference(
        cls,
        now: Sequence[float],
        before: Sequence[float],
        variance: Variance,
        variance_before: Variance | None = None,
    ) -> "Estimate":
        """Estimate the mean of ``now`` less that of ``before``.

        ``variance`` is that of both, unless ``variance_before`` is given. Of two variances the
        smaller degrees of freedom count: what moderated variances know, they have in part from
        the same runs, so that Satterthwaite's formula would count these twice.

        Source: for two variances, Welch, The Generalization of "Student's" Problem, 1947.
        """
        other = variance if variance_before is None else variance_before
        error = math.sqrt(variance.value / len(now) + other.value / len(before))
        difference = float(np.mean(now) - np.mean(before))
        return cls(difference, error, min(variance.degrees_of_freedom, other.degrees_of_freedom))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided confidence interval."""
        reach = self.margin_of_error((1 - confidence) / 2)
        return self.value - reach, self.value + reach

    def margin_of_error(self, p: float) -> float:
        """Return how far below zero a value has the one-sided probability ``p``."""
        self._require_degrees_of_freedom()
        return -float(special.stdtrit(self.degrees_of_freedom, p)) * self.standard_error

    def p_below(self, value: float = 0.0) -> float:
        """Return the one-sided p-value of being this far below, were ``value`` the truth."""
        self._require_degrees_of_freedom()
        distance = self.value - value
        if self.standard_error == 0:
            return 0.0 if distance < 0 else 1.0
        return float(special.stdtr(self.degrees_of_freedom, distance / self.standard_error))

    def p_above(self, value: float = 0.0) -> float:
        """Return the one-sided p-value of being this far above, were ``value`` the truth."""
        return Estimate(-self.value, self.standard_error, self.degrees_of_freedom).p_below(-value)

    def _require_degrees_of_freedom(self) -> None:
        if self.degrees_of_freedom <= 0:
            raise ValueError("no degrees of freedom: the variance over the seeds is not known")


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values such that all together give a false alarm with at most the level chosen.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def rank_sum_p(now: Sequence[float], before: Sequence[float]) -> float:
    """Return the probability that ``now`` ranks as low as this, if the two are exchangeable.

    It is exact, whatever the distribution, and with ties, whose ranks are their mean: of all ways
    to choose as many of the values, the share whose sum of ranks is no larger. Of many values it
    is the normal approximation.

    Source: Wilcoxon, Individual Comparisons by Ranking Methods, 1945; Mann and Whitney, On a Test
    of Whether One of Two Random Variables Is Stochastically Larger than the Other, 1947.
    """
    runs, values = len(now), (*now, *before)
    if len(values) > EXACT_VALUES:
        return float(
            stats.mannwhitneyu(now, before, alternative="less", method="asymptotic").pvalue
        )
    # twice the ranks, which are whole numbers even where they are means
    ranks = np.rint(2 * stats.rankdata(values)).astype(int)
    observed = int(ranks[:runs].sum())
    # how many choices of so many values have each sum
    choices = np.zeros((runs + 1, observed + 1))
    choices[0, 0] = 1
    for rank in ranks:
        if rank <= observed:
            choices[1:, rank:] += choices[:-1, : observed + 1 - rank]
    return float(choices[runs].sum()) / math.comb(len(values), runs)


def without_worst(values: Sequence[float]) -> list[float]:
    """Return the values with the smallest replaced by the second smallest.

    Source: Winsorizing, Tukey, The Future of Data Analysis, 1962, section 14; here of one side.
    """
    ordered = sorted(values)
    return [ordered[1], *ordered[1:]] if len(ordered) > 1 else ordered
