"""What a few runs say: differences of means with their confidence intervals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its confidence interval, in the unit of what was given."""

    estimate: float
    low: float
    high: float


def difference_of_means(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Return ``mean(a) - mean(b)`` with Welch's two-sided interval.

    Samples that do not vary give an interval of no width. Raises ValueError for samples of fewer
    than two values. Source: Welch, The generalization of Student's problem when several different
    population variances are involved, Biometrika 34, 1947.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"samples of {len(a)} and {len(b)} values: expected at least 2 of each; run more seeds"
        )
    estimate = statistics.fmean(a) - statistics.fmean(b)
    if math.isclose(statistics.variance(a) + statistics.variance(b), 0.0, abs_tol=1e-18):
        return Interval(estimate, estimate, estimate)
    test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(confidence)
    return Interval(estimate, float(low), float(high))
