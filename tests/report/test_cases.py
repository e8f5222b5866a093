"""The sentence at the report's top: how many cases hold, of those that have something to hold."""

from pathlib import Path

from normbench.cases.case import NO_TARGET, Case
from normbench.report.cases import verdict
from normbench.spec import RunSpec

from ..storage.stored import finished, judged, store_session


def sentence(results: Path, outcomes: dict[str, str]) -> str:
    """Return what is said of cases by norm; ``measured`` is the outcome of one without a target."""
    cases, runs, heard = [], [], {}
    for norm, outcome in outcomes.items():
        target = NO_TARGET if outcome == "measured" else 0.9
        case = Case("digits", "smoke", RunSpec("digits", "digits", norm), target)
        cases.append(case)
        heard[case.id] = "passed" if outcome == "measured" else outcome
        if outcome != "skipped":
            runs.append(finished(case.spec, 0.95))
    session = store_session(results, judged(cases, runs, heard), runs)
    return verdict([session])


def test_the_sentence_counts_those_that_have_a_target_and_were_run(tmp_path: Path) -> None:
    outcomes = {"batch": "passed", "layer": "failed", "none": "measured", "group:4": "skipped"}
    assert sentence(tmp_path, outcomes) == "1 of 2 cases hold; 1 measured; 1 skipped."


def test_one_case_holds_and_measured_ones_hold_nothing(tmp_path: Path) -> None:
    assert sentence(tmp_path / "one", {"batch": "passed"}) == "1 of 1 case holds."
    assert sentence(tmp_path / "none", {"batch": "measured"}) == "1 measured."
