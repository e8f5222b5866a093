"""When did a case change? Steps in the accuracies of many nights, tested all at once.

docs/change-points.md says how the method was judged, and beside what.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from normbench.analysis.statistics import UNKNOWN, Estimate, Variance
from normbench.analysis.thresholds import LEVEL

Array = npt.NDArray[np.float64]

# How many standard deviations a run may count for: one that collapsed is dozens of them off.
CLIP = 3.5

# The fewest runs on each side of a change: of two, both may have collapsed.
FEWEST = 3

# How improbable the scatter of a night's own seeds must be to count in place of the case's.
WILD_P = 1e-3

# The quantile of the likelihood ratio within which a change's place lies with 95 %.
# Source: Hansen, Sample Splitting and Threshold Estimation, 2000, table 1.
PLACE_QUANTILE = 7.35


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
class Change:
    """A change of a case's mean accuracy.

    ``index`` is the first night after it, which lies in ``earliest`` to ``latest`` with 95 %.
    ``difference`` is the mean after it less that before, each up to the neighbouring change.
    ``adjusted_p`` holds for all nights of all cases of the history together.
    """

    index: int
    difference: Estimate
    adjusted_p: float
    earliest: int
    latest: int


def find_changes(
    nights: Sequence[Night],
    minimum_effect: float,
    variance: Variance = UNKNOWN,
    cases: int = 1,
    level: float = LEVEL,
) -> tuple[Change, ...]:
    """Return the changes of a case's mean accuracy by more than the minimum effect.

    ``nights`` are in the order of time. ``variance`` is that of one run over its seeds, as a
    baseline knows it. ``cases`` is how many cases the history has: of histories without a change,
    at most a share ``level`` shows one in any of them.
    """
    draws = _Draws.of(nights, variance)
    if len(draws.values) < 2 or not draws.noise.known or draws.noise.value <= 0:
        return ()
    share = level / max(1, cases)
    found = _lasting(draws, _segmented(draws, share), minimum_effect, share)
    bounds = [0, *found, len(draws.values)]
    return tuple(
        _change(draws, before, place, after, min(1.0, max(1, cases) * found[place]))
        for before, place, after in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True)
    )


@dataclass(frozen=True)
class _Draws:
    """Independent draws of a case's accuracy, in the order of time.

    On one machine, equal code gives an equal accuracy to the bit: nights that repeat it are no
    news. Nights that come out equal one after another are one draw, which began in the night
    ``first``; one that comes again later, as where nights change between two machines, shares its
    weight among its places, so that it counts once. ``weights`` are numbers of runs.
    """

    first: tuple[int, ...]
    values: Array
    weights: Array
    reach: Array  # how far from the median a value may count, in standard deviations of a run
    noise: Variance

    @classmethod
    def of(cls, nights: Sequence[Night], variance: Variance) -> "_Draws":
        first = tuple(
            i
            for i, night in enumerate(nights)
            if i == 0
            or (night.accuracy, night.runs) != (nights[i - 1].accuracy, nights[i - 1].runs)
        )
        kept = [nights[i] for i in first]
        values = np.array([night.accuracy for night in kept])
        shares = np.array([1 / n for n in _places(kept)])
        runs = np.array([float(night.runs) for night in kept])
        noise, wildness = _noise(kept, variance, shares)
        unsure = [night.runs > 1 and night.variance is None for night in kept]
        reach = CLIP / np.sqrt(np.where(unsure, runs, 1.0))
        return cls(first, values, runs * shares / wildness, reach, noise)

    def standardized(self, start: int, stop: int) -> Array:
        """Return values as standard deviations of a run from their median, none beyond reach."""
        values, reach = self.values[start:stop], self.reach[start:stop]
        distances = (values - np.median(values)) / math.sqrt(self.noise.value)
        return np.clip(distances, -reach, reach)

    def mean(self, start: int, stop: int) -> float:
        distances, weights = self.standardized(start, stop), self.weights[start:stop]
        shift = float(np.average(distances, weights=weights)) * math.sqrt(self.noise.value)
        return float(np.median(self.values[start:stop])) + shift

    def difference(self, before: int, place: int, after: int) -> Estimate:
        """Estimate the mean from ``place`` on less that from ``before`` on."""
        inverse = sum(1 / self.weights[a:b].sum() for a, b in ((before, place), (place, after)))
        value = self.mean(place, after) - self.mean(before, place)
        error = math.sqrt(self.noise.value * inverse)
        return Estimate(value, error, self.noise.degrees_of_freedom)

    def scores(self, start: int, stop: int, starts: int | None = None) -> Array:
        """Return, at [i, j], by how many standard errors draws i to j differ from the others.

        i is below ``starts``, where that is given. It is 0 where a side has too few runs.
        """
        weights = self.weights[start:stop]
        within = np.concatenate(([0.0], np.cumsum(weights)))
        sums = np.concatenate(([0.0], np.cumsum(weights * self.standardized(start, stop))))
        bridge = sums - within * (sums[-1] / within[-1])
        inside = within - within[:starts, None]
        outside = within[-1] - inside
        # of shared weights, the sum is rounded
        enough = np.minimum(inside, outside) > FEWEST - 1e-6
        variance = np.where(enough, inside * outside / within[-1], 1.0)
        scores: Array = np.where(enough, (bridge - bridge[:starts, None]) / np.sqrt(variance), 0.0)
        return scores

    def split_scores(self, start: int, stop: int) -> Array:
        """Return, at i, by how many standard errors the draws before i differ from the others."""
        scores: Array = self.scores(start, stop, starts=1)[0]
        return scores


def _places(nights: Sequence[Night]) -> list[int]:
    """Return in how many places each night's draw is.

    An origin that gave different accuracies, as a GPU may, decides none of them.
    """
    accuracies: Mapping[tuple[str, int], set[float]] = defaultdict(set)
    for night in nights:
        accuracies[night.origin, night.runs].add(night.accuracy)
    undecided = {origin for (origin, _), found in accuracies.items() if len(found) > 1}
    places = Counter(night.origin for night in nights)
    return [1 if n.origin in {"", *undecided} else places[n.origin] for n in nights]


def _noise(nights: Sequence[Night], variance: Variance, shares: Array) -> tuple[Variance, Array]:
    """Return the variance of one run, and how many times as large that of each night's runs is.

    It is known by the baseline and by the nights' own seeds, but for nights that scatter so much
    more that a run must have collapsed; with neither, by how much draws differ from the one before.
    """
    wildness = np.ones(len(nights))
    own = np.array([math.nan if n.variance is None else n.variance for n in nights])
    freedom = np.array([n.runs - 1.0 for n in nights])
    seen = ~np.isnan(own) & (freedom > 0)
    common = variance
    if seen.any():
        if not common.known:
            middle = special.chdtri(freedom[seen], 0.5) / freedom[seen]
            common = Variance(float(np.median(own[seen] / middle)), math.inf)
        limit = _f_quantile(freedom, common.degrees_of_freedom) * common.value
        wild = seen & (own > limit)
        wildness[wild] = own[wild] / common.value if common.value else 1.0
        usual = seen & ~wild
        squares = float((own * freedom * shares)[usual].sum())
        known = float((freedom * shares)[usual].sum())
        if variance.known and not math.isinf(variance.degrees_of_freedom):
            squares += variance.value * variance.degrees_of_freedom
            known += variance.degrees_of_freedom
        if known > 0 and not math.isinf(variance.degrees_of_freedom):
            common = Variance(squares / known, known)
    return (common if common.known else _noise_between(nights)), wildness


def _f_quantile(freedom: Array, other: float) -> Array:
    quantile: Array
    if math.isinf(other):
        quantile = special.chdtri(np.maximum(freedom, 1), WILD_P) / np.maximum(freedom, 1)
    else:
        quantile = special.fdtri(np.maximum(freedom, 1), other, 1 - WILD_P)
    return quantile


def _noise_between(nights: Sequence[Night]) -> Variance:
    """Return the variance of one run by the differences of successive draws.

    A step in the mean is in one of the differences alone. Those that are far too large to be
    noise are left out.

    Source: von Neumann et al., The Mean Square Successive Difference, 1941; its variance is half
    again as large as that of the sample variance.
    """
    values = np.array([night.accuracy for night in nights])
    runs = np.array([night.runs for night in nights])
    squares = np.diff(values) ** 2 / (1 / runs[1:] + 1 / runs[:-1])
    for _ in range(2):
        if len(squares):
            squares = squares[squares <= 16 * squares.mean()]
    if not len(squares):
        return UNKNOWN
    return Variance(float(squares.mean()), 2 * len(squares) / 3)


def _segmented(draws: _Draws, level: float) -> dict[int, float]:
    """Return places of changes, with p-values, by halving again and again what has a change."""
    found: dict[int, float] = {}
    segments = [(0, len(draws.values))]
    while segments:
        start, stop = segments.pop()
        p, places = _best(draws, start, stop)
        if p > level:
            continue
        found |= dict.fromkeys(places, p)
        bounds = [start, *places, stop]
        segments += zip(bounds[:-1], bounds[1:], strict=True)
    return found


def _best(draws: _Draws, start: int, stop: int) -> tuple[float, list[int]]:
    """Return the p-value of the most significant change between two draws, and its places.

    They are two where a stretch differs from what is before and after it.
    """
    length = stop - start
    if length < 2:
        return 1.0, []
    scores = np.abs(draws.scores(start, stop))
    split = int(np.argmax(scores[0, :-1]))
    i, j = np.unravel_index(np.argmax(scores), scores.shape)
    freedom = draws.noise.degrees_of_freedom
    p_split = p_of_splits(float(scores[0, split]), freedom, length)
    p_stretch = p_of_stretches(float(scores[i, j]), freedom, length)
    if p_split <= p_stretch:
        return min(1.0, 2 * p_split), [start + split]
    places = [start + int(place) for place in (i, j) if 0 < place < length]
    return min(1.0, 2 * p_stretch), places


def normal_score(score: float, degrees_of_freedom: float) -> float:
    """Return the standard normal quantile as improbable as a score of Student's t."""
    if math.isinf(degrees_of_freedom):
        return score
    return -float(special.ndtri(special.stdtr(degrees_of_freedom, -score)))


