"""Which cases have changed over the stored sessions, since when, and by how much."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from normbench.analysis.change_points import Change, find_changes
from normbench.analysis.nights import Night
from normbench.analysis.statistics import UNKNOWN, Variance
from normbench.analysis.thresholds import minimum_effect
from normbench.results import Outcome
from normbench.storage.history import CaseHistory, Point

# What a case comes to beside its baseline that makes it one to look at.
NOTABLE = (Outcome.REGRESSION, Outcome.SUSPECTED, Outcome.IMPROVEMENT)


@dataclass(frozen=True)
class DatedChange:
    """A change of a case's accuracy with the sessions around it.

    ``after`` is the first session after it, and ``before`` the last one with a result before that;
    with 95 %, the first one after it is ``earliest``, ``latest`` or one between them.
    """

    change: Change
    before: Point
    after: Point
    earliest: Point
    latest: Point


@dataclass(frozen=True)
class Trend:
    """A case's history with how it went; accuracies are fractions.

    ``unit`` is how much matters: the minimum effect, or twice the noise where that is more.
    ``moved`` is the last trained session less the median of those before, None without any.
    """

    case: CaseHistory
    unit: float
    moved: float | None
    changes: tuple[DatedChange, ...] = ()

    @classmethod
    def of(cls, case: CaseHistory, family: int = 1) -> "Trend":
        """Find the changes of a case, in a history of ``family`` cases."""
        nights = trained(case)
        points, values = [point for point, _ in nights], [accuracy for _, accuracy in nights]
        effect = minimum_effect(case.dataset)
        found = find_changes(
            [_night(point, accuracy) for point, accuracy in nights],
            effect,
            _variance(points),
            family,
        )
        return cls(
            case,
            unit=max(effect, 2 * _noise(values)),
            moved=values[-1] - statistics.median(values[:-1]) if len(values) > 1 else None,
            changes=tuple(_dated(change, points, case) for change in found),
        )

    @property
    def is_notable(self) -> bool:
        """Whether the last session itself tells of a change, or has lost its result."""
        *earlier, last = self.case.points
        lost = last.test_accuracy is None and not last.skipped
        return last.outcome in NOTABLE or (lost and any(p.test_accuracy for p in earlier))


def trained(case: CaseHistory) -> list[tuple[Point, float]]:
    """Return the points that add data, with their accuracies: nothing else was trained."""
    return [
        (point, point.test_accuracy)
        for point in case.points
        if point.runs and point.test_accuracy is not None
    ]


def trends(cases: Sequence[CaseHistory], family: int) -> list[Trend]:
    """Return how the cases, of a history of ``family``, went: those that changed first.

    That is the latest change first; then what the last session itself tells of; then the largest
    difference to the sessions before, if it is a unit or more. Others keep their order.
    """
    found = [Trend.of(case, family) for case in cases]
    found.sort(key=lambda trend: (not trend.is_notable, -_units_moved(trend)))
    return sorted(found, key=_last_change, reverse=True)


def _units_moved(trend: Trend) -> float:
    units = abs(trend.moved or 0.0) / trend.unit
    return units if units >= 1 else 0.0


def _last_change(trend: Trend) -> str:
    return max((change.after.session.started for change in trend.changes), default="")


def _dated(change: Change, points: Sequence[Point], case: CaseHistory) -> DatedChange:
    """Find the sessions of a change; ``points`` are those of the case that were trained."""
    after = points[change.index]
    # one that was unchanged is still before it
    earlier = case.points[: case.points.index(after)]
    before = next(point for point in reversed(earlier) if point.test_accuracy is not None)
    return DatedChange(change, before, after, points[change.earliest], points[change.latest])


def _noise(values: Sequence[float]) -> float:
    """Return the standard deviation by the median difference of successive values.

    Of normal values that is 0.6745 * sqrt(2) standard deviations, and a change is in one alone.
    """
    differences = [abs(after - before) for before, after in pairwise(values)]
    return statistics.median(differences) / (0.6745 * math.sqrt(2)) if differences else 0.0


def _night(point: Point, accuracy: float) -> Night:
    told = (point.code, point.session.torch, point.device, point.threads, point.session.machine)
    # rows of older versions do not name their code
    origin = " ".join(map(str, told)) if point.code else ""
    variance = None if point.deviation is None else point.deviation**2
    return Night(accuracy, point.runs, variance, origin)


def _variance(points: Sequence[Point]) -> Variance:
    """Return the variance of one run as the newest session's baseline knows it."""
    for point in reversed(points):
        if point.variance is not None and point.degrees_of_freedom is not None:
            return Variance(point.variance, point.degrees_of_freedom)
    return UNKNOWN
