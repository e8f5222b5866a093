"""Comparisons: what is worse, what only looks so, and what cannot be told."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pytest
from scipy import stats

from normbench.analysis.comparison import (
    CaseComparison,
    Comparison,
    Reference,
    compare,
    margin_in_standard_errors,
)
from normbench.analysis.statistics import UNKNOWN, Estimate, Variance, rank_sum_p
from normbench.analysis.thresholds import FEWEST_RUNS, LOOKS, minimum_effect
from normbench.results import Outcome
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineCase
from normbench.training.datasets import Dataset, note_dataset

from .simulation import SPECS, Setting, baseline_of, case_of, simulate

BATCH = RunSpec("mnist", "mnist", "batch", epochs=8)
LAYER = dataclasses.replace(BATCH, norm="layer")
GROUP = dataclasses.replace(BATCH, norm="group:4")
USUAL = [0.9950, 0.9956, 0.9954, 0.9948, 0.9957]
WINSORIZED = [0.9950, 0.9956, 0.9954, 0.9950, 0.9957]


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
        GROUP: Outcome.NO_REGRESSION,
    }


def test_the_difference_has_the_baselines_variance_and_holms_p_value() -> None:
    before = {BATCH: USUAL, LAYER: USUAL}
    now = {BATCH: lower(USUAL, 0.003), LAYER: [0.99] * 5}
    batch, layer = compare(baseline_of(before), baseline_of(now)).cases
    # the baseline's own: squares of the deviations from 0.9953, four degrees of freedom a case
    variance = (9e-8 + 9e-8 + 1e-8 + 25e-8 + 16e-8) * 2 / 8
    assert batch.difference.value == pytest.approx(-0.003)
    assert batch.difference.standard_error == pytest.approx((variance * 2 / 5) ** 0.5)
    # four looks, and Holm's factor of two for the smaller one; the worst run counts as the next
    lasting = Estimate.difference([x - 0.003 for x in WINSORIZED], USUAL, batch.variance)
    assert batch.adjusted_p == pytest.approx(4 * lasting.p_below())
    assert layer.adjusted_p == pytest.approx(2 * 4 * layer.difference.p_below())


def test_a_significant_difference_below_the_minimum_effect_is_none() -> None:
    before, now = {BATCH: USUAL * 40}, {BATCH: lower(USUAL, 0.0007) * 40}
    adjusted_p = compare(baseline_of(before), baseline_of(now)).cases[0].adjusted_p
    assert adjusted_p is not None
    assert adjusted_p < 1e-9
    assert outcomes(before, now) == {BATCH: Outcome.NO_REGRESSION}
    assert outcomes(before, now, minimum_effect=0.0005) == {BATCH: Outcome.REGRESSION}


def test_a_large_difference_of_noisy_cases_is_undecided() -> None:
    noisy = [0.90, 0.99, 0.95, 0.97]
    now = {BATCH: lower(noisy, 0.01)}
    assert outcomes({BATCH: noisy}, now) == {BATCH: Outcome.UNDECIDED}


def test_collapsed_runs_are_a_suspicion_as_long_as_others_are_sound() -> None:
    # they do not hide behind the spread that they make, and sound cases collapse now and then
    assert outcomes({BATCH: USUAL}, {BATCH: [USUAL[0], 0.1135]}) == {BATCH: Outcome.SUSPECTED}
    # a single one among several is neither, and no sign that nothing is worse
    assert outcomes({BATCH: USUAL}, {BATCH: [*USUAL[:4], 0.1135]}) == {BATCH: Outcome.UNDECIDED}
    assert outcomes({BATCH: USUAL}, {BATCH: [*USUAL[:2], 0.1135]}) == {BATCH: Outcome.UNDECIDED}
    two = {BATCH: [*USUAL[:3], 0.1135, 0.1135]}
    assert outcomes({BATCH: USUAL}, two) == {BATCH: Outcome.SUSPECTED}
    every = {BATCH: [0.1135] * 5}
    assert outcomes({BATCH: USUAL}, every) == {BATCH: Outcome.REGRESSION}


def test_a_regression_is_one_by_ranks_as_well_where_they_can_tell() -> None:
    # of 5 and 20 runs, one of 53,130 ranks is as low as all below; four looks at 1 % allow 132
    before = [0.990 + n / 1e4 for n in range(20)]
    worse = {BATCH: lower(before[:5], 0.02)}
    (case,) = compare(baseline_of({BATCH: before}), baseline_of(worse)).cases
    assert case.outcome is Outcome.REGRESSION
    assert case.adjusted_p == pytest.approx(4 / 53130)
    # three far below are significant by their mean, and two sound ones leave the ranks at chance
    mixed = {BATCH: [0.5, 0.5, 0.5, before[18], before[19]]}
    (case,) = compare(baseline_of({BATCH: before}), baseline_of(mixed)).cases
    assert case.lasting_difference.p_below() < 1e-9
    assert case.outcome is Outcome.SUSPECTED


def test_ranks_that_could_just_be_significant_count() -> None:
    # all of five below all of five: one of 252 choices, looked at four times
    case = CaseComparison(
        BATCH, Outcome.UNDECIDED, USUAL, lower(USUAL, 0.02), Variance(1e-7, 4), 0.001
    )
    assert case.p_worse(4 / 252) == pytest.approx(4 / 252)
    by_mean = 4 * case.lasting_difference.p_below()
    assert by_mean < 1e-4
    assert case.p_worse(0.99 * 4 / 252) == pytest.approx(by_mean)


def test_what_no_mean_shows_is_told_by_its_mean_alone() -> None:
    before = [0.990 + n / 1e4 for n in range(20)]
    # their mean is 0.00089 below, with a standard error of 0.0005
    now = [0.9875, 0.9875, 0.9916, 0.9918, 0.9919]
    case = CaseComparison(BATCH, Outcome.UNDECIDED, before, now, Variance(1e-6, 19), 0.001)
    by_mean = LOOKS * float(stats.t.cdf(-0.00089 / math.sqrt(1e-6 * (1 / 5 + 1 / 20)), 19))
    assert by_mean > 0.05
    assert LOOKS * rank_sum_p(now, before) > by_mean
    assert case.p_worse(0.01) == pytest.approx(by_mean)


def test_no_p_value_of_a_case_is_above_one() -> None:
    before = [0.990 + n / 1e4 for n in range(20)]
    sound = CaseComparison(BATCH, Outcome.UNDECIDED, before, before[:5], Variance(1e-7, 19), 0.001)
    few = dataclasses.replace(sound, now=before[: FEWEST_RUNS - 1])
    assert few.p_worse(0.01) == few.p_better == 1.0
    gain = dataclasses.replace(sound, now=before[-5:])
    assert gain.p_worse(0.01) == 1.0
    assert sound.p_better == 1.0
    # two collapsed, and three better than most: their ranks are at chance
    mixed = dataclasses.replace(sound, now=[0.1, 0.1, *before[-3:]])
    assert mixed.lasting_difference.p_below() < 1e-9
    assert mixed.p_worse(0.01) == 1.0


def test_a_difference_has_to_exceed_the_minimum_effect_and_a_p_value_to_reach_the_level() -> None:
    # in numbers that a computer has exactly; a standard error of 0.001 of either mean
    case = CaseComparison(
        BATCH, Outcome.UNDECIDED, (0.5,) * 5, (0.25,) * 5, Variance(5e-6, 8), minimum_effect=0.25
    )

    def outcome(now: float, p_worse: float = 1.0, p_better: float = 1.0) -> Outcome:
        return dataclasses.replace(case, now=(now,) * 5).judged(0.01, p_worse, p_better).outcome

    assert outcome(0.25, p_worse=0.0) is Outcome.UNDECIDED
    assert outcome(0.24, p_worse=0.01) is Outcome.REGRESSION
    assert outcome(0.24, p_worse=0.011) is Outcome.SUSPECTED
    assert outcome(0.75, p_better=0.0) is Outcome.NO_REGRESSION
    assert outcome(0.76, p_better=0.01) is Outcome.IMPROVEMENT
    assert outcome(0.76, p_better=0.011) is Outcome.NO_REGRESSION


@pytest.mark.parametrize("above", [0.95, 1.05])
def test_verdicts_change_at_the_p_values_that_are_documented(above: float) -> None:
    before, below = {BATCH: USUAL}, above < 1
    # the baseline's variance is 1.5e-7 on four degrees of freedom: an error of a mean of five
    error = math.sqrt(1.5e-7 * 2 / 5)
    # an alarm at 0.01 after four looks; without the worst run the mean is 0.00004 higher
    drop = 0.00004 + error * float(stats.t.isf(above * 0.01 / 4, 4))
    expected = Outcome.REGRESSION if below else Outcome.SUSPECTED
    assert outcomes(before, {BATCH: lower(USUAL, drop)}) == {BATCH: expected}
    # a suspicion at 0.02
    drop = math.sqrt(1.5e-7 * (1 / 2 + 1 / 5)) * float(stats.t.isf(above * 0.02, 4))
    expected = Outcome.SUSPECTED if below else Outcome.UNDECIDED
    pair = {BATCH: [0.9953 - drop] * 2}
    assert outcomes(before, pair, minimum_effect=0.0005) == {BATCH: expected}
    # a drop of 0.001 is ruled out with 95 %
    drop = 0.001 - error * float(stats.t.isf(above * 0.05, 4))
    expected = Outcome.NO_REGRESSION if below else Outcome.UNDECIDED
    assert outcomes(before, {BATCH: lower(USUAL, drop)}) == {BATCH: expected}


def test_the_level_of_a_comparison_can_be_chosen() -> None:
    before, now = {BATCH: USUAL}, {BATCH: lower(USUAL, 0.003)}
    assert outcomes(before, now, level=0.01) == {BATCH: Outcome.REGRESSION}
    assert outcomes(before, now, level=1e-9) == {BATCH: Outcome.SUSPECTED}


def test_few_runs_raise_a_suspicion_and_no_alarm() -> None:
    assert FEWEST_RUNS == 5
    for runs in range(1, FEWEST_RUNS):
        assert outcomes({BATCH: USUAL}, {BATCH: [0.5] * runs}) == {BATCH: Outcome.SUSPECTED}
        case = compare(baseline_of({BATCH: USUAL}), baseline_of({BATCH: [0.5] * runs})).cases[0]
        assert case.adjusted_p == 1.0
    assert outcomes({BATCH: USUAL}, {BATCH: [0.5] * FEWEST_RUNS}) == {BATCH: Outcome.REGRESSION}


def test_what_is_neither_worse_nor_ruled_out_is_undecided() -> None:
    # a standard deviation of 0.05 points around 99.5, and a drop of 0.1 points that matters
    before = {BATCH: USUAL * 4}
    assert outcomes(before, {BATCH: [0.9949]}) == {BATCH: Outcome.UNDECIDED}
    # half of it, known to 0.05 * 2.09 / 8 points
    assert outcomes(before, {BATCH: [0.9949] * 16}) == {BATCH: Outcome.NO_REGRESSION}
    assert outcomes(before, {BATCH: [0.9960]}) == {BATCH: Outcome.NO_REGRESSION}


def test_further_seeds_that_would_decide_are_told() -> None:
    before = baseline_of({BATCH: USUAL * 4, LAYER: USUAL * 4})
    comparison = compare(before, baseline_of({BATCH: [0.9949], LAYER: [0.9946]}))
    assert comparison.counts == {Outcome.UNDECIDED: 2}
    # the mean of the baseline is 0.9953, its variance 1.2e-7 * 40 / 38, t of 38 degrees 1.686:
    # batch needs 0.0004 / (1 + k) + 1.686 * deviation * sqrt(1 / (1 + k) + 1 / 20) <= 0.001,
    # which is so from k = 1 on: 0.0002 + 0.00044; layer with 0.0007 too: 0.00035 + 0.00044
    assert comparison.seeds_to_decide() == (1, 2)
    assert [case.decided_by(0) for case in comparison.cases] == [False, False]
    assert compare(before, before).seeds_to_decide() == (0, 0)


def undecided(needs: float, spec: RunSpec = BATCH) -> CaseComparison:
    """Return a case of one run, equal to the baseline's mean, that is decided by ``needs`` more."""
    before = (0.995,) * 1000
    # a drop of 0.001 is ruled out at 1.645 * deviation * sqrt(1 / (1 + seeds) + 1 / 1000)
    deviation = 0.001 / 1.644854 / math.sqrt(1 / (1 + needs) + 1 / 1000)
    known = Variance(deviation**2, 1e9)
    return CaseComparison(spec, Outcome.UNDECIDED, before, before[:1], known, minimum_effect=0.001)