def _density(score: float) -> float:
    return math.exp(-(score**2) / 2) / math.sqrt(2 * math.pi)


def _discreteness(x: Array) -> Array:
    """Return by how much a random walk of steps misses the maximum of one in continuous time.

    Source: Siegmund and Yakir, The Statistics of Gene Mapping, 2007, section 5.2.
    """
    below = special.ndtr(x / 2)
    found: Array = (
        (2 / x) * (below - 0.5) / (x / 2 * below + np.exp(-(x**2) / 8) / math.sqrt(2 * math.pi))
    )
    return found


def p_of_splits(score: float, degrees_of_freedom: float, draws: int) -> float:
    """Return the probability that draws before and after some place differ as much by chance.

    ``score`` is the largest difference in standard errors, over all places in so many draws.

    Source: Siegmund, Sequential Analysis, 1985, chapter 9; James, James and Siegmund, Tests for a
    Change-Point, 1987. Of few draws, Bonferroni's bound is smaller.
    """
    b = normal_score(score, degrees_of_freedom)
    single = 2 * float(special.ndtr(-b))
    if b < 1 or math.isinf(b):
        return 1.0 if b < 1 else 0.0
    share = np.arange(1, draws) / draws
    spread = draws * share * (1 - share)
    tail = b * _density(b) * float((_discreteness(b / np.sqrt(spread)) / spread).sum())
    return min(1.0, single * (draws - 1), single + tail)


