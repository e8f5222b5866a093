"""What many nights say of a case: which of them are news, and how much these scatter by chance."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import special

from normbench.analysis.statistics import UNKNOWN, Variance

Array = npt.NDArray[np.float64]

# How improbable a scatter must be, beside what is expected of it, to be of another kind.
OTHER_P = 1e-3

# The share of differences between successive draws that are taken for noise, and how many degrees
# of freedom one of them is worth then: 0.46 to 0.53 in 100,000 simulations each of 6 to 101 draws.
USUAL = 0.8
FREEDOM_OF_DIFFERENCE = 0.47


@dataclass(frozen=True)
class Night:
    """A case in one session: its mean accuracy, a fraction, over so many runs.

    ``variance`` is that of one run over the session's seeds, None where there is one run or it is
    not known. ``origin`` names all that decides an accuracy to the bit, such as the code, the
    build of torch, the processor and the number of threads; it is empty where that is not known.
    A session that trained none of the case's runs is no night of it.
    """

    accuracy: float
    runs: int = 1
    variance: float | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"runs = {self.runs}: expected a night of at least one run")


@dataclass(frozen=True)
class Draws:
    """Independent draws of a case's accuracy, in the order of time, and their noise.

    On one machine, equal code gives an equal accuracy to the bit: nights that repeat it are no
    news. Nights that come out equal one after another are one draw, which began in the night
    ``first``; one that comes again later, as where nights change between two machines, shares its
    weight among its places, so that it counts once.

    ``runs`` are fewer than a night had where they scatter too much, and ``shares`` what each draw
    counts for. ``noise`` is the variance of one run, and ``units`` say how far off a sound value
    may be: by a few standard deviations of a run. Of a night of several runs it is less, as none
    of them is seen alone, and by those of their mean where not even their scatter tells whether
    one of them collapsed.
    """

    first: tuple[int, ...]
    values: Array
    runs: Array
    shares: Array
    units: Array
    noise: Variance

    @classmethod
    def of(cls, nights: Sequence[Night], variance: Variance = UNKNOWN) -> "Draws":
        """Fold nights in the order of time; ``variance`` is that of a run, if it is known."""
        random = _random_origins(nights)
        first = tuple(
            i
            for i, night in enumerate(nights)
            if i == 0 or night.origin in random or not _repeats(night, nights[i - 1])
        )
        kept = [nights[i] for i in first]
        values = np.array([night.accuracy for night in kept])
        shares = np.array([1 / places for places in _places(kept)])
        runs = np.array([float(night.runs) for night in kept])
        seeds, wild = _noise_of_seeds(kept, variance, shares)
        noise = _noise(seeds, _noise_between(values, runs, shares))
        sure = np.array([night.variance is not None for night in kept])
        # the root: at five runs, no single night of real rows then came to a change
        units = np.sqrt(noise.value / np.where(sure, np.sqrt(runs), runs))
        return cls(first, values, runs / _excess(wild, noise, len(kept)), shares, units, noise)

    @property
    def weights(self) -> Array:
        """The numbers of runs that the draws count for."""
        weights: Array = self.runs * self.shares
        return weights

    def part(self, start: int, stop: int) -> "Draws":
        """Return the draws from ``start`` to ``stop``, with their own noise if it is much larger.

        What makes a case worse often makes it noisier: by the noise of before, it would seem to
        change again and again.
        """
        if (start, stop) == (0, len(self.first)):
            return self
        values, runs, shares, units = (
            array[start:stop] for array in (self.values, self.runs, self.shares, self.units)
        )
        noise, own = self.noise, _noise_between(values, runs, shares)
        if own.known and _much_larger(own, noise):
            units, noise = units * math.sqrt(own.value / noise.value), own
        return Draws(self.first[start:stop], values, runs, shares, units, noise)


def _repeats(night: Night, before: Night) -> bool:
    return (night.accuracy, night.runs) == (before.accuracy, before.runs)


def _random_origins(nights: Sequence[Night]) -> set[str]:
    """Return the origins that decide no accuracy, as on a GPU.

    Most of their nights differ from the one before; those that do not are equal by chance.
    """
    differ: dict[str, list[bool]] = defaultdict(list)
    for before, night in pairwise(nights):
        if night.origin and night.origin == before.origin and night.runs == before.runs:
            differ[night.origin].append(not _repeats(night, before))
    return {origin for origin, found in differ.items() if 2 * sum(found) > len(found)}


def _places(draws: Sequence[Night]) -> list[int]:
    """Return in how many places each draw comes: those of its origin, if that decides it."""
    accuracies: dict[tuple[str, int], set[float]] = defaultdict(set)
    for draw in draws:
        accuracies[draw.origin, draw.runs].add(draw.accuracy)
    several = {origin for (origin, _), found in accuracies.items() if len(found) > 1}
    places = Counter(draw.origin for draw in draws)
    return [1 if draw.origin in {"", *several} else places[draw.origin] for draw in draws]


def _noise(seeds: Variance, between: Variance) -> Variance:
    """Return the variance of one run: what seeds tell of it, and what successive draws do.

    The latter count for nothing where they scatter so much less that they are no independent draws.
    """
    dependent = seeds.known and between.known and _much_larger(seeds, between)
    return seeds if dependent else _pooled(seeds, between)


def _excess(wild: Mapping[int, float], noise: Variance, draws: int) -> Array:
    """Return how many times as large the variance of each draw's runs is as that of others."""
    excess = np.ones(draws)
    for i, own in wild.items():
        excess[i] = max(1.0, own / noise.value) if noise.value else math.inf
    return excess


