"""When did a case change? Steps in the accuracies of many nights, tested all at once.

docs/change-points.md says how the method was judged, and beside what.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from normbench.analysis.nights import Draws, Night
from normbench.analysis.scans import p_of_splits, p_of_stretches
from normbench.analysis.statistics import UNKNOWN, Estimate, Variance
from normbench.analysis.thresholds import LEVEL

Array = npt.NDArray[np.float64]

# How many standard deviations a run may count for: one that collapses is dozens of them off.
CLIP = 3.5

# The fewest runs on each side of a change: of two, both may have collapsed.
FEWEST = 3

# The quantile of the likelihood ratio within which a change's place lies with 95 %.
# Source: Hansen, Sample Splitting and Threshold Estimation, 2000, table 1.
PLACE_QUANTILE = 7.35


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

    The two sides of each night are compared, and each stretch of nights with all others; what
    differs most is halved again. No run counts for more than CLIP standard deviations.
    """
    draws = Draws.of(nights, variance)
    if len(nights) < 2 or not draws.noise.known or draws.noise.value <= 0:
        return ()
    share = level / max(1, cases)
    places = _that_matter(draws, _segmented(draws, share), minimum_effect, share)
    bounds = [0, *places, len(draws.first)]
    return tuple(
        _change(draws, before, place, after, min(1.0, max(1, cases) * places[place]))
        for before, place, after in zip(bounds, bounds[1:], bounds[2:], strict=False)
    )


def _segmented(draws: Draws, level: float) -> dict[int, float]:
    """Return places of changes, with p-values, by halving again and again what has a change."""
    found: dict[int, float] = {}
    segments = [(0, len(draws.first))]
    while segments:
        start, stop = segments.pop()
        p, places = _most_significant(draws, start, stop)
        if p <= level:
            found |= dict.fromkeys(places, p)
            segments += pairwise([start, *places, stop])
    return found


def _most_significant(draws: Draws, start: int, stop: int) -> tuple[float, list[int]]:
    """Return the p-value of the most significant change between two draws, and its places.

    They are two where a stretch differs from what is before and after it.
    """
    length = stop - start
    scores = np.abs(_scores(draws, start, stop))
    split = int(np.argmax(scores[0]))
    i, j = (int(place) for place in np.unravel_index(np.argmax(scores), scores.shape))
    freedom = draws.noise.degrees_of_freedom
    fewest = math.ceil(FEWEST / draws.weights[start:stop].max())
    # of two tests, Bonferroni
    p_split = 2 * p_of_splits(float(scores[0, split]), freedom, length, fewest)
    p_stretch = 2 * p_of_stretches(float(scores[i, j]), freedom, length, fewest)
    if p_split <= p_stretch:
        return p_split, [start + split]
    return p_stretch, [start + place for place in (i, j) if 0 < place < length]


def _standardized(draws: Draws, start: int, stop: int) -> Array:
    """Return distances from the median, in standard deviations of a run, none of them too far."""
    distances = draws.values[start:stop] - np.median(draws.values[start:stop])
    reach = CLIP * draws.units[start:stop]
    return np.clip(distances, -reach, reach) / math.sqrt(draws.noise.value)


def _scores(draws: Draws, start: int, stop: int, starts: int | None = None) -> Array:
    """Return, at [i, j], by how many standard errors draws i to j differ from the others.

    i is below ``starts``, where that is given. It is 0 where one side has too few runs.
    """
    weights = draws.weights[start:stop]
    within = np.concatenate(([0.0], np.cumsum(weights)))
    sums = np.concatenate(([0.0], np.cumsum(weights * _standardized(draws, start, stop))))
    bridge = sums - within * (sums[-1] / within[-1])
    inside = within - within[:starts, None]
    outside = within[-1] - inside
    # of shared weights, the sum is rounded
    enough = np.minimum(inside, outside) > FEWEST - 1e-6
    variance = np.where(enough, inside * outside / within[-1], 1.0)
    scores: Array = np.where(enough, (bridge - bridge[:starts, None]) / np.sqrt(variance), 0.0)
    return scores


def _split_scores(draws: Draws, start: int, stop: int) -> Array:
    """Return, at i, by how many standard errors the draws before i differ from the others."""
    scores: Array = _scores(draws, start, stop, starts=1)[0]
    return scores


def _that_matter(
    draws: Draws, found: Mapping[int, float], minimum_effect: float, level: float
) -> dict[int, float]:
    """Return the places, put right, on whose two sides there is a difference that matters."""
    places = dict(sorted(found.items()))
    while places:
        places = _put_right(draws, places)
        bounds = [0, *places, len(draws.first)]
        p_values = {
            place: _p_of_difference(draws, before, place, after, minimum_effect)
            for before, place, after in zip(bounds, bounds[1:], bounds[2:], strict=False)
        }
        weakest = max(p_values, key=lambda place: p_values[place])
        if p_values[weakest] <= level:
            break
        del places[weakest]
    return places


def _p_of_difference(
    draws: Draws, before: int, place: int, after: int, minimum_effect: float
) -> float:
    """Return the p-value of one difference; above 1 where it does not matter."""
    sides = draws.weights[before:place].sum(), draws.weights[place:after].sum()
    if min(sides) < FEWEST - 1e-6:
        return math.inf
    difference = _difference(draws, before, place, after)
    p = 2 * min(difference.p_below(), difference.p_above())
    return p if abs(difference.value) > minimum_effect else 1 + p


def _put_right(draws: Draws, places: Mapping[int, float]) -> dict[int, float]:
    """Move each place to where the draws between its neighbours differ most."""
    right: dict[int, float] = {}
    stops, start = [*list(places)[1:], len(draws.first)], 0
    for (place, p), stop in zip(places.items(), stops, strict=True):
        scores = np.abs(_split_scores(draws, start, stop))
        moved = start + int(np.argmax(scores)) if scores.any() else place
        right[moved] = p
        start = moved
    return right


def _mean(draws: Draws, start: int, stop: int) -> float:
    distances, weights = _standardized(draws, start, stop), draws.weights[start:stop]
    shift = float(np.average(distances, weights=weights)) * math.sqrt(draws.noise.value)
    return float(np.median(draws.values[start:stop])) + shift


def _difference(draws: Draws, before: int, place: int, after: int) -> Estimate:
    """Estimate the mean from ``place`` to ``after`` less that from ``before`` to ``place``."""
    weights = (draws.weights[before:place].sum(), draws.weights[place:after].sum())
    error = math.sqrt(draws.noise.value * sum(1 / weight for weight in weights))
    value = _mean(draws, place, after) - _mean(draws, before, place)
    return Estimate(value, error, draws.noise.degrees_of_freedom)


def _change(draws: Draws, before: int, place: int, after: int, adjusted_p: float) -> Change:
    squares = _split_scores(draws, before, after)[:-1] ** 2
    likely = np.flatnonzero(squares >= squares[place - before] - PLACE_QUANTILE)
    inside = before + likely[likely > 0]
    return Change(
        draws.first[place],
        _difference(draws, before, place, after),
        adjusted_p,
        draws.first[int(inside.min(initial=place))],
        draws.first[int(inside.max(initial=place))],
    )
