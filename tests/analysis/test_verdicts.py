"""What a session was to show and did not."""

import dataclasses
from pathlib import Path
from typing import Any

from normbench.analysis.comparison import Reference, compare
from normbench.analysis.verdicts import gaps, shortcomings, to_decide
from normbench.cases.case import Case
from normbench.spec import RunSpec
from normbench.storage.session import read_session
from normbench.training.datasets import find_dataset

from ..storage.stored import edit_document, finished, judged, store_session
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
    assert to_decide(compare(usual, low), "; ") == "; 1 more seed decides 1 of the 1 undecided"