def test_the_fewest_seeds_that_decide_three_quarters_are_told() -> None:
    cases = tuple(undecided(needs) for needs in (0.5, 2.5, 2.5, 6.5))
    assert Comparison("b", cases).seeds_to_decide() == (3, 3)
    assert Comparison("b", cases[:3]).seeds_to_decide() == (3, 3)
    assert Comparison("b", cases[1:]).seeds_to_decide() == (7, 3)


def test_no_more_than_twenty_seeds_are_asked_for() -> None:
    assert Comparison("b", (undecided(19.5),)).seeds_to_decide() == (20, 1)
    assert Comparison("b", (undecided(20.5),)).seeds_to_decide() == (0, 0)


def test_further_seeds_dilute_the_difference_of_those_that_there_are() -> None:
    # 0.0008 below, of 0.001 that matters, and a deviation of 0.0004:
    # 1.646 * 0.0004 * sqrt(1 / 4 + 1 / 16) is 0.00037; with a fifth run,
    # 0.0008 * 4 / 5 + 1.646 * 0.0004 * sqrt(1 / 5 + 1 / 16) is 0.00098
    case = CaseComparison(
        BATCH,
        Outcome.UNDECIDED,
        (0.995,) * 16,
        (0.9942,) * 4,
        Variance(1.6e-7, 1000),
        minimum_effect=0.001,
    )
    assert [case.decided_by(seeds) for seeds in (0, 1)] == [False, True]


