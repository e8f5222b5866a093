"""Which nights are news, and how much they scatter."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from normbench.analysis.nights import Draws, Night
from normbench.analysis.statistics import UNKNOWN, Variance


def nights(accuracies: Sequence[float], origins: Sequence[str] | None = None) -> list[Night]:
    return [
        Night(accuracy, origin=origin)
        for accuracy, origin in zip(accuracies, origins or [""] * len(accuracies), strict=True)
    ]


def test_nights_that_repeat_the_one_before_are_one_draw() -> None:
    draws = Draws.of(nights([0.9, 0.9, 0.9, 0.8, 0.8, 0.9]))
    assert draws.first == (0, 3, 5)
    assert draws.values.tolist() == [0.9, 0.8, 0.9]
    assert draws.weights.tolist() == [1, 1, 1]


def test_another_number_of_runs_is_another_draw() -> None:
    draws = Draws.of([Night(0.9), Night(0.9, runs=5, variance=1e-4)])
    assert draws.first == (0, 1)
    assert draws.weights.tolist() == [1, 5]


def test_machines_that_take_turns_give_one_draw_each() -> None:
    draws = Draws.of(nights([0.9, 0.8, 0.9, 0.9, 0.8, 0.9], [*"xyxxyx"]))
    assert draws.first == (0, 1, 2, 4, 5)
    assert draws.weights == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3])


def test_where_equal_code_gives_different_accuracies_every_night_is_a_draw() -> None:
    draws = Draws.of(nights([0.90, 0.91, 0.91, 0.90, 0.92, 0.91], ["GPU"] * 6))
    assert draws.first == (0, 1, 2, 3, 4, 5)
    assert draws.weights.tolist() == [1] * 6


def test_code_that_the_origin_does_not_name_may_have_changed_now_and_then() -> None:
    # a norm of one's own, say: equal nights are repeats all the same
    draws = Draws.of(nights([0.90] * 5 + [0.91] * 5, ["same"] * 10))
    assert draws.first == (0, 5)
    assert draws.weights.tolist() == [1, 1]
    # half of the nights are not most of them
    assert Draws.of(nights([0.90, 0.91, 0.91], ["same"] * 3)).first == (0, 1)


def test_a_night_has_a_run() -> None:
    with pytest.raises(ValueError, match="runs = 0: expected a night of at least one run"):
        Night(0.9, runs=0)


def test_the_noise_is_that_of_seeds_where_code_hardly_changed() -> None:
    draws = Draws.of(nights([0.9] * 50 + [0.91] * 50), Variance(1e-4, 19))
    assert draws.noise == Variance(1e-4, 19)


def test_the_noise_is_that_of_all_nights_of_several_seeds() -> None:
    several = [Night(0.90, 5, 1e-4), Night(0.91, 5, 3e-4)]
    noise, with_baseline = (Draws.of(several, v).noise for v in (UNKNOWN, Variance(5e-4, 4)))
    # two draws have one difference between them, of which the smaller 0.8 are none
    assert [noise.value, noise.degrees_of_freedom] == pytest.approx([2e-4, 8])
    assert [with_baseline.value, with_baseline.degrees_of_freedom] == pytest.approx([3e-4, 12])
    # a repeated night says no more of it
    repeated = [several[0]] * 9 + [several[1]] * 9
    assert Draws.of(repeated).noise == Draws.of(several).noise


def test_without_seeds_the_noise_is_that_between_draws() -> None:
    rng = np.random.default_rng(0)
    values = 0.9 + 0.01 * rng.standard_normal(2000)
    # neither a change nor nights that failed are noise
    values[1000:] -= 0.3
    values[::100] -= 0.5
    noise = Draws.of(nights(values.tolist())).noise
    assert math.sqrt(noise.value) == pytest.approx(0.01, rel=0.06)
    assert noise.degrees_of_freedom == pytest.approx(0.47 * 1999)


def test_what_successive_draws_say_of_the_noise_is_worth_half_a_degree_of_freedom_each() -> None:
    rng = np.random.default_rng(1)
    found = [Draws.of(nights(rng.standard_normal(31).tolist())).noise for _ in range(800)]
    values = np.array([noise.value for noise in found])
    # of a chi-squared distribution, twice the squared mean over the variance
    assert 2 * values.mean() ** 2 / values.var() == pytest.approx(0.47 * 30, rel=0.2)
    assert 1.0 <= values.mean() <= 1.15
    assert {noise.degrees_of_freedom for noise in found} == {0.47 * 30}


def test_noise_from_night_to_night_that_seeds_do_not_show_counts() -> None:
    rng = np.random.default_rng(2)
    values = (0.9 + 0.05 * rng.standard_normal(40)).tolist()
    noise = Draws.of(nights(values), Variance(1e-4, 100)).noise
    # a hundred degrees of freedom of one, 0.47 times 39 of the other
    expected = (100 * 0.01**2 + 18.33 * 0.05**2) / 118.33
    assert noise.value == pytest.approx(expected, rel=0.5)
    assert noise.degrees_of_freedom == pytest.approx(118.33)


def test_draws_that_hardly_differ_do_not_make_the_noise_of_seeds_smaller() -> None:
    rng = np.random.default_rng(3)
    values = (0.9 + 0.0001 * rng.standard_normal(40)).tolist()
    assert Draws.of(nights(values), Variance(1e-4, 100)).noise == Variance(1e-4, 100)


def test_a_night_with_a_run_that_collapsed_counts_for_little() -> None:
    sound = [Night(0.90 + 0.001 * (i % 3), 5, 1e-4) for i in range(9)]
    # one run of five is 0.5 lower: its variance is 0.5 ** 2 / 5 more
    collapsed = Night(0.80, 5, 0.05)
    draws = Draws.of([*sound, collapsed])
    assert draws.weights[:9].tolist() == [5] * 9
    # the standard error of such a mean is as large as what the run has moved it by
    assert math.sqrt(draws.noise.value / draws.weights[9]) == pytest.approx(0.1)
    assert draws.noise.value < 2e-4


def test_nights_of_several_runs_without_their_scatter_are_held_to_that_of_a_mean() -> None:
    mixed = [Night(0.9, 4, 1e-4), Night(0.91, 4), Night(0.92)]
    draws = Draws.of(mixed, Variance(1e-4, math.inf))
    # of four runs, the fourth root of their number, or its square root
    assert draws.units == pytest.approx([0.01 / 2**0.5, 0.005, 0.01])


def test_a_part_has_the_noise_of_the_whole_unless_its_own_is_much_larger() -> None:
    rng = np.random.default_rng(4)
    values = 0.9 + 0.001 * rng.standard_normal(120)
    values[100:] += 0.05 * rng.standard_normal(20)
    draws = Draws.of(nights(values.tolist()))
    assert draws.part(0, 120) is draws
    rest, quiet, noisy = (draws.part(*ends) for ends in ((1, 120), (10, 40), (100, 120)))
    assert (rest.first, quiet.first) == (draws.first[1:], draws.first[10:40])
    assert noisy.values.tolist() == values[100:].tolist()
    assert quiet.noise == draws.noise
    assert quiet.units.tolist() == draws.units[10:40].tolist()
    # as if there were no others
    alone = Draws.of(nights(values[100:].tolist()))
    assert noisy.noise == alone.noise
    assert noisy.units == pytest.approx(alone.units)
    assert alone.noise.value > 100 * draws.noise.value


@pytest.mark.parametrize(("variance", "wild"), [(5e-4, False), (6e-4, True)])
def test_a_run_has_collapsed_where_seeds_scatter_more_than_once_in_a_thousand(
    variance: float, wild: bool
) -> None:
    # the median of chi-squared on four degrees of freedom is 3.357, and 18.47 is exceeded by a
    # thousandth: 18.47 / 3.357 is 5.5
    sound = [Night(0.90 + 0.001 * (i % 3), 5, 1e-4) for i in range(9)]
    draws = Draws.of([*sound, Night(0.9, 5, variance)])
    assert draws.weights[:9].tolist() == [5] * 9
    assert bool(draws.weights[9] < 5) is wild


def test_seeds_that_do_not_scatter_are_known_not_to() -> None:
    still = [Night(0.90 + 0.001 * (i % 3), 5, 0.0) for i in range(9)]
    # four degrees of freedom a night, and 0.47 for each difference between two
    assert Draws.of(still).noise.degrees_of_freedom == pytest.approx(9 * 4 + 8 * 0.47)
    # beside them, any scatter is that of a run that collapsed
    draws = Draws.of([*still, Night(0.9, 5, 0.01)])
    assert draws.noise.degrees_of_freedom == pytest.approx(9 * 4 + 9 * 0.47)
    assert draws.weights[9] < 1


def test_where_nothing_scatters_a_night_that_does_counts_for_nothing() -> None:
    still = [Night(0.9, 5, 0.0), Night(0.9, 6, 0.0), Night(0.9, 5, 0.01)]
    draws = Draws.of(still)
    assert draws.noise.value == 0
    assert draws.weights.tolist() == [5, 6, 0]


def test_seeds_that_scatter_less_than_nights_take_no_weight_from_one() -> None:
    nightly = [Night(0.90 + 0.05 * (i % 2), 5, 1e-4) for i in range(9)]
    draws = Draws.of([*nightly, Night(0.95, 5, 6e-4)])
    # it would be wild by seeds alone, and is less than the noise from night to night
    assert draws.noise.value > 6e-4
    assert draws.weights.tolist() == [5] * 10


def test_what_a_baseline_knows_tells_collapsed_runs_where_most_nights_have_one() -> None:
    collapsed = [Night(0.80, 5, 0.05), Night(0.81, 5, 0.05)]
    assert Draws.of(collapsed, Variance(1e-4, 19)).noise == Variance(1e-4, 19)


def test_two_runs_tell_of_the_noise_as_well() -> None:
    noise = Draws.of([Night(0.90, 2, 1e-4), Night(0.91, 2, 3e-4)]).noise
    assert [noise.value, noise.degrees_of_freedom] == pytest.approx([2e-4, 2])


def test_draws_that_come_again_say_no_more_of_the_noise() -> None:
    accuracies = {"x": 0.90, "y": 0.91, "z": 0.92}
    several = [Night(accuracies[origin], 5, 1e-4, origin) for origin in "yxzxyx"]
    # four degrees of freedom each of three draws; of five differences, each counts a third, as x
    # comes three times
    freedom = Draws.of(several).noise.degrees_of_freedom
    assert freedom == pytest.approx(3 * 4 + 0.47 * 5 / 3)


def of_the_smallest(share: float) -> float:
    """Return what share of normal noise's variance the smallest squares of so many have."""
    return float(stats.chi2.cdf(stats.chi2.isf(1 - share, 1), 3)) / share


