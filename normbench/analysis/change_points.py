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
    part, length = draws.part(start, stop), stop - start
    scores = np.abs(_scores(part))
    split = int(np.argmax(scores[0]))
    i, j = (int(place) for place in np.unravel_index(np.argmax(scores), scores.shape))
    freedom, fewest = part.noise.degrees_of_freedom, math.ceil(FEWEST / part.weights.max())
    # of two tests, Bonferroni
    p_split = 2 * p_of_splits(float(scores[0, split]), freedom, length, fewest)
    p_stretch = 2 * p_of_stretches(float(scores[i, j]), freedom, length, fewest)
    if p_split <= p_stretch:
        return p_split, [start + split]
    return p_stretch, [start + place for place in (i, j) if 0 < place < length]


def _distances(draws: Draws) -> Array:
    """Return how far the draws are from their median, none of them too far."""
    distances = draws.values - np.median(draws.values)
    return np.clip(distances, -CLIP * draws.units, CLIP * draws.units)


def _scores(draws: Draws, starts: int | None = None) -> Array:
    """Return, at [i, j], by how many standard errors draws i to j differ from the others.

    i is below ``starts``, where that is given. It is 0 where one side has too few runs.
    """
    weights, distances = draws.weights, _distances(draws) / math.sqrt(draws.noise.value)
    within = np.concatenate(([0.0], np.cumsum(weights)))
    sums = np.concatenate(([0.0], np.cumsum(weights * distances)))
    bridge = sums - within * (sums[-1] / within[-1])
    inside = within - within[:starts, None]
    outside = within[-1] - inside
    # of shared weights, the sum is rounded
    enough = np.minimum(inside, outside) > FEWEST - 1e-6
    variance = np.where(enough, inside * outside / within[-1], 1.0)
    scores: Array = np.where(enough, (bridge - bridge[:starts, None]) / np.sqrt(variance), 0.0)
    return scores


def _split_scores(draws: Draws) -> Array:
    """Return, at i, by how many standard errors the draws before i differ from the others."""
    scores: Array = _scores(draws, starts=1)[0]
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
    """Return the p-value of one difference, were nothing changed; above 1 if it does not matter."""
    weights = [float(draws.weights[i:j].sum()) for i, j in ((before, place), (place, after))]
    if min(weights) < FEWEST - 1e-6:
        return math.inf
    value = _difference(draws, before, place, after).value
    error = math.sqrt(draws.noise.value * sum(1 / weight for weight in weights))
    p = 2 * Estimate(-abs(value), error, draws.noise.degrees_of_freedom).p_below()
    return p if abs(value) > minimum_effect else 1 + p


def _put_right(draws: Draws, places: Mapping[int, float]) -> dict[int, float]:
    """Move each place to where the draws between its neighbours differ most."""
    right: dict[int, float] = {}
    stops, start = [*list(places)[1:], len(draws.first)], 0
    for (place, p), stop in zip(places.items(), stops, strict=True):
        scores = np.abs(_split_scores(draws.part(start, stop)))
        moved = start + int(np.argmax(scores)) if scores.any() else place
        right[moved] = p
        start = moved
    return right


def _mean(draws: Draws) -> float:
    return float(np.median(draws.values) + np.average(_distances(draws), weights=draws.weights))


def _difference(draws: Draws, before: int, place: int, after: int) -> Estimate:
    """Estimate the mean from ``place`` to ``after`` less that from ``before`` to ``place``.

    A side that is much noisier has its own noise.
    """
    then, now = draws.part(before, place), draws.part(place, after)
    squares = [side.noise.value / float(side.weights.sum()) for side in (then, now)]
    freedom = draws.noise.degrees_of_freedom
    return Estimate(_mean(now) - _mean(then), math.sqrt(sum(squares)), freedom)


def _change(draws: Draws, before: int, place: int, after: int, adjusted_p: float) -> Change:
    squares = _split_scores(draws.part(before, after))[:-1] ** 2
    likely = np.flatnonzero(squares >= squares[place - before] - PLACE_QUANTILE)
    inside = before + likely[likely > 0]
    return Change(
        draws.first[place],
        _difference(draws, before, place, after),
        adjusted_p,
        draws.first[int(inside.min(initial=place))],
        draws.first[int(inside.max(initial=place))],
    )