def test_no_seeds_decide_where_the_spread_or_what_matters_is_not_known() -> None:
    case = undecided(1.5)
    assert case.decided_by(20)
    assert not dataclasses.replace(case, variance=UNKNOWN).decided_by(20)
    assert not dataclasses.replace(case, minimum_effect=0.0).decided_by(20)


def test_a_comparison_is_read_as_it_was_stored() -> None:
    case = CaseComparison(
        BATCH,
        Outcome.REGRESSION,
        before=(0.99, 0.98),
        now=(0.5,),
        variance=Variance(1e-6, 7.5),
        minimum_effect=0.002,
        adjusted_p=0.003,
        reason="1 of 2 runs diverged",
        other_code=True,
    )
    bare = CaseComparison(LAYER, Outcome.ONLY_NOW)
    comparison = Comparison("b", (case, bare), speed=0.8, elsewhere=True, idle=("other",))
    assert Comparison.of_stored(comparison.to_stored()) == comparison


def test_of_several_baselines_the_first_that_has_a_case_counts() -> None:
    first, second = baseline_of({BATCH: USUAL}), baseline_of({BATCH: [0.5] * 5, LAYER: USUAL})
    second = dataclasses.replace(second, name="second")
    reference = Reference([first, second])
    found = reference.compare(baseline_of({BATCH: USUAL, LAYER: USUAL, GROUP: USUAL}))
    assert found.baseline == "simulated, second"
    assert found.idle == ()
    assert reference.compare(baseline_of({BATCH: USUAL})).idle == ("second",)
    assert {case.spec: (case.outcome, list(case.before)) for case in found.cases} == {
        BATCH: (Outcome.NO_REGRESSION, USUAL),
        LAYER: (Outcome.NO_REGRESSION, USUAL),
        GROUP: (Outcome.ONLY_NOW, []),
    }


