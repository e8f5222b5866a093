"""What of a case's stored sessions its trend is drawn from: runs, their scatter, code, machine."""

import dataclasses
from typing import Any

import pytest

from normbench.analysis.change_points import find_changes
from normbench.analysis.nights import Night
from normbench.analysis.thresholds import minimum_effect
from normbench.analysis.trends import Trend, trends

from ..report.test_history import MACHINE, NIGHTS, STEADY, case_of, night, point


def changes(last: dict[str, Any] | None = None, **told: Any) -> int:
    """Return how many changes a drop from 97 to 95 % is after five nights, with what points tell.

    ``last`` is what the last of them tells in place of that.
    """
    accuracies = [0.97, 0.972, 0.97, 0.972, 0.97, 0.95, 0.952, 0.95, 0.952, 0.95]
    points = [point(s, a, **told) for s, a in zip(NIGHTS, accuracies, strict=False)]
    points[-1] = dataclasses.replace(points[-1], **(last or {}))
    return len(Trend.of(case_of(points)).changes)


def test_the_noise_is_that_of_the_newest_baseline_that_knows_it() -> None:
    assert changes() == 1
    # a standard deviation of ten points
    wide: dict[str, Any] = {"variance": 1e-2, "degrees_of_freedom": 20.0}
    assert changes(**wide) == 0
    assert changes(wide) == 0
    assert changes({"variance": 1e-6}, **wide) == 1
    for missing in ({"variance": None}, {"degrees_of_freedom": None}):
        assert changes(missing, **wide) == 0
        assert changes({**wide, **missing}) == 1


def test_the_noise_is_that_of_seeds_where_nights_have_several() -> None:
    # a standard error of either mean of 0.45 or 22 thousandths
    assert changes(runs=5, deviation=0.001) == 1
    assert changes(runs=5, deviation=0.05) == 0


def test_equal_code_on_machines_that_take_turns_counts_once_each() -> None:
    other = dataclasses.replace(MACHINE, instruction_sets="avx2 avx512f fma")
    machines = (MACHINE, other)
    points, nights = [], []
    for n in range(40):
        code, machine = n // 4, n % 2
        accuracy = STEADY[2 * code + machine] - 0.05 * (code >= 6)
        points.append(point(night(n, machine=machines[machine]), accuracy, code=f"c{code}"))
        nights.append(Night(accuracy, origin=f"{code} {machine}"))
    (found,) = Trend.of(case_of(points), family=3).changes
    effect = minimum_effect("digits")
    assert (found.change,) == find_changes(nights, effect, cases=3)
    # without the code, each night that changes the machine would be news
    untold = [dataclasses.replace(each, origin="") for each in nights]
    assert (found.change,) != find_changes(untold, effect, cases=3)
    (without,) = Trend.of(case_of([dataclasses.replace(p, code="") for p in points]), 3).changes
    assert (without.change,) == find_changes(untold, effect, cases=3)
    assert trends([case_of(points)], family=3)[0].changes == (found,)
    # of a history of this case alone, the change is surer
    (alone,) = Trend.of(case_of(points)).changes
    assert (alone.change,) == find_changes(nights, effect)
    assert alone.change.adjusted_p < found.change.adjusted_p


def test_a_case_has_moved_by_its_last_night_less_the_median_of_those_before() -> None:
    accuracies = [0.90, 0.97, 0.96, 0.98]
    points = [point(s, a) for s, a in zip(NIGHTS, accuracies, strict=False)]
    assert Trend.of(case_of(points)).moved == pytest.approx(0.02)
    assert Trend.of(case_of(points[:1])).moved is None
