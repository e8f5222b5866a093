"""What a session was to show and did not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from normbench.analysis.comparison import CaseComparison, Comparison, Reference, compare
from normbench.analysis.spread import Spread
from normbench.analysis.statistics import UNKNOWN, Variance
from normbench.analysis.verdicts import (
    case_verdict,
    gaps,
    replay_lines,
    shortcomings,
    to_decide,
    verdict_counts,
    with_verdicts,
    without_comparison,
)
from normbench.cases.case import NO_TARGET, Case
from normbench.results import CaseVerdict, Outcome, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.storage.documents import StoredCase
from normbench.storage.session import read_session
from normbench.storage.traces import store_trace
from normbench.training.datasets import find_dataset

from ..storage.stored import TRACE, edit_document, finished, judged, store_session
from .simulation import baseline_of

SPECS = [RunSpec("digits", "digits", norm, recipe="digits") for norm in ("batch", "layer", "none")]
CASES = [Case("tiny", "smoke", spec, 0.5) for spec in SPECS]
USUAL = [0.970, 0.971, 0.972, 0.971, 0.971]


def found(folder: Path, outcomes: list[str], **options: Any) -> list[str]:
    """Return the shortcomings of a session whose tests came out so."""
    by_case = {case.id: outcome for case, outcome in zip(CASES, outcomes, strict=True)}
    runs = [finished(spec, 0.9) for spec, o in zip(SPECS, outcomes, strict=True) if o != "skipped"]
    comparison = options.pop("comparison", None)
    cases = judged(CASES, runs, by_case)
    return shortcomings(store_session(folder, cases, runs, options=options, comparison=comparison))


def test_a_session_that_ran_something_has_no_shortcoming(tmp_path: Path) -> None:
    assert found(tmp_path, ["passed", "failed", "skipped"]) == []


def test_a_data_set_that_was_another_one_in_some_runs_is_no_ground(tmp_path: Path) -> None:
    facts = dataclasses.replace(find_dataset("digits"), content="0123+4567")
    runs = [finished(spec, 0.9) for spec in SPECS]
    cases = judged(CASES, runs, {case.id: "passed" for case in CASES})
    folder = store_session(tmp_path, cases, runs).folder
    edit_document(folder, datasets={"digits": dataclasses.asdict(facts)})
    assert shortcomings(read_session(folder)) == [
        "the data set digits was not the same in all runs (0123+4567): expected equal images and "
        "labels each time that it is loaded"
    ]


def test_a_session_that_ran_nothing_has_shown_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, ["skipped"] * 3) == ["nothing was run: 3 cases skipped, of all selected"]


def test_what_was_skipped_is_one_to_the_strict(tmp_path: Path) -> None:
    assert found(tmp_path, ["passed", "skipped", "skipped"], strict=True) == [
        "--bench-strict: 2 cases skipped: tiny-layer-none-b64, tiny-none-none-b64"
    ]


def test_cases_that_cannot_be_compared_are_no_comparison(tmp_path: Path) -> None:
    # a single run tells no spread
    single = compare(baseline_of({SPECS[0]: [0.9]}), baseline_of({SPECS[0]: [0.9]}))
    assert found(tmp_path, ["passed"] * 3, comparison=single) == [
        "nothing was compared with the baseline simulated (1 not comparable): expected a case that "
        "both have, with two runs or more in the baseline"
    ]


def test_a_regression_is_no_pass(tmp_path: Path) -> None:
    worse = compare(baseline_of({SPECS[0]: USUAL}), baseline_of({SPECS[0]: [0.8] * 5}))
    assert found(tmp_path, ["passed"] * 3, comparison=worse) == [
        "1 case worse than in simulated: digits batch-none-b64, 1 epoch"
    ]


def test_each_of_several_baselines_is_to_compare_something(tmp_path: Path) -> None:
    usual = baseline_of({SPECS[0]: USUAL})
    other = dataclasses.replace(baseline_of({SPECS[1]: USUAL}), name="other")
    compared = Reference([usual, other]).compare(usual)
    assert found(tmp_path, ["passed"] * 3, comparison=compared) == [
        "nothing was compared with the baseline other: expected cases that both have"
    ]


def test_gaps_of_a_comparison_are_told_a_line_each() -> None:
    noisy = [0.95, 0.97, 0.96, 0.94, 0.98] * 4
    before = baseline_of({SPECS[0]: noisy, SPECS[1]: noisy})
    now = baseline_of({SPECS[0]: [0.96], SPECS[1]: [0.5], SPECS[2]: [0.9]})
    comparison = compare(before, now)
    only_now = "1 case not in the baseline: digits none-none-b64, 1 epoch"
    assert gaps(comparison, 0.25) == [
        only_now,
        "2 of 2 compared cases undecided or suspected, more than 25 %; "
        "8 more seeds decide 1 of the 1 undecided",
    ]
    assert gaps(comparison, 1.0) == [only_now]
    assert gaps(comparison, 1.0, suspicion=True) == [
        "1 case suspected: digits layer-none-b64, 1 epoch",
        only_now,
    ]


def test_what_would_decide_is_told_where_something_is_undecided() -> None:
    usual = baseline_of({SPECS[0]: USUAL * 4})
    assert to_decide(compare(usual, usual)) == ""
    # 0.9 points below, of 1 that matters, with a deviation of 0.07: 0.45 + 0.07 once there are two
    low = baseline_of({SPECS[0]: [0.962]})
    assert to_decide(compare(usual, low)) == "1 more seed decides 1 of the 1 undecided"
    assert to_decide(compare(usual, low), "; ") == "; 1 more seed decides 1 of the 1 undecided"


def test_what_a_shard_leaves_open_is_not_held_against_it(tmp_path: Path) -> None:
    single = compare(baseline_of({SPECS[0]: [0.9]}), baseline_of({SPECS[0]: [0.9]}))
    passed = ["passed"] * 3
    assert found(tmp_path / "part", passed, comparison=single, shard="1/2", strict=True) == []
    whole = found(tmp_path / "whole", passed, comparison=single, strict=True)
    assert [line.partition(":")[0] for line in whole] == [
        "nothing was compared with the baseline simulated (1 not comparable)",
        "--bench-strict",
    ]


def test_traces_without_cases_need_no_comparison_of_cases(tmp_path: Path) -> None:
    nothing = Comparison("b", ())
    told = [
        "nothing was compared with the baseline b (no case): expected a case that both have, with "
        "two runs or more in the baseline"
    ]
    session = store_session(tmp_path / "empty", comparison=nothing)
    assert shortcomings(session) == told
    store_trace(session.folder, TRACE)
    assert shortcomings(read_session(session.folder)) == []
    # with cases, traces do not stand in for them
    runs = [finished(spec, 0.9) for spec in SPECS]
    session = store_session(tmp_path / "both", judged(CASES, runs), runs, comparison=nothing)
    store_trace(session.folder, TRACE)
    assert shortcomings(read_session(session.folder)) == told


def test_what_was_not_compared_is_counted_by_its_reason() -> None:
    cases = (
        CaseComparison(SPECS[0], Outcome.NOT_COMPARABLE),
        CaseComparison(SPECS[1], Outcome.ONLY_NOW),
        CaseComparison(SPECS[2], Outcome.ONLY_NOW),
    )
    (told,) = without_comparison(Comparison("b", cases))
    assert "the baseline b (1 not comparable, 2 not in the baseline): expected" in told


def test_a_strict_session_may_leave_a_quarter_open_or_what_it_says(tmp_path: Path) -> None:
    noisy = [0.95, 0.97, 0.96, 0.94, 0.98] * 4
    before = baseline_of({SPECS[0]: noisy, SPECS[1]: noisy})
    half = compare(before, baseline_of({SPECS[0]: [0.96], SPECS[1]: noisy}))
    assert [case.outcome for case in half.cases] == [Outcome.UNDECIDED, Outcome.NO_REGRESSION]
    passed = ["passed"] * 3
    (told,) = found(tmp_path / "quarter", passed, comparison=half, strict=True)
    assert told.startswith(
        "--bench-strict: 1 of 2 compared cases undecided or suspected, more than 25 %; "
    )
    options = {"strict": True, "max_undecided": 0.5}
    assert found(tmp_path / "half", passed, comparison=half, **options) == []


def test_three_cases_are_named_and_the_rest_counted() -> None:
    cases = tuple(
        CaseComparison(dataclasses.replace(SPECS[0], epochs=n), Outcome.ONLY_NOW)
        for n in range(2, 7)
    )
    (three,), (five,) = (gaps(Comparison("b", cases[:n]), 0.25) for n in (3, 5))
    listed = ", ".join(f"digits batch-none-b64, {n} epochs" for n in (2, 3, 4))
    assert three == f"3 cases not in the baseline: {listed}"
    assert five == f"5 cases not in the baseline: {listed} and 2 more"


def test_verdicts_are_counted_the_most_frequent_first() -> None:
    verdicts = ["failed", "passed", None, "passed"]
    cases = [StoredCase.of(CASES[0], verdict=verdict) for verdict in verdicts]
    assert [*verdict_counts(cases).items()] == [(CaseVerdict.PASSED, 2), (CaseVerdict.FAILED, 1)]


def told_of(folder: Path, *runs: RunResult, **options: Any) -> list[str]:
    """Return what a session under torch 2.15.0 says of the rows that it took, and of its audits."""
    return replay_lines(store_session(folder, runs=runs, options=options))


def test_rows_that_were_taken_are_told_by_their_session_and_torch(tmp_path: Path) -> None:
    taken = [
        dataclasses.replace(finished(spec, 0.9), replayed=session, torch=torch)
        for spec, session, torch in zip(
            SPECS, ("s1", "s1", "s2"), ("2.15.0", "2.15.0", "2.14.0"), strict=True
        )
    ]
    lines = [
        "2 rows taken from the session s1",
        "1 row taken from the session s2, trained by torch 2.14.0: the traces are equal to the bit",
    ]
    own = finished(SPECS[0].with_seed(1), 0.9)
    assert told_of(tmp_path / "untold", own, *taken) == lines
    assert told_of(tmp_path / "asked", own, *taken, replay_audit=2.5) == [
        *lines,
        "audit: nothing was trained again, as no case takes 2.5 s or less",
    ]
    # where no row was taken, none is missed
    assert told_of(tmp_path / "trained", own, replay_audit=2.5) == []


def test_an_audit_is_told_with_what_it_found(tmp_path: Path) -> None:
    audit = dataclasses.replace(finished(SPECS[0], 0.9), audits="s1")
    differing = dataclasses.replace(finished(SPECS[1], 0.9), audits="s1", message="it differs")
    own = finished(SPECS[2], 0.9)
    assert told_of(tmp_path / "equal", audit, own, replay_audit=2.5) == [
        "audit: 1 run trained again, all equal to the stored rows"
    ]
    assert told_of(tmp_path / "differing", audit, differing, own) == [
        "audit: 2 runs trained again, 1 of them differ"
    ]


KNOWN = Variance(1e-4, 9)


def verdict_of(
    outcome: str, *runs: RunResult, target: float = 0.5, variance: Variance = KNOWN
) -> CaseVerdict:
    return case_verdict(Case("tiny", "smoke", SPECS[0], target), outcome, runs, variance)


def test_a_case_is_called_by_what_its_runs_came_to() -> None:
    run, end = finished(SPECS[0], 0.9), RunResult(SPECS[0], "diverged", "the loss is not finite")
    assert verdict_of("passed", run) is CaseVerdict.PASSED
    assert verdict_of("failed", run) is CaseVerdict.FAILED
    assert verdict_of("failed", run, end) is CaseVerdict.DIVERGED
    # a test that passes all the same knows better
    assert verdict_of("passed", run, end) is CaseVerdict.PASSED
    assert verdict_of("skipped") is CaseVerdict.SKIPPED
    taken = dataclasses.replace(run, replayed="s1")
    assert verdict_of("passed", taken) is CaseVerdict.UNCHANGED
    assert verdict_of("failed", taken) is CaseVerdict.FAILED
    assert verdict_of("passed", run, taken) is CaseVerdict.PASSED
    assert verdict_of("passed", run, target=NO_TARGET) is CaseVerdict.MEASURED
    assert verdict_of("failed", run, target=NO_TARGET) is CaseVerdict.FAILED


def test_a_case_with_less_than_two_standard_errors_of_room_is_marginal() -> None:
    run, sixty_fourth = finished(SPECS[0], 0.5), Variance(1 / 64, 9)
    assert verdict_of("passed", run, target=0.26, variance=sixty_fourth) is CaseVerdict.MARGINAL
    assert verdict_of("failed", run, target=0.26, variance=sixty_fourth) is CaseVerdict.FAILED
    # two times an eighth, exactly
    assert verdict_of("passed", run, target=0.25, variance=sixty_fourth) is CaseVerdict.PASSED
    assert verdict_of("passed", run, target=0.49, variance=UNKNOWN) is CaseVerdict.PASSED


def stored_case(*runs: RunResult, seeds: int = 2, **settings: Any) -> StoredCase:
    """Return what is stored of a case of two planned runs, held against a baseline of its own."""
    case = Case("tiny", "smoke", SPECS[0], 0.5, seeds=2)
    before = {SPECS[0]: [0.970, 0.972, 0.974]}
    (stored,) = with_verdicts(
        [case],
        {case.id: settings.pop("outcome", "passed")},
        {run.spec.key: run for run in runs},
        Spread(Baseline.of_runs("runs", "2026-01-01", 2, False, {}, runs)),
        Reference([baseline_of(before)]),
        seeds={case.id: seeds},
        **settings,
    )
    return stored


def seeded(seed: int, accuracy: float, **changed: Any) -> RunResult:
    return dataclasses.replace(finished(SPECS[0].with_seed(seed), accuracy), **changed)


def test_a_stored_case_has_the_figures_of_its_runs() -> None:
    stored = stored_case(seeded(0, 0.90), seeded(1, 0.92), finished(SPECS[1], 0.1))
    assert (stored.verdict, stored.runs, stored.seeds, stored.confirming) == ("passed", 2, 2, 0)
    assert stored.test_accuracy == pytest.approx(0.91)
    assert stored.reason == ""
    # of one run, the variance over the seeds is that of the baseline: 4e-6 on two degrees
    single = stored_case(seeded(0, 0.90))
    assert single.margin_of_error == pytest.approx(float(stats.t.ppf(0.975, 2)) * 0.002)
    # of two, it is that of their own, on one degree of freedom
    stored = stored_case(seeded(0, 0.90), seeded(1, 0.92))
    assert stored.margin_of_error == pytest.approx(float(stats.t.ppf(0.975, 1)) * 0.01)


def test_runs_beyond_those_planned_confirm() -> None:
    stored = stored_case(*(seeded(n, 0.9 + n / 100) for n in range(4)), seeds=4)
    assert (stored.seeds, stored.confirming, stored.runs) == (4, 2, 4)
    fewer = stored_case(seeded(0, 0.9), seeds=1)
    assert (fewer.seeds, fewer.confirming, fewer.runs) == (1, 0, 1)


def test_rows_of_an_earlier_session_have_a_mean_and_no_margin() -> None:
    taken = seeded(0, 0.90, replayed="s1"), seeded(1, 0.92, replayed="s1")
    stored = stored_case(*taken)
    assert (stored.verdict, stored.runs, stored.margin_of_error) == ("unchanged", 0, None)
    assert stored.test_accuracy == pytest.approx(0.91)
    assert stored_case(taken[0], seeded(1, 0.92)).runs == 1


def test_a_case_whose_runs_all_ended_badly_says_why_once() -> None:
    ends = [RunResult(SPECS[0].with_seed(n), "diverged", "not\n  finite") for n in range(2)]
    stored = stored_case(*ends, outcome="failed", skipped={"tiny-batch-none-b64": "no data"})
    assert (stored.verdict, stored.runs, stored.test_accuracy) == ("diverged", 0, None)
    assert stored.reason == "not finite"
    other = RunResult(SPECS[0].with_seed(1), "crashed", "killed")
    assert stored_case(ends[0], other, outcome="failed").reason == "not finite; killed"
    skipped = stored_case(outcome="skipped", skipped={"tiny-batch-none-b64": "no data"})
    assert (skipped.verdict, skipped.reason) == ("skipped", "no data")


def test_a_case_without_an_outcome_hides_none_after_it() -> None:
    own = Spread(baseline_of({}))
    stored = with_verdicts(CASES, {CASES[1].id: "failed"}, {}, own, None)
    assert [case.verdict for case in stored] == [None, "failed", None]
    assert [case.case for case in stored] == CASES


@pytest.mark.parametrize("outcome", list(Outcome))
def test_whatever_a_case_comes_to_beside_its_baseline_is_a_comparison(outcome: Outcome) -> None:
    none = (Outcome.NOT_COMPARABLE, Outcome.ONLY_NOW, Outcome.ONLY_BASELINE)
    told = without_comparison(Comparison("b", (CaseComparison(SPECS[0], outcome),)))
    assert (told == []) is (outcome not in none)