def test_the_noise_between_draws_is_that_of_the_smaller_four_fifths_of_differences() -> None:
    # by 1, 2, 3, 4 and 10 thousandths, each of two draws
    draws = Draws.of(nights([0.900, 0.901, 0.903, 0.906, 0.910, 0.920]))
    expected = (1 + 4 + 9 + 16) * 1e-6 / 4 / 2 / of_the_smallest(0.8)
    assert draws.noise.value == pytest.approx(expected)
    # of 4 and 2 runs, and of 2 and 3: the smaller one of two squares
    draws = Draws.of([Night(0.90, 4), Night(0.93, 2), Night(0.94, 3)])
    expected = 1e-4 / (1 / 2 + 1 / 3) / of_the_smallest(0.5)
    assert draws.noise.value == pytest.approx(expected)


def test_differences_of_draws_that_come_again_count_for_less() -> None:
    draws = Draws.of(nights([0.900, 0.902, 0.905, 0.906, 0.902], [*"axbcx"]))
    # by 2, 3 and 4 thousandths to and from x, which count a half, and by 1 from b to c
    expected = (1 + (4 + 9) / 2) * 1e-6 / 2 / 2 / of_the_smallest(0.8)
    assert draws.noise.value == pytest.approx(expected)
    assert draws.noise.degrees_of_freedom == pytest.approx(0.47 * 2.5)