def test_the_variance_is_that_of_the_baseline_which_has_the_case() -> None:
    quiet, noisy = [0.9950, 0.9952], [0.98, 0.99]
    reference = Reference([baseline_of({LAYER: noisy}), baseline_of({BATCH: quiet})])
    assert reference.variance(BATCH).value == pytest.approx(2e-8)
    assert reference.variance(LAYER).value == pytest.approx(5e-5)
    # of one that none of them has, the first one's tells
    assert reference.variance(GROUP).value == pytest.approx(5e-5)
    assert Reference([]).variance(BATCH) == UNKNOWN
    # nor does a baseline of single runs hide what the next one knows
    single = baseline_of({LAYER: quiet[:1]})
    assert Reference([single, baseline_of({BATCH: quiet})]).variance(GROUP).value == (
        pytest.approx(2e-8)
    )
    assert not Reference([single, baseline_of({BATCH: quiet})]).variance(LAYER).known


def test_each_of_several_cases_has_its_share_of_the_level() -> None:
    # of five and five runs, ranks are no better than 4 / 252: enough for one case at this level
    level = 1.5 * 4 / 252
    worse = lower(USUAL, 0.02)
    (alone,) = compare(baseline_of({BATCH: USUAL}), baseline_of({BATCH: worse}), level=level).cases
    assert alone.adjusted_p == pytest.approx(4 / 252)
    # of two cases none could be significant by its ranks, which are left out of account then
    before = baseline_of({BATCH: USUAL, LAYER: USUAL})
    for case in compare(before, baseline_of({BATCH: worse, LAYER: worse}), level=level).cases:
        assert case.adjusted_p == pytest.approx(2 * 4 * case.lasting_difference.p_below())