def p_of_stretches(score: float, degrees_of_freedom: float, draws: int) -> float:
    """Return the probability that draws of some stretch differ as much from all others by chance.

    Source: Siegmund, Approximate Tail Probabilities for the Maxima of Some Random Fields, 1988;
    Olshen et al., Circular Binary Segmentation, 2004. Of few draws, Bonferroni's bound is smaller.
    """
    b = normal_score(score, degrees_of_freedom)
    single = 2 * float(special.ndtr(-b))
    if b < 1 or math.isinf(b):
        return 1.0 if b < 1 else 0.0
    share = np.arange(1, draws) / draws
    found = _discreteness(b / np.sqrt(draws * share * (1 - share))) ** 2
    tail = b**3 / 2 * _density(b) * float((found / (share**2 * (1 - share))).sum()) / draws
    return min(1.0, single * draws * (draws - 1) / 2, single + tail)


def _lasting(
    draws: _Draws, found: Mapping[int, float], minimum_effect: float, level: float
) -> dict[int, float]:
    """Return the places, put right, between whose sides there is a difference that matters."""
    places = dict(sorted(found.items()))
    while places:
        places = _put_right(draws, places)
        bounds = [0, *places, len(draws.values)]
        weakest, most = None, level
        for before, place, after in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
            difference = draws.difference(before, place, after)
            p = 2 * min(difference.p_below(), difference.p_above())
            if abs(difference.value) <= minimum_effect:
                p = 1 + p
            if p > most:
                weakest, most = place, p
        if weakest is None:
            break
        del places[weakest]
    return places


def _put_right(draws: _Draws, places: Mapping[int, float]) -> dict[int, float]:
    """Move each place to where the draws between its neighbours differ most."""
    right: dict[int, float] = {}
    bounds, start = [*places, len(draws.values)], 0
    for (place, p), stop in zip(places.items(), bounds[1:], strict=True):
        scores = np.abs(draws.split_scores(start, stop))
        moved = start + int(np.argmax(scores)) if scores.any() else place
        right[moved] = p
        start = moved
    return right


def _change(draws: _Draws, before: int, place: int, after: int, adjusted_p: float) -> Change:
    squares = draws.split_scores(before, after) ** 2
    likely = before + np.flatnonzero(squares >= squares[place - before] - PLACE_QUANTILE)
    likely = likely[(likely > before) & (likely < after)]
    return Change(
        draws.first[place],
        draws.difference(before, place, after),
        adjusted_p,
        draws.first[int(likely.min(initial=place))],
        draws.first[int(likely.max(initial=place))],
    )
