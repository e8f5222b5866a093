"""How improbable the largest of many differences is, where each is looked at for being the largest.

A history has as many places where it may have changed as it has nights, and a stretch of it may
begin and end anywhere: of differences of one, two or three standard errors there are always some.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]


def normal_score(score: float, degrees_of_freedom: float) -> float:
    """Return the standard normal quantile that is as improbable as a score of Student's t."""
    if math.isinf(degrees_of_freedom):
        return score
    return -float(special.ndtri(special.stdtr(degrees_of_freedom, -score)))


def p_of_splits(score: float, degrees_of_freedom: float, draws: int, fewest: int = 1) -> float:
    """Return the probability that draws before and after some place differ so much by chance.

    ``score`` is the largest difference in standard errors, over all places with at least
    ``fewest`` of the ``draws`` on both sides.

    Source: James, James and Siegmund, Tests for a Change-Point, 1987; of few draws, Bonferroni's
    bound is smaller.
    """
    b = normal_score(score, degrees_of_freedom)
    if b < 1 or draws < 2 * fewest:
        return 1.0
    single = 2 * float(special.ndtr(-b))
    share = np.arange(fewest, draws - fewest + 1) / draws
    spread = draws * share * (1 - share)
    tail = b * _density(b) * float((_discreteness(b / np.sqrt(spread)) / spread).sum())
    return min(1.0, single * len(share), single + tail)


def p_of_stretches(score: float, degrees_of_freedom: float, draws: int, fewest: int = 1) -> float:
    """Return the probability that draws of some stretch differ so much from others by chance.

    ``score`` is the largest difference in standard errors, over all stretches with at least
    ``fewest`` of the ``draws`` in it and outside.

    Source: Siegmund, Approximate Tail Probabilities for the Maxima of Some Random Fields, 1988, as
    Olshen et al., Circular Binary Segmentation, 2004, use it; of few draws, Bonferroni's bound is
    smaller.
    """
    b = normal_score(score, degrees_of_freedom)
    if b < 1 or draws < 2 * fewest:
        return 1.0
    single = 2 * float(special.ndtr(-b))
    lengths = np.arange(fewest, draws - fewest + 1)
    share = lengths / draws
    missed = _discreteness(b / np.sqrt(draws * share * (1 - share))) ** 2
    tail = b**3 / 2 * _density(b) * float((missed / (share**2 * (1 - share))).sum()) / draws
    return min(1.0, single * float((draws - lengths + 1).sum()), single + tail)


def _density(score: float) -> float:
    return math.exp(-(score**2) / 2) / math.sqrt(2 * math.pi)


def _discreteness(x: Array) -> Array:
    """Return by how much fewer maxima are seen in steps of ``x`` than in continuous time.

    Source: Siegmund and Yakir, The Statistics of Gene Mapping, 2007, section 5.2.
    """
    half = x / 2
    density = np.exp(-(half**2) / 2) / math.sqrt(2 * math.pi)
    found: Array = (special.ndtr(half) - 0.5) / half / (half * special.ndtr(half) + density)
    return found