def test_an_improvement_is_adjusted_for_the_cases_that_are_tested() -> None:
    before = baseline_of({BATCH: USUAL, LAYER: USUAL})
    now = baseline_of({BATCH: lower(USUAL, -0.003), LAYER: USUAL})
    p = compare(before, now).cases[0].p_better
    for level, outcome in ((2.1 * p, Outcome.IMPROVEMENT), (1.9 * p, Outcome.NO_REGRESSION)):
        assert compare(before, now, level=level).cases[0].outcome is outcome


def test_a_part_of_a_selection_has_its_share_of_the_level_of_the_whole() -> None:
    before, now = baseline_of({BATCH: USUAL}), baseline_of({BATCH: lower(USUAL, 0.0017)})
    alone = Reference([before]).compare(now).cases[0]
    part = Reference([before]).compare(now, cases=100).cases[0]
    assert alone.adjusted_p is not None
    assert part.adjusted_p == pytest.approx(100 * alone.adjusted_p)
    assert (alone.outcome, part.outcome) == (Outcome.REGRESSION, Outcome.SUSPECTED)
    assert Reference([before]).look(now.cases[BATCH], 1).outcome is Outcome.REGRESSION
    assert Reference([before]).look(now.cases[BATCH], 100).outcome is Outcome.SUSPECTED
    # a single case has the whole level
    just = Reference([before], level=1.5 * alone.adjusted_p)
    assert just.look(now.cases[BATCH], 1).outcome is Outcome.REGRESSION
    assert just.look(now.cases[BATCH], 2).outcome is Outcome.SUSPECTED


