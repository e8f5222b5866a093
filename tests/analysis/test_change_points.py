"""When a case changed, of nights whose changes are known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from normbench.analysis.change_points import find_changes
from normbench.analysis.nights import Night
from normbench.analysis.statistics import Variance

from .exchange import digits_rows
from .histories import (
    Found,
    Machine,
    Setting,
    Simulated,
    by_this_test,
    coverage,
    exchanged_sessions,
    false_changes,
    simulated,
    simulated_sessions,
)

# A tenth of a point, as on MNIST.
DEVIATION = 0.001
KNOWN = Variance(DEVIATION**2, 40)


def noisy(deviations: Sequence[float], seed: int = 0) -> list[Night]:
    """Return nights of one run each, so many standard deviations above 0.99."""
    noise = np.random.default_rng(seed).standard_normal(len(deviations))
    return [Night(float(a)) for a in 0.99 + DEVIATION * (np.array(deviations) + noise)]


def test_a_lasting_drop_is_found_in_its_night() -> None:
    (change,) = find_changes(noisy([0] * 40 + [-4] * 20), 0.001, KNOWN, cases=70)
    assert change.index == 40
    assert change.earliest <= 40 <= change.latest
    assert change.latest - change.earliest <= 2
    low, high = change.difference.interval()
    assert low < -4 * DEVIATION < high
    # the standard error of the difference of means of 40 and of 20
    noise = change.difference.standard_error / math.sqrt(1 / 40 + 1 / 20)
    assert noise == pytest.approx(DEVIATION, rel=0.2)
    assert change.adjusted_p < 1e-6


def test_a_rise_is_found_as_well() -> None:
    (change,) = find_changes(noisy([0] * 40 + [4] * 20), 0.001, KNOWN)
    assert change.index == 40
    assert change.difference.value == pytest.approx(4 * DEVIATION, rel=0.2)


def test_nights_that_were_worse_are_found_with_both_their_ends() -> None:
    worse, better = find_changes(noisy([0] * 60 + [-5] * 7 + [0] * 60), 0.001, KNOWN, cases=70)
    assert (worse.index, better.index) == (60, 67)
    assert worse.difference.value < -0.004
    assert better.difference.value > 0.004


def test_several_changes_are_found_in_the_order_of_time() -> None:
    steps = [0] * 30 + [-4] * 30 + [-8] * 30 + [-3] * 30
    changes = find_changes(noisy(steps), 0.001, KNOWN, cases=70)
    assert [change.index for change in changes] == [30, 60, 90]
    assert [round(change.difference.value / DEVIATION) for change in changes] == [-4, -4, 5]


def test_a_case_that_is_noisier_after_its_change_has_changed_once() -> None:
    noise = np.random.default_rng(7).standard_normal(120)
    deviations = np.concatenate((noise[:60], -30 + 8 * noise[60:]))
    nights = [Night(float(accuracy)) for accuracy in 0.99 + DEVIATION * deviations]
    (change,) = find_changes(nights, 0.001, KNOWN, cases=70)
    assert change.index == 60
    # the interval allows for the noise of after it: 8 deviations, and 60 nights
    assert change.difference.standard_error == pytest.approx(8 * DEVIATION / 60**0.5, rel=0.3)


def test_code_that_only_rounds_differently_is_no_change() -> None:
    # within each, all nights are equal to the bit; one draw of noise apart, or three
    once = [Night(0.990, origin="old")] * 60 + [Night(0.987, origin="new")] * 60
    assert find_changes(once, 0.001, KNOWN) == ()
    # as the same nights would be a change, if each of them were news
    rounded = [Night(n.accuracy + 1e-9 * i) for i, n in enumerate(once)]
    assert len(find_changes(rounded, 0.001, KNOWN)) == 1


def test_two_machines_that_take_turns_say_no_more_than_two_nights() -> None:
    rng = np.random.default_rng(5)
    before, after = {"a": 0.9905, "b": 0.9915}, {"a": 0.9880, "b": 0.9890}
    nights = [
        Night(code[machine], origin=f"{machine} {code[machine]}")
        for code in (before, after)
        for machine in rng.choice(["a", "b"], 60)
    ]
    assert find_changes(nights, 0.001, KNOWN) == ()
    # where nothing says so, they are 60 nights
    unknown = [Night(night.accuracy) for night in nights]
    assert [change.index for change in find_changes(unknown, 0.001, KNOWN)] == [60]


def test_a_change_of_code_that_others_follow_is_found_where_it_began() -> None:
    # four draws before, each of ten equal nights, and four after
    draws = [0.9900, 0.9908, 0.9895, 0.9903, 0.9830, 0.9838, 0.9825, 0.9833]
    nights = [Night(draw, origin=str(draw)) for draw in draws for _ in range(10)]
    (change,) = find_changes(nights, 0.001, KNOWN)
    assert change.index == 40
    assert change.earliest == change.latest == 40
    assert change.difference.value == pytest.approx(-0.0070)
    assert change.difference.standard_error > DEVIATION / math.sqrt(3)


@pytest.mark.parametrize("collapsed", [[30], [59], [0], [58, 59], [20, 40]], ids=str)
def test_one_or_two_nights_with_a_run_that_collapsed_are_no_change(collapsed: list[int]) -> None:
    deviations = np.zeros(60)
    deviations[collapsed] = -200
    assert find_changes(noisy(deviations.tolist()), 0.001, KNOWN, cases=70) == ()


def test_a_collapsed_run_hides_no_change() -> None:
    deviations = np.array([0.0] * 40 + [-4] * 20)
    deviations[[10, 50]] = -200
    (change,) = find_changes(noisy(deviations.tolist()), 0.001, KNOWN, cases=70)
    assert change.index == 40
    assert change.difference.value == pytest.approx(-4 * DEVIATION, rel=0.2)


def test_one_draw_of_five_runs_shows_a_change_if_none_of_them_collapsed() -> None:
    sound, collapsed = 1e-6, 0.02**2 / 5
    before = [Night(0.9900 + 0.0002 * (i % 4), 5, sound, f"{i}") for i in range(8)]
    after = [Night(0.986, 5, sound, "new")] * 4
    (change,) = find_changes([*before, *after], 0.001, KNOWN, cases=70)
    assert change.index == 8
    # the same mean, of four runs as before and one that is 0.02 lower
    fell = [Night(0.986, 5, collapsed, "new")] * 4
    assert find_changes([*before, *fell], 0.001, KNOWN, cases=70) == ()
    # nor where nothing tells which of the two it is
    untold = [Night(night.accuracy, 5, None, night.origin) for night in [*before, *after]]
    assert find_changes(untold, 0.001, KNOWN, cases=70) == ()


def test_a_bad_night_is_told_where_many_runs_have_confirmed_it() -> None:
    # six deviations lower, as far as the case's runs scatter
    nights = noisy([0] * 90)
    nights[50] = Night(0.99 - 6 * DEVIATION, 5, DEVIATION**2)
    assert find_changes(nights, 0.001, KNOWN, cases=70) == ()
    nights[50] = Night(0.99 - 6 * DEVIATION, 14, DEVIATION**2)
    worse, better = find_changes(nights, 0.001, KNOWN, cases=70)
    assert worse.index == 50
    assert better.earliest <= 51 <= better.latest


def test_a_change_below_the_minimum_effect_is_not_told() -> None:
    nights = noisy([0] * 60 + [-2] * 60)
    assert len(find_changes(nights, 0.0015, KNOWN)) == 1
    assert find_changes(nights, 0.0025, KNOWN) == ()


def test_the_p_value_is_that_of_all_cases_together() -> None:
    nights = noisy([0] * 40 + [-3] * 20)
    (alone,), (one_of_70,) = (find_changes(nights, 0.001, KNOWN, n) for n in (1, 70))
    assert one_of_70.adjusted_p == pytest.approx(70 * alone.adjusted_p)
    assert find_changes(nights, 0.001, KNOWN, cases=70, level=one_of_70.adjusted_p / 2) == ()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_few_nights_show_no_change(count: int) -> None:
    assert find_changes(noisy([0, -9, 0, -9, 0][:count]), 0.001, KNOWN) == ()


def test_nights_that_are_all_equal_show_no_change() -> None:
    assert find_changes([Night(0.99)] * 50, 0.001) == ()
    assert find_changes([Night(0.99, 5, 0.0)] * 50, 0.001) == ()


def test_without_a_baseline_the_nights_tell_their_noise() -> None:
    (change,) = find_changes(noisy([0] * 60 + [-4] * 60), 0.001, cases=70)
    assert change.index == 60


def test_simulated_histories_without_a_change_show_none() -> None:
    # at 1 %, at most one of 30 with 96 %
    setting = Setting(nights=30)
    assert false_changes(by_this_test, simulated_sessions(setting, Simulated(), 30)) <= 1


def test_real_rows_without_a_change_show_none() -> None:
    rows, some = digits_rows(), 12
    sessions = exchanged_sessions(Setting("two CPUs", nights=60), rows, some)
    assert false_changes(by_this_test, sessions) <= 1


def test_simulated_changes_are_found_where_they_are() -> None:
    found = Found.by(by_this_test, simulated(Setting(), Simulated(size=2.0), 60))
    assert found.missed <= 5
    assert found.others <= 1
    assert np.median(found.nights_off) <= 1


def test_places_and_differences_are_covered_by_their_intervals() -> None:
    made = simulated(Setting(), Simulated(size=3.0), 60, seed=3)
    found, places, sizes = coverage(made, 3.0 * Simulated.deviation)
    assert found >= 57
    # at 95 %, 53 or more of 60 with 98 %
    assert places >= 0.88 * found
    assert sizes >= 0.88 * found


def test_nights_repeat_where_the_code_does() -> None:
    rng = np.random.default_rng(0)
    draw = Simulated().sample(rng)
    gpu = Machine().nights(rng, [0] * 50, 2, draw)
    cpu = Machine(repeats=0.9).nights(rng, [0] * 50, 2, draw)
    assert len(set(gpu)) > 40
    assert len(set(cpu)) == len({night.origin for night in cpu}) < 15
