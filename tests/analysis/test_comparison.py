"""Comparisons: what is worse, what only looks so, and what cannot be told."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pytest

from normbench.analysis.comparison import compare, margin_in_standard_errors, undecided
from normbench.analysis.spread import Spread
from normbench.analysis.statistics import UNKNOWN, Variance
from normbench.results import Outcome
from normbench.spec import RunSpec

from .simulation import SPECS, Setting, baseline_of, case_of, runs_of, simulate

BATCH = RunSpec("mnist", "mnist", "batch", epochs=8)
LAYER = dataclasses.replace(BATCH, norm="layer")
GROUP = dataclasses.replace(BATCH, norm="group:4")
USUAL = [0.9950, 0.9956, 0.9954, 0.9948, 0.9957]


def lower(accuracies: Sequence[float], by: float) -> list[float]:
    return [accuracy - by for accuracy in accuracies]


def outcomes(
    before: Mapping[RunSpec, Sequence[float | None]],
    now: Mapping[RunSpec, Sequence[float | None]],
    **settings: float,
) -> dict[RunSpec, Outcome]:
    return {
        case.spec: case.outcome
        for case in compare(baseline_of(before), baseline_of(now), **settings).cases
    }


def test_a_clear_drop_is_a_regression_and_a_clear_gain_an_improvement() -> None:
    before = {BATCH: USUAL, LAYER: USUAL, GROUP: USUAL}
    now = {BATCH: lower(USUAL, 0.003), LAYER: lower(USUAL, -0.003), GROUP: USUAL}
    assert outcomes(before, now) == {
        BATCH: Outcome.REGRESSION,
        LAYER: Outcome.IMPROVEMENT,
        GROUP: Outcome.NO_DIFFERENCE,
    }


def test_the_difference_has_the_baselines_variance_and_holms_p_value() -> None:
    before = {BATCH: USUAL, LAYER: USUAL}
    now = {BATCH: lower(USUAL, 0.003), LAYER: [0.99] * 5}
    batch, layer = compare(baseline_of(before), baseline_of(now)).cases
    # the baseline's own: squares of the deviations from 0.9953, four degrees of freedom a case
    variance = (9e-8 + 9e-8 + 1e-8 + 25e-8 + 16e-8) * 2 / 8
    assert batch.difference.value == pytest.approx(-0.003)
    assert batch.difference.standard_error == pytest.approx((variance * 2 / 5) ** 0.5)
    assert batch.adjusted_p == pytest.approx(batch.difference.p_below())
    assert layer.adjusted_p == pytest.approx(2 * layer.difference.p_below())


def test_a_significant_difference_below_the_minimum_effect_is_none() -> None:
    before, now = {BATCH: USUAL * 40}, {BATCH: lower(USUAL, 0.0007) * 40}
    adjusted_p = compare(baseline_of(before), baseline_of(now)).cases[0].adjusted_p
    assert adjusted_p is not None
    assert adjusted_p < 1e-9
    assert outcomes(before, now) == {BATCH: Outcome.NO_DIFFERENCE}
    assert outcomes(before, now, minimum_effect=0.0005) == {BATCH: Outcome.REGRESSION}


def test_a_large_difference_of_noisy_cases_is_none() -> None:
    noisy = [0.90, 0.99, 0.95, 0.97]
    now = {BATCH: lower(noisy, 0.01)}
    assert outcomes({BATCH: noisy}, now) == {BATCH: Outcome.NO_DIFFERENCE}


def test_one_collapsed_run_does_not_hide_behind_the_spread_it_makes() -> None:
    now = {BATCH: [*USUAL[:4], 0.1135]}
    assert outcomes({BATCH: USUAL}, now) == {BATCH: Outcome.REGRESSION}


def test_a_run_that_diverged_is_a_regression_unless_the_baselines_did() -> None:
    now = {BATCH: [*USUAL, None]}
    case = compare(baseline_of({BATCH: USUAL}), baseline_of(now)).cases[0]
    assert case.outcome is Outcome.REGRESSION
    assert case.reason == "1 of 6 runs diverged"
    assert outcomes({BATCH: [*USUAL, None]}, now) == {BATCH: Outcome.NO_DIFFERENCE}
    assert outcomes({BATCH: [None]}, {BATCH: USUAL}) == {BATCH: Outcome.NOT_COMPARABLE}


def test_cases_on_one_side_only_are_listed() -> None:
    assert outcomes({BATCH: USUAL, LAYER: USUAL}, {BATCH: USUAL, GROUP: USUAL}) == {
        BATCH: Outcome.NO_DIFFERENCE,
        GROUP: Outcome.ONLY_NOW,
        LAYER: Outcome.ONLY_BASELINE,
    }


def test_one_configuration_with_other_epochs_has_a_name_of_its_own() -> None:
    # as in a whole standard session: in the grid, and in the batch-size sweep
    sweep = dataclasses.replace(BATCH, epochs=6, recipe="mnist-batch-size", train_images=10_000)
    found = compare(baseline_of({BATCH: USUAL}), baseline_of({BATCH: USUAL, sweep: USUAL})).cases
    assert {case.spec.title: case.outcome for case in found} == {
        "mnist batch-none-b64, 8 epochs": Outcome.NO_DIFFERENCE,
        "mnist batch-none-b64, 6 epochs": Outcome.ONLY_NOW,
    }
    assert dataclasses.replace(BATCH, epochs=1).title == "mnist batch-none-b64, 1 epoch"


def test_too_few_runs_are_not_comparable_rather_than_a_pass() -> None:
    assert outcomes({BATCH: [0.995]}, {BATCH: USUAL}) == {BATCH: Outcome.NOT_COMPARABLE}
    # one degree of freedom: at the level 0.007, a drop of 45.5 standard errors
    wide = {BATCH: [0.95, 0.99]}
    assert outcomes(wide, {BATCH: [0.1]}) == {BATCH: Outcome.NOT_COMPARABLE}
    reason = compare(baseline_of(wide), baseline_of({BATCH: [0.1]})).cases[0].reason
    assert reason == "2 and 1 runs are too few to tell"


def test_another_recipe_is_not_comparable() -> None:
    before, now = baseline_of({BATCH: USUAL}), baseline_of({BATCH: lower(USUAL, 0.01)})
    changed = dataclasses.replace(case_of(BATCH, lower(USUAL, 0.01)), fingerprint="other")
    case = compare(before, dataclasses.replace(now, cases={BATCH: changed})).cases[0]
    assert case.outcome is Outcome.NOT_COMPARABLE
    assert "another network or recipe" in case.reason


def test_speed_is_compared_between_equal_machines_only() -> None:
    before = baseline_of({BATCH: USUAL})
    runs = tuple(dataclasses.replace(run, train_seconds=4.0) for run in before.cases[BATCH].runs)
    slow_case = dataclasses.replace(before.cases[BATCH], runs=runs)
    slower = dataclasses.replace(before, cases={BATCH: slow_case})
    assert before.cases[BATCH].images_per_second == 60_000 * 8 / 2
    assert compare(before, slower).speed == pytest.approx(0.5)
    assert compare(before, slower).slow
    assert not compare(before, before).slow
    elsewhere = dataclasses.replace(slower, environment={"processor": "another"})
    assert compare(before, elsewhere).speed is None


def test_room_counts_standard_errors() -> None:
    assert margin_in_standard_errors([0.99, 0.996], 0.99, Variance(2e-6, 8)) == pytest.approx(3.0)
    assert math.isnan(margin_in_standard_errors([0.99], 0.98, UNKNOWN))
    assert margin_in_standard_errors([0.99], 0.98, Variance(0.0, 8)) == math.inf


def test_a_case_is_decided_once_a_drop_is_found_or_ruled_out() -> None:
    # mean 0.995; a standard deviation of 0.00075
    noisy = [0.9945, 0.9955, 0.9950, 0.9960, 0.9940] * 2
    before = baseline_of(dict.fromkeys(SPECS[:10], noisy))
    spread, spec = Spread(before), SPECS[0]

    def is_open(accuracies: Sequence[float], target: float = 0.98) -> bool:
        return undecided(runs_of(spec, accuracies), target, before, spread, cases=90)

    assert is_open([0.9950])
    assert not is_open([0.9965])
    assert not is_open([0.9950, 0.9950, 0.9950])
    assert is_open([0.9943, 0.9943, 0.9943])
    assert is_open([0.9900, 0.9900])
    assert not is_open([0.9900, 0.9900, 0.9900])
    # close to its target, whatever the baseline says
    assert is_open([0.9965], target=0.996)
    # a norm that the baseline does not have is held against its target alone
    unseen = dataclasses.replace(spec, norm="group:8")
    assert not undecided(runs_of(unseen, [0.9]), 0.8, before, spread, cases=90)
    # as is one that was trained with another recipe, which no number of runs would compare
    changed = dataclasses.replace(before.cases[spec], fingerprint="other")
    other = dataclasses.replace(before, cases={**before.cases, spec: changed})
    assert not undecided(runs_of(spec, [0.9950]), 0.98, other, Spread(other), cases=90)


def test_a_session_of_clean_cases_gives_a_false_alarm_at_most_once_in_a_hundred() -> None:
    assert len(SPECS) == 90
    assert simulate(Setting(), sessions=300).false_alarms <= 0.01


def test_a_drop_of_a_fifth_of_a_point_is_found() -> None:
    assert simulate(Setting(drop=0.002), sessions=150).found >= 0.95


def test_adding_runs_while_undecided_saves_runs_and_keeps_the_false_alarm_rate() -> None:
    clean = simulate(Setting(runs=None), sessions=100)
    assert clean.false_alarms <= 0.01
    assert clean.runs < 0.6 * 5
    dropped = simulate(Setting(runs=None, drop=0.002), sessions=100)
    assert dropped.found >= 0.95