def test_a_run_that_diverged_is_a_regression_unless_the_baselines_did() -> None:
    now = {BATCH: [*USUAL, None]}
    case = compare(baseline_of({BATCH: USUAL}), baseline_of(now)).cases[0]
    assert case.outcome is Outcome.REGRESSION
    assert case.reason == "1 of 6 runs diverged"
    assert outcomes({BATCH: [*USUAL, None]}, now) == {BATCH: Outcome.NO_REGRESSION}
    for before, after in (([None], USUAL), ([*USUAL, None], [None])):
        (case,) = compare(baseline_of({BATCH: before}), baseline_of({BATCH: after})).cases
        assert case.outcome is Outcome.NOT_COMPARABLE
        assert case.reason == "no run of the baseline, or none of now, ended well"
    crashed = case_of(BATCH, [*USUAL, None, None])
    crashed = dataclasses.replace(
        crashed, runs=(*crashed.runs[:-1], dataclasses.replace(crashed.runs[-1], status="crashed"))
    )
    found = Reference([baseline_of({BATCH: USUAL})]).look(crashed, 1)
    assert found.reason == "2 of 7 runs crashed, diverged"


def test_a_case_that_no_baseline_has_is_no_comparison() -> None:
    found = Reference([baseline_of({BATCH: USUAL})]).look(case_of(LAYER, USUAL), 1)
    assert found == CaseComparison(LAYER, Outcome.ONLY_NOW, reason="not in the baseline")


def test_cases_on_one_side_only_are_listed() -> None:
    assert outcomes({BATCH: USUAL, LAYER: USUAL}, {BATCH: USUAL, GROUP: USUAL}) == {
        BATCH: Outcome.NO_REGRESSION,
        GROUP: Outcome.ONLY_NOW,
        LAYER: Outcome.ONLY_BASELINE,
    }
    assert outcomes({LAYER: USUAL}, {GROUP: USUAL}) == {
        GROUP: Outcome.ONLY_NOW,
        LAYER: Outcome.ONLY_BASELINE,
    }


def test_one_configuration_with_other_epochs_has_a_name_of_its_own() -> None:
    # as in a whole standard session: in the grid, and in the batch-size sweep
    sweep = dataclasses.replace(BATCH, epochs=6, recipe="mnist-batch-size", train_images=10_000)
    found = compare(baseline_of({BATCH: USUAL}), baseline_of({BATCH: USUAL, sweep: USUAL})).cases
    assert {case.spec.title: case.outcome for case in found} == {
        "mnist batch-none-b64, 8 epochs": Outcome.NO_REGRESSION,
        "mnist batch-none-b64, 6 epochs": Outcome.ONLY_NOW,
    }
    assert dataclasses.replace(BATCH, epochs=1).title == "mnist batch-none-b64, 1 epoch"


def test_too_few_runs_are_not_comparable_rather_than_a_pass() -> None:
    assert outcomes({BATCH: [0.995]}, {BATCH: USUAL}) == {BATCH: Outcome.NOT_COMPARABLE}
    # one degree of freedom: at 0.02, a drop of 15.9 standard errors, each 0.035 or 0.069
    assert outcomes({BATCH: [0.95, 0.99]}, {BATCH: [0.1]}) == {BATCH: Outcome.SUSPECTED}
    wide = {BATCH: [0.91, 0.99]}
    assert outcomes(wide, {BATCH: [0.1]}) == {BATCH: Outcome.NOT_COMPARABLE}
    reason = compare(baseline_of(wide), baseline_of({BATCH: [0.1]})).cases[0].reason
    assert reason == "2 and 1 runs are too few to tell"


