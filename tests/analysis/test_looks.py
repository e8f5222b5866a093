"""How many runs a case gets."""

import dataclasses
from collections.abc import Sequence

import pytest

from normbench.analysis.comparison import CaseComparison, Reference
from normbench.analysis.looks import goes_on, planned_looks
from normbench.analysis.statistics import UNKNOWN, Variance
from normbench.results import Outcome

from .simulation import SPECS, baseline_of, case_of


def test_a_suspicion_is_looked_at_after_two_and_four_further_seeds_and_after_the_last() -> None:
    assert planned_looks(1, least=1, sequential=False, confirm=9) == (1, 3, 5, 10)
    assert planned_looks(10, least=1, sequential=False, confirm=20) == (10, 12, 14, 30)
    assert planned_looks(5, least=1, sequential=False, confirm=4) == (5, 7, 9)
    assert planned_looks(5, least=1, sequential=False, confirm=1) == (5, 6)
    assert planned_looks(5, least=1, sequential=False, confirm=0) == (5,)


def test_auto_looks_after_ever_more_runs_from_the_least_on() -> None:
    assert planned_looks(8, least=1, sequential=True, confirm=9) == (1, 2, 3, 5, 8, 12, 17)
    assert planned_looks(8, least=1, sequential=True, confirm=0) == (1, 2, 3, 5, 8)
    assert planned_looks(8, least=3, sequential=True, confirm=0) == (3, 5, 8)
    assert planned_looks(8, least=8, sequential=True, confirm=0) == (8,)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_planned_runs_are_followed_by_others_where_a_case_is_suspected(outcome: Outcome) -> None:
    found = CaseComparison(SPECS[0], outcome)
    more = goes_on(found, [0.9], 0.9, UNKNOWN, sequential=False)
    assert more is (outcome is Outcome.SUSPECTED)
    assert not goes_on(None, [0.9], 0.9, UNKNOWN, sequential=False)


def test_auto_goes_on_until_a_drop_is_found_or_ruled_out() -> None:
    # mean 0.995; a standard deviation of 0.00075
    noisy = [0.9945, 0.9955, 0.9950, 0.9960, 0.9940] * 2
    reference, spec = Reference([baseline_of(dict.fromkeys(SPECS[:10], noisy))]), SPECS[0]

    def is_open(accuracies: Sequence[float], target: float = 0.98) -> bool:
        found = reference.look(case_of(spec, accuracies), cases=90)
        return goes_on(found, accuracies, target, reference.variance(spec), sequential=True)

    assert is_open([0.9950])
    assert not is_open([0.9965])
    assert not is_open([0.9950, 0.9950, 0.9950])
    assert is_open([0.9943, 0.9943, 0.9943])
    assert is_open([0.9900, 0.9900])
    assert not is_open([0.9900] * 5)
    # close to its target, whatever the baseline says
    assert is_open([0.9965], target=0.996)


def test_auto_holds_what_the_baseline_does_not_have_against_its_target_alone() -> None:
    before = baseline_of({spec: [0.9945, 0.9955] for spec in SPECS[:10]})
    unseen = dataclasses.replace(SPECS[0], norm="group:8")
    reference = Reference([before])
    found = reference.look(case_of(unseen, [0.9]), cases=90)
    assert found.outcome is Outcome.ONLY_NOW
    assert reference.variance(unseen).known
    assert not goes_on(found, [0.9], 0.8, reference.variance(unseen), sequential=True)
    # as is one that was trained with another recipe, which no number of runs would compare
    other = dataclasses.replace(case_of(SPECS[0], [0.9950]), fingerprint="other")
    changed = reference.look(other, cases=90)
    assert changed.outcome is Outcome.NOT_COMPARABLE
    assert not goes_on(changed, [0.9950], 0.98, Variance(1e-7, 9), sequential=True)


def test_two_standard_errors_of_room_are_not_close() -> None:
    # of one run, with a standard deviation of an eighth
    sixty_fourth = Variance(1 / 64, 9)
    assert not goes_on(None, [0.5], 0.25, sixty_fourth, sequential=True)
    assert not goes_on(None, [0.25], 0.5, sixty_fourth, sequential=True)
    assert goes_on(None, [0.5], 0.26, sixty_fourth, sequential=True)
    assert goes_on(None, [0.25], 0.49, sixty_fourth, sequential=True)
