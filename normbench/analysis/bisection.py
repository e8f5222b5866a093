"""Which revision of a line changed a case: by figures that are exact, and by runs that scatter.

A line of revisions is known by positions: 0 is the one that is good, the last one is bad.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import special

from normbench.analysis.statistics import (
    Estimate,
    Variance,
    moderated_variances,
    rank_sum_p,
    without_worst,
)
from normbench.results import RunResult

T = TypeVar("T")
Numbers = npt.NDArray[np.float64]

# The numbers of runs of each end after which it is asked whether the bad one is worse, and the
# one-sided level of all these looks together.
END_LOOKS = (3, 5, 8, 12, 20, 30)
END_LEVEL = 0.01

# The probability of one revision at which a search by accuracy ends.
CONFIDENT = 0.98

# A run may collapse, whatever it runs: the share of such runs, and the range, in standard
# deviations, over which their accuracies are taken to be as likely anywhere.
COLLAPSED, COLLAPSED_RANGE = 0.02, 50.0

# Where the true means and the true deviation are looked for, in estimated deviations.
MEANS = np.linspace(-4, 4, 81)
DEVIATIONS = np.geomspace(0.4, 2.5, 9)


def figures(run: RunResult) -> dict[str, object]:
    """Return all that a run has come to, by names to show: what it ran first, then in time's order.

    Seconds are left out, and what an older row does not have.
    """
    found: dict[str, object] = {
        name: value for name, value in run.spec.to_dict().items() if name not in ("seed", "epochs")
    }
    decided = run.decided
    found |= {name: decided[name] for name in ("status", "parameters")}
    for epoch in decided["epochs"]:
        number = epoch.pop("epoch")
        found |= {f"{name} of epoch {number}": value for name, value in epoch.items()}
    for layer in run.activations:
        for name, values in dataclasses.asdict(layer).items():
            if name != "layer":
                found[f"{name} of layer {layer.layer}"] = values
    parts = {name: decided[name] for name in ("weights", "confusion", "wrong")}
    parts["mistakes"] = tuple(map(dataclasses.astuple, run.mistakes))
    return found | {name: value for name, value in parts.items() if value}


@dataclass(frozen=True)
class Difference:
    """The first figure by which two runs differ, and in how many of how many they do."""

    figure: str
    before_value: object
    after_value: object
    different: int
    figures: int


def difference(before: RunResult, after: RunResult) -> Difference | None:
    """Return how two runs differ, None where all figures that both have are equal to the bit.

    Of runs that ended differently, it is their status, or what they ran.
    """
    old, new = figures(before), figures(after)
    both = [name for name in new if name in old]
    unequal = [name for name in both if old[name] != new[name]]
    if not unequal:
        return None
    first = unequal[0]
    return Difference(first, old[first], new[first], len(unequal), len(both))


class Halving:
    """The search for the first revision that differs from the good one, by what is exact.

    Each step takes the middle of what is left. A revision that cannot be run is passed over for
    one beside it, further away with every one that cannot be run: they mostly come in a row.
    """

    def __init__(self, last: int) -> None:
        self.low, self.high = 0, last
        self.skipped: set[int] = set()

    @property
    def candidates(self) -> range:
        """The positions one of which is the first that differs; one where it is found."""
        return range(self.low + 1, self.high + 1)

    @property
    def most_steps(self) -> int:
        """The most steps that are left, if each revision can be run."""
        return math.ceil(math.log2(len(self.candidates)))

    def position(self) -> int | None:
        """Return the position to measure next; None where nothing more can be told."""
        left = [p for p in range(self.low + 1, self.high) if p not in self.skipped]
        if not left:
            return None
        middle = (self.low + self.high) // 2
        left.sort(key=lambda p: abs(p - middle))
        passed_over = sum(abs(p - middle) <= abs(left[0] - middle) for p in self.skipped)
        return left[min(passed_over**2, len(left) - 1)]

    def equals_good(self, position: int) -> None:
        self.low = max(self.low, position)

    def differs(self, position: int) -> None:
        self.high = min(self.high, position)

    def skip(self, position: int) -> None:
        self.skipped.add(position)


def changes(states: Mapping[int, T], equal: Callable[[T, T], bool]) -> Iterator[tuple[int, int]]:
    """Yield each two positions, measured one after the other in the line, that are unequal."""
    for before, after in pairwise(sorted(states)):
        if not equal(states[before], states[after]):
            yield before, after


def accuracy(run: RunResult) -> float:
    """Return a run's test accuracy, a fraction; 0 for one that diverged, and so learned nothing."""
    return 0.0 if run.status == "diverged" else run.test_accuracy


def drop(good: Sequence[float], bad: Sequence[float], resolution: float) -> Estimate:
    """Estimate the mean of ``bad`` less that of ``good``; ``resolution`` is their smallest step."""
    return Estimate.difference(bad, good, _variance(good, bad, resolution))