def test_another_recipe_is_not_comparable() -> None:
    before, now = baseline_of({BATCH: USUAL}), baseline_of({BATCH: lower(USUAL, 0.01)})
    changed = dataclasses.replace(case_of(BATCH, lower(USUAL, 0.01)), fingerprint="other")
    case = compare(before, dataclasses.replace(now, cases={BATCH: changed})).cases[0]
    assert case.outcome is Outcome.NOT_COMPARABLE
    assert case.reason == "trained with another network or recipe than the baseline"
    # also where it diverges
    bad = dataclasses.replace(case_of(BATCH, [None]), fingerprint="other")
    (diverged,) = compare(before, dataclasses.replace(now, cases={BATCH: bad})).cases
    assert diverged.outcome is Outcome.NOT_COMPARABLE


def test_another_code_is_told_and_compared_all_the_same() -> None:
    before, now = baseline_of({BATCH: USUAL, LAYER: USUAL}), baseline_of({BATCH: USUAL})

    def ran(case: BaselineCase, code: str) -> BaselineCase:
        runs = tuple(dataclasses.replace(run, code=code) for run in case.runs)
        return dataclasses.replace(case, runs=runs)

    of_old = dataclasses.replace(before, cases={s: ran(c, "old") for s, c in before.cases.items()})
    of_new = dataclasses.replace(now, cases={BATCH: ran(now.cases[BATCH], "new")})
    found = {case.spec: case for case in compare(of_old, of_new).cases}
    assert (found[BATCH].outcome, found[BATCH].other_code) == (Outcome.NO_REGRESSION, True)
    assert CaseComparison.of_stored(found[BATCH].to_stored()).other_code
    # an older baseline does not say
    assert not compare(before, of_new).cases[0].other_code
    assert not compare(of_old, of_old).cases[0].other_code


def test_speed_is_compared_between_equal_machines_only() -> None:
    before = baseline_of({BATCH: USUAL})
    runs = tuple(dataclasses.replace(run, train_seconds=4.0) for run in before.cases[BATCH].runs)
    slow_case = dataclasses.replace(before.cases[BATCH], runs=runs)
    slower = dataclasses.replace(before, cases={BATCH: slow_case})
    assert before.cases[BATCH].images_per_second == 60_000 * 8 / 2
    assert compare(before, slower).speed == pytest.approx(0.5)
    assert compare(before, slower).slow
    assert not compare(before, before).slow
    assert [Comparison("b", (), speed).slow for speed in (0.89, 0.91, None)] == [True, False, False]
    assert not compare(before, slower).elsewhere
    elsewhere = compare(before, dataclasses.replace(slower, environment={"processor": "another"}))
    assert (elsewhere.speed, elsewhere.elsewhere) == (None, True)
    # one name covers several kinds; an older baseline has the name alone, and tells nothing
    told = {"processor": "none", "cpu_model": "17"}
    known = dataclasses.replace(before, environment=told)
    of_its_kind = dataclasses.replace(slower, environment=told)
    of_another = dataclasses.replace(slower, environment={**told, "cpu_model": "1"})
    assert compare(known, of_its_kind).speed == pytest.approx(0.5)
    assert compare(known, of_another).elsewhere
    for key, value in (("cores", 2), ("gpus", ["Some GPU"])):
        other = dataclasses.replace(slower, environment={**told, key: value})
        assert not compare(known, other).elsewhere
        assert compare(dataclasses.replace(other, environment={**told, key: 0}), other).elsewhere
    untold = compare(before, of_its_kind)
    assert (untold.speed, untold.elsewhere) == (None, False)
    # nor does one that was joined of several machines' runs
    joined = dataclasses.replace(before, environment={"processor": "none + another"})
    assert not compare(joined, slower).elsewhere
    # another number of workers is no other machine, and has speeds of its own
    workers = compare(before, dataclasses.replace(slower, workers=4))
    assert (workers.speed, workers.elsewhere) == (None, False)


def test_room_counts_standard_errors() -> None:
    assert margin_in_standard_errors([0.99, 0.996], 0.99, Variance(2e-6, 8)) == pytest.approx(3.0)
    assert math.isnan(margin_in_standard_errors([0.99], 0.98, UNKNOWN))
    assert math.isnan(margin_in_standard_errors([], 0.98, Variance(2e-6, 8)))
    assert margin_in_standard_errors([0.99], 0.98, Variance(0.0, 8)) == math.inf
    assert margin_in_standard_errors([0.98], 0.99, Variance(0.0, 8)) == -math.inf


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