def _noise_of_seeds(
    draws: Sequence[Night], variance: Variance, shares: Array
) -> tuple[Variance, dict[int, float]]:
    """Return the variance over seeds, and apart from it that of draws whose seeds scatter more.

    It is so much more that one of their runs must have collapsed.
    """
    own = {
        i: Variance(draw.variance, draw.runs - 1)
        for i, draw in enumerate(draws)
        if draw.variance is not None and draw.runs > 1
    }
    # of half of the draws at least, no run has collapsed
    common = variance if variance.known else _typical(list(own.values()))
    wild = {i: seen.value for i, seen in own.items() if _much_larger(seen, common)}
    known = variance
    for i in own.keys() - wild.keys():
        freedom = own[i].degrees_of_freedom * float(shares[i])
        known = _pooled(known, Variance(own[i].value, freedom))
    return known, wild


def _typical(variances: Sequence[Variance]) -> Variance:
    """Return what the median of the variances points to, as if it were known."""
    if not variances:
        return UNKNOWN
    medians = [
        v.value * v.degrees_of_freedom / float(special.chdtri(v.degrees_of_freedom, 0.5))
        for v in variances
    ]
    return Variance(float(np.median(medians)), math.inf)


def _noise_between(values: Array, runs: Array, shares: Array) -> Variance:
    """Return the variance of one run by how much each draw differs from the one before.

    A change is in one of the differences alone, and a run that collapsed in two: the largest are
    left out, and the others' squares are scaled by what of normal noise they would be. Of few
    draws that is too much rather than too little (a quarter at nine).

    Source: von Neumann et al., The Mean Square Successive Difference, 1941.
    """
    squares = np.diff(values) ** 2 / (1 / runs[1:] + 1 / runs[:-1])
    order = np.argsort(squares)
    weights = np.minimum(shares[1:], shares[:-1])[order]
    total = float(weights.sum())
    usual = np.cumsum(weights) <= USUAL * total + 1e-9
    if not usual.any():
        return UNKNOWN
    kept = float(weights[usual].sum()) / total
    mean = float(np.average(squares[order][usual], weights=weights[usual]))
    scale = float(special.chdtr(3, special.chdtri(1, 1 - kept))) / kept
    return Variance(mean / scale, FREEDOM_OF_DIFFERENCE * total)


def _much_larger(one: Variance, other: Variance) -> bool:
    """Tell whether one variance is so much larger than another that they are not the same."""
    if other.value == 0 or math.isinf(one.degrees_of_freedom):
        return one.value > other.value
    ratio = one.value / other.value
    if math.isinf(other.degrees_of_freedom):
        freedom = one.degrees_of_freedom
        return bool(special.chdtrc(freedom, freedom * ratio) < OTHER_P)
    return bool(special.fdtrc(one.degrees_of_freedom, other.degrees_of_freedom, ratio) < OTHER_P)


def _pooled(one: Variance, other: Variance) -> Variance:
    if not one.known or math.isinf(other.degrees_of_freedom):
        return other
    if not other.known or math.isinf(one.degrees_of_freedom):
        return one
    freedom = one.degrees_of_freedom + other.degrees_of_freedom
    squares = one.value * one.degrees_of_freedom + other.value * other.degrees_of_freedom
    return Variance(squares / freedom, freedom)
