"""How improbable the largest of many differences is."""

import math

import numpy as np
import pytest
from scipy import stats

from normbench.analysis.scans import normal_score, p_of_splits, p_of_stretches


def largest_differences(histories: int, draws: int, fewest: int) -> tuple[list[float], list[float]]:
    """Return the largest score of histories of pure noise, by splits and by stretches."""
    values = np.random.default_rng(0).standard_normal((histories, draws))
    splits, stretches = np.zeros(histories), np.zeros(histories)
    for start in range(draws):
        for stop in range(start + fewest, min(draws, start + draws - fewest) + 1):
            inside = values[:, start:stop].sum(axis=1)
            length, others = stop - start, draws - stop + start
            difference = inside / length - (values.sum(axis=1) - inside) / others
            score = np.abs(difference) / math.sqrt(1 / length + 1 / others)
            stretches = np.maximum(stretches, score)
            if start == 0:
                splits = np.maximum(splits, score)
    return splits.tolist(), stretches.tolist()


@pytest.mark.parametrize("fewest", [1, 3])
def test_the_largest_difference_of_noise_is_as_improbable_as_simulated(fewest: int) -> None:
    histories, draws = 15_000, 20
    splits, stretches = largest_differences(histories, draws, fewest)
    for p_of, found in ((p_of_splits, splits), (p_of_stretches, stretches)):
        for score in (3.25, 3.75):
            share = float(np.mean(np.array(found) >= score))
            error = math.sqrt(share / histories)
            p = p_of(score, math.inf, draws, fewest)
            assert share - 3 * error <= p <= 1.25 * share + 3 * error


def test_of_two_draws_there_is_one_difference() -> None:
    two_sided = 2 * float(stats.norm.sf(2.5))
    assert p_of_splits(2.5, math.inf, 2) == pytest.approx(two_sided)
    assert p_of_splits(5.0, 7.0, 2) == pytest.approx(2 * float(stats.t.sf(5.0, 7)))


def test_splits_are_as_improbable_as_the_series_of_their_discreteness_says() -> None:
    # Siegmund, Sequential Analysis, 1985, has what the code takes a short formula for
    def discreteness(x: float) -> float:
        n = np.arange(1, 2000)
        return 2 / x**2 * math.exp(-2 * float((stats.norm.cdf(-x * np.sqrt(n) / 2) / n).sum()))

    score, draws = 4.0, 60
    spread = [n * (draws - n) / draws for n in range(1, draws)]
    rate = sum(discreteness(score / math.sqrt(s)) / s for s in spread)
    expected = 2 * float(stats.norm.sf(score)) + score * float(stats.norm.pdf(score)) * rate
    assert p_of_splits(score, math.inf, draws) == pytest.approx(expected, rel=0.025)


def test_small_scores_of_two_draws_show_something_as_well() -> None:
    for score in (1.0, 1.5):
        two_sided = 2 * float(stats.norm.sf(score))
        assert p_of_splits(score, math.inf, 2) == pytest.approx(two_sided)
        # the first draw and the second are a stretch each, of one difference
        assert two_sided <= p_of_stretches(score, math.inf, 2) <= 2 * two_sided
    assert p_of_stretches(4.0, math.inf, 2) == pytest.approx(4 * float(stats.norm.sf(4.0)))
    assert p_of_splits(0.99, math.inf, 2) == p_of_stretches(0.99, math.inf, 2) == 1.0


def test_a_score_of_students_t_counts_for_less() -> None:
    assert normal_score(4.0, math.inf) == 4.0
    assert float(stats.norm.sf(normal_score(4.0, 6.0))) == pytest.approx(float(stats.t.sf(4.0, 6)))
    assert p_of_stretches(6.0, 10.0, 50) > 100 * p_of_stretches(6.0, math.inf, 50)


def test_too_few_draws_for_two_sides_show_nothing() -> None:
    assert p_of_splits(50.0, math.inf, 5, fewest=3) == 1.0
    assert p_of_stretches(50.0, math.inf, 5, fewest=3) == 1.0
    assert p_of_splits(50.0, math.inf, 6, fewest=3) < 1e-9


def test_no_p_value_is_above_one() -> None:
    for score in (0.0, 0.9, 1.0, 1.5, 2.0):
        assert p_of_splits(score, math.inf, 365) <= 1.0
        assert p_of_stretches(score, math.inf, 365) <= 1.0