def test_rows_of_an_earlier_session_are_unchanged_and_count_for_nothing() -> None:
    before = baseline_of({BATCH: USUAL, LAYER: USUAL})
    now = baseline_of({LAYER: USUAL})
    taken = {BATCH: case_of(BATCH, USUAL[:1])}
    compared = compare(before, dataclasses.replace(now, unchanged=taken))
    layer, batch = compared.cases
    assert (layer.outcome, batch.outcome) == (Outcome.NO_REGRESSION, Outcome.UNCHANGED)
    assert (batch.spec, tuple(batch.now), batch.adjusted_p) == (BATCH, (), None)
    assert compared.counts == {Outcome.UNCHANGED: 1, Outcome.NO_REGRESSION: 1}


def test_unchanged_cases_that_cannot_be_compared_count_for_nothing_either() -> None:
    before = baseline_of({BATCH: USUAL[:1]})
    now = dataclasses.replace(baseline_of({}), unchanged={BATCH: case_of(BATCH, USUAL[:1])})
    (batch,) = compare(before, now).cases
    assert (batch.outcome, tuple(batch.now)) == (Outcome.NOT_COMPARABLE, ())


def test_rows_of_an_earlier_session_that_are_worse_than_this_baseline_are_no_less_so() -> None:
    before, now = baseline_of({BATCH: USUAL}), baseline_of({})
    taken = {BATCH: case_of(BATCH, lower(USUAL, 0.003))}
    (batch,) = compare(before, dataclasses.replace(now, unchanged=taken)).cases
    assert batch.outcome is Outcome.REGRESSION
    assert len(batch.now) == 5


def on_data(before: str, now: str) -> CaseComparison:
    """Compare equal runs that were trained on data of these fingerprints."""

    def side(content: str) -> Baseline:
        case = case_of(BATCH, USUAL)
        runs = tuple(dataclasses.replace(run, data=content) for run in case.runs)
        return dataclasses.replace(
            baseline_of({}), cases={BATCH: dataclasses.replace(case, runs=runs)}
        )

    return compare(side(before), side(now)).cases[0]


def test_runs_on_other_data_of_the_same_name_are_not_compared() -> None:
    other = on_data("a", "b")
    assert other.outcome is Outcome.NOT_COMPARABLE
    assert other.reason == "trained on other images or labels than the baseline"
    # older baselines do not say what they were trained on
    for before, now in (("a", "a"), ("", "b"), ("a", "")):
        assert on_data(before, now).outcome is Outcome.NO_REGRESSION


def test_what_matters_on_a_data_set_that_nobody_knows_follows_from_its_test_images() -> None:
    for name, images in (("own.sets:small", 100), ("own.sets:large", 40_000)):
        note_dataset(name, Dataset(name, 1_000, 8, test_images=images))
    # a coin's standard deviation is a half
    assert minimum_effect("own.sets:small") == pytest.approx(0.5 / 10)
    assert minimum_effect("own.sets:large") == pytest.approx(0.5 / 200)
    assert minimum_effect("svhn-heldout") == minimum_effect("kmnist") == 0.005
    assert minimum_effect("digits") == 0.01
    assert minimum_effect("fashion-mnist") == 0.003
    assert minimum_effect("cifar10") == 0.005
    assert minimum_effect("mnist-heldout") == minimum_effect("mnist") == 0.001
    small = dataclasses.replace(BATCH, dataset="own.sets:small")
    now = {small: lower(USUAL, 0.04)}
    assert outcomes({small: USUAL}, now) == {small: Outcome.NO_REGRESSION}
    assert outcomes({small: USUAL}, now, minimum_effect=0.001) == {small: Outcome.REGRESSION}