def _variance(good: Sequence[float], bad: Sequence[float], resolution: float) -> Variance:
    """Return the variance that both have about their means, at least that of rounding."""
    return moderated_variances({"good": good, "bad": bad}, resolution)["bad"]


def is_worse(good: Sequence[float], bad: Sequence[float], resolution: float) -> bool:
    """Tell whether bad is lower than good, at a level that holds for all END_LOOKS together.

    By Student's test or by ranks, each at half of the level: a good run that collapsed makes the
    first one blind, and of few runs the second one is. As in comparisons with a baseline, one run
    of bad that collapsed is no evidence: it counts as the second worst.
    """
    variance = _variance(good, bad, resolution)
    lasting = Estimate.difference(without_worst(bad), good, variance)
    p = min(lasting.p_below(), rank_sum_p(bad, good))
    return p <= END_LEVEL / len(END_LOOKS) / 2


def change_probabilities(
    runs: Mapping[int, Sequence[float]],
    last: int,
    resolution: float,
    alike: Iterable[tuple[int, int]] = (),
) -> Numbers:
    """Return of each position, from 0 to ``last``, the probability that it is the first bad one.

    ``runs`` are the accuracies of the positions that were run, the two ends among them. Those from
    the change on have one mean, those before it another, all have one deviation, and a share of
    COLLAPSED may be anything; each change but at 0 is as likely before anything is known. The means
    and the deviation are not known either: they are summed over, on a grid around what the ends'
    runs say. Two positions that are ``alike`` compute the same: the change is not between them.

    Source: a change point with unknown parameters, Smith, A Bayesian Approach to Inference about a
    Change-Point in a Sequence of Random Variables, Biometrika, 1975; the mixture for collapsed
    runs, Box and Tiao, A Bayesian Approach to Some Outlier Problems, Biometrika, 1968.
    """
    ends = {"good": runs[0], "bad": runs[last]}
    spread = math.sqrt(_variance(runs[0], runs[last], resolution).value)
    positions = sorted(runs)
    good, bad = (
        np.array([_log_likelihoods(runs[p], np.median(end), spread) for p in positions])
        for end in ends.values()
    )
    # of a change after each position but the last: what is before it, and what is from it on
    before = np.cumsum(good, axis=0)[:-1]
    after = np.cumsum(bad[::-1], axis=0)[::-1][1:]
    by_deviation = special.logsumexp(before, axis=2) + special.logsumexp(after, axis=2)
    log_evidence = special.logsumexp(by_deviation, axis=1)
    # nothing was run between two positions: the change is as likely at any of these
    widths = np.diff(positions)
    found = np.concatenate([[-np.inf], np.repeat(log_evidence, widths)])
    for earlier, later in alike:
        found[earlier + 1 : later + 1] = -np.inf
    probabilities: Numbers = np.exp(found - special.logsumexp(found))
    return probabilities


def _log_likelihoods(values: Sequence[float], centre: float, spread: float) -> Numbers:
    """Return the log-likelihood of values by their deviation (rows) and mean (columns)."""
    means = centre + spread * MEANS
    deviations = spread * DEVIATIONS[:, None, None]
    z = (np.asarray(values) - means[:, None]) / deviations
    normal = np.exp(-(z**2) / 2) / (math.sqrt(2 * math.pi) * deviations)
    density = (1 - COLLAPSED) * normal + COLLAPSED / (COLLAPSED_RANGE * spread)
    likelihoods: Numbers = np.log(density).sum(axis=2)
    return likelihoods


def blocks(last: int, skipped: Collection[int]) -> list[range]:
    """Return the positions of a change that can be told apart, those that cannot as one block.

    Where no run can be had of some positions, the change may as well be at each of these as at the
    next that can be run.
    """
    runnable = [p for p in range(last + 1) if p not in skipped]
    return [range(before + 1, after + 1) for before, after in pairwise(runnable)]


def most_probable(probabilities: Numbers, blocks: Sequence[range]) -> tuple[range, float]:
    """Return the most probable block, and its probability."""
    sums = [float(probabilities[block.start : block.stop].sum()) for block in blocks]
    best = int(np.argmax(sums))
    return blocks[best], sums[best]


def credible(probabilities: Numbers, share: float = CONFIDENT) -> list[int]:
    """Return the fewest positions among which the change is with a probability of ``share``."""
    order = np.argsort(-probabilities, kind="stable")
    enough = int(np.searchsorted(np.cumsum(probabilities[order]), share)) + 1
    return sorted(map(int, order[:enough]))


def most_telling(probabilities: Numbers, skipped: Collection[int]) -> int:
    """Return the position at which one more run tells most of where the change is.

    It is the median of the change: a run there is as likely good as bad.

    Source: Jedynak, Frazier and Sznitman, Twenty Questions with Noise: Bayes Optimal Policies for
    Entropy Loss, Journal of Applied Probability, 2012.
    """
    is_bad = np.cumsum(probabilities)
    return min(
        (p for p in range(len(probabilities)) if p not in skipped),
        key=lambda p: abs(float(is_bad[p]) - 0.5),
    )
