"""How cases went: which come first, the scale of their lines, and what is told of a change."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.trends import Trend, trends
from normbench.cases.case import Case
from normbench.report.history import (
    course,
    document,
    overview,
    scale,
    small_multiples,
    sparkline,
    told_change,
)
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.history import CaseHistory, Machine, Point, SessionEntry
from normbench.storage.session import StoredSession, read_session

from ..storage.stored import edit_document, finished, judged, store_session

MACHINE = Machine("Some CPU", "25", "17", "1", "avx2 fma", 2, "")


def night(number: int, **changed: Any) -> SessionEntry:
    entry = SessionEntry(
        name=f"s{number:02}",
        started=f"2026-01-{number + 1:02}T03:04:05+00:00",
        status="finished",
        tier="smoke",
        planted="",
        torch="2.14.0",
        python="3.11.7",
        commit=f"c{number}",
        machine=MACHINE,
        verdicts={"passed": 2, "failed": 1},
        outcomes={},
    )
    return dataclasses.replace(entry, **changed)


NIGHTS = [night(number) for number in range(30)]


def point(session: SessionEntry, accuracy: float | None, **changed: Any) -> Point:
    found = Point(
        session=session,
        verdict="diverged" if accuracy is None else "passed",
        outcome=None,
        runs=0 if accuracy is None else 1,
        test_accuracy=accuracy,
        margin_of_error=None,
        deviation=None,
        variance=None,
        degrees_of_freedom=None,
        images_per_second=1234.5,
        device="cpu",
        threads="1",
        fingerprint="f",
        code="",
        replayed="",
    )
    return dataclasses.replace(found, **changed)


def case_of(points: Sequence[Point], norm: str = "batch", dataset: str = "digits") -> CaseHistory:
    title = f"{dataset} {norm}-none-b64, 8 epochs"
    return CaseHistory(dataset, title, dataset, norm, "none", 64, 8, tuple(points))


def case(
    accuracies: Sequence[float | None],
    nights: Sequence[SessionEntry] = NIGHTS,
    norm: str = "batch",
    dataset: str = "digits",
) -> CaseHistory:
    points = [point(session, a) for session, a in zip(nights, accuracies, strict=False)]
    return case_of(points, norm, dataset)


# A standard deviation of about 0.3 points, as that of the digits.
NOISE = [0.003, -0.001, 0.0, -0.004, 0.002, 0.001, -0.003, 0.004, -0.002, 0.0]
STEADY = [0.97 + noise for noise in NOISE * 3]
DROPPED = [accuracy - 0.05 * (number >= 20) for number, accuracy in enumerate(STEADY)]


def line(accuracies: Sequence[float | None], dataset: str = "digits") -> str:
    return sparkline(Trend.of(case(accuracies, dataset=dataset)), NIGHTS[: len(accuracies)])


def test_the_scale_reaches_two_minimum_effects_to_either_side_of_the_median() -> None:
    # a minimum effect is 1 point on the digits, and 0.1 on MNIST
    assert scale(Trend.of(case([0.97, 0.971, 0.969]))) == pytest.approx((0.95, 0.99))
    assert scale(Trend.of(case([0.99] * 3))) == pytest.approx((0.97, 1.0))
    mnist = case([0.97, 0.971, 0.969], dataset="mnist")
    # where successive nights differ by 0.15 points, twice their noise is 0.3145
    assert scale(Trend.of(mnist)) == pytest.approx(
        (0.97 - 2 * 0.003145, 0.97 + 2 * 0.003145), abs=1e-6
    )


def test_noise_makes_a_line_that_is_nearly_level() -> None:
    # eight steps of half a point, the median at the lower edge of the fifth
    assert line(STEADY[:10]) == "▅▄▅▄▅▅▄▅▄▅"
    # ten times as wide, and much wider than the minimum effect: the axis is that of the noise
    wide = line([0.8 + 10 * noise for noise in NOISE])
    assert set(wide) == {"▄", "▅"}


def test_a_drop_is_a_step_and_a_collapse_does_not_hide_it() -> None:
    assert line([0.97, 0.97, 0.97, 0.95, 0.95]) == "▅▅▅▁▁"
    # steps of a point, from six minimum effects below the median to two above it
    assert line([0.975] * 6 + [0.1] + [0.975] * 2 + [0.955] * 2) == "▇▇▇▇▇▇▁▇▇▅▅"


def test_what_is_no_accuracy_has_a_sign_of_its_own() -> None:
    sessions = NIGHTS[:5]
    points = [
        point(sessions[0], 0.97),
        point(sessions[1], 0.97, runs=0),
        point(sessions[2], None),
        point(sessions[4], None, verdict="skipped"),
    ]
    assert sparkline(Trend.of(case_of(points)), sessions) == "▅·x--"
    assert line([None, None]) == "xx"


def test_an_unchanged_session_is_no_data() -> None:
    points = [point(NIGHTS[0], 0.97), *(point(n, 0.97, runs=0) for n in NIGHTS[1:])]
    trend = Trend.of(case_of(points))
    assert trend.moved is None
    # the 25 nights that only repeat the last one make no change of it
    changed = [*case(DROPPED[:1]).points, point(NIGHTS[1], 0.92)]
    repeated = [point(n, 0.92, runs=0) for n in NIGHTS[2:]]
    assert Trend.of(case_of([*changed, *repeated])).changes == ()


def test_cases_that_changed_come_first() -> None:
    regression = [point(s, 0.97) for s in NIGHTS]
    regression[-1] = point(NIGHTS[-1], 0.97, outcome="regression")
    early = [accuracy - 0.05 * (number >= 10) for number, accuracy in enumerate(STEADY)]
    found = trends(
        [
            case(STEADY, norm="steady"),
            case([*STEADY[:-1], 0.96], norm="moved by a point"),
            case([*STEADY[:-1], 0.99], norm="moved by two"),
            case_of(regression, "regression"),
            case(early, norm="changed early"),
            case([*STEADY[:-1], None], norm="lost"),
            case(DROPPED, norm="changed"),
            case([None] * 30, norm="never had one"),
            case(STEADY, norm="steady as well"),
        ],
        family=9,
    )
    assert [trend.case.norm for trend in found] == [
        *("changed", "changed early", "regression", "lost", "moved by two", "moved by a point"),
        *("steady", "never had one", "steady as well"),
    ]


def test_a_change_is_told_with_what_else_changed() -> None:
    new = dataclasses.replace(MACHINE, cores=4)
    later = [night(n, torch="2.15.0", machine=new, commit="d") for n in range(20, 30)]
    nights = [*NIGHTS[:20], *later]
    (change,) = Trend.of(case(DROPPED, nights)).changes
    assert (change.before.session.name, change.after.session.name) == ("s19", "s20")
    told = told_change(change)
    assert told.startswith("-5.00 (-5.")
    assert (
        ") points since s20 (2026-01-21 03:04): commit c19 -> d, torch 2.14.0 -> 2.15.0, another "
        "machine; adjusted p " in told
    )
    (same,) = Trend.of(case(DROPPED, [night(n, commit="c") for n in range(30)])).changes
    assert ": same commit, torch and machine; adjusted p " in told_change(same)


def test_an_unchanged_session_is_still_before_a_change() -> None:
    points = list(case(DROPPED).points)
    points[19] = point(NIGHTS[19], points[18].test_accuracy, runs=0, replayed="s18", fingerprint="")
    (change,) = Trend.of(case_of(points)).changes
    assert (change.before.session.name, change.after.session.name) == ("s19", "s20")
    assert ": commit c19 -> c20; adjusted p" in told_change(change)


def test_the_overview_has_sessions_cases_and_what_is_unreadable() -> None:
    planted = night(1, planted="no-decay", outcomes={"regression": 1, "no regression": 2})
    sessions = [NIGHTS[0], planted, NIGHTS[2]]
    found = [Trend.of(case([0.97, 0.965], [NIGHTS[0], NIGHTS[2]]))]
    text = overview(sessions, found, {"s05": "cannot read s05: gone"}, with_changes=False)
    lines = text.splitlines()
    assert lines[0].split() == [
        *("session", "started", "(UTC)", "status", "tier", "torch", "commit", "cases"),
        *("verdicts", "beside", "the", "baseline", "planted"),
    ]
    assert lines[2].split()[:4] == ["s00", "2026-01-01", "03:04", "finished"]
    assert lines[3].endswith("3  2 passed, 1 failed  2 no regression, 1 regression  no-decay")
    assert "passed over: cannot read s05: gone" in lines
    assert lines[-3].split() == [
        *("digits:", "digits", "batch-none-b64,", "8", "epochs", "▅-▄", "96.50", "-0.50"),
        *("2", "passed"),
    ]
    told = overview(sessions, found, {}, with_changes=True)
    assert told.endswith(
        "No accuracy has changed by more than its minimum effect, as far as these sessions tell."
    )
    changed = overview(NIGHTS, [Trend.of(case(DROPPED))], {}, with_changes=True)
    assert changed.splitlines()[-1].startswith("digits: digits batch-none-b64, 8 epochs: -5.00 (")


def test_the_course_of_a_case_has_a_row_for_each_session() -> None:
    several = {"runs": 3, "deviation": 0.0012, "margin_of_error": 0.002, "outcome": "undecided"}
    trend = Trend.of(case_of([point(NIGHTS[0], 0.97), point(NIGHTS[2], 0.9712, **several)]))
    lines = course(trend, NIGHTS[:3], with_changes=False).splitlines()
    assert lines[:2] == ["digits: digits batch-none-b64, 8 epochs", "▄-▅  (95.06 to 99.06 %)"]
    assert lines[3].split() == [
        *("session", "started", "(UTC)", "test", "%", "±", "sd", "n", "images/s", "torch"),
        *("commit", "verdict", "beside", "the", "baseline"),
    ]
    assert lines[5].split() == [
        *("s00", "2026-01-01", "03:04", "97.00", "1", "1234", "2.14.0", "c0", "passed"),
    ]
    assert lines[6].split() == [
        *("s02", "2026-01-03", "03:04", "97.12", "0.20", "0.12", "3", "1234", "2.14.0", "c2"),
        *("passed", "undecided"),
    ]


def test_a_change_stands_in_the_row_of_the_first_session_after_it() -> None:
    lines = course(Trend.of(case(DROPPED)), NIGHTS, with_changes=True).splitlines()
    (row,) = (row for row in lines if row.startswith("s20"))
    assert row.split()[-4] == "-5.00"
    assert lines[-1].startswith("-5.00 (")
    assert "change" not in course(Trend.of(case(DROPPED)), NIGHTS, with_changes=False)


def test_machines_are_told_where_they_differ() -> None:
    other = dataclasses.replace(MACHINE, instruction_sets="avx2 avx512f fma")
    gpu = Machine("Other CPU", None, None, None, None, 16, "H100")
    machines = [MACHINE, other, gpu, MACHINE]
    nights = [night(n, machine=machine) for n, machine in enumerate(machines)]
    text = course(Trend.of(case([0.97] * 4, nights)), nights, with_changes=False)
    rows = [row.split()[-1] for row in text.splitlines() if row.startswith("s0")]
    assert rows == ["A", "B", "C", "A"]
    assert text.endswith(
        "A: Some CPU (family 25, model 17, stepping 1), 2 cores, avx2 fma\n"
        "B: Some CPU (family 25, model 17, stepping 1), 2 cores, avx2 avx512f fma\n"
        "C: Other CPU, 16 cores, H100"
    )
    assert "machine" not in course(Trend.of(case([0.97] * 4)), NIGHTS[:4], with_changes=False)


def test_programs_read_fractions_and_names() -> None:
    found = [Trend.of(case(DROPPED))]
    read = json.loads(json.dumps(document(NIGHTS, found, {"x": "why"}, with_changes=True)))
    assert (read["schema"], read["unreadable"], len(read["sessions"])) == (1, {"x": "why"}, 30)
    assert read["sessions"][0]["machine"]["cpu_family"] == "25"
    (told,) = read["cases"]
    assert told["name"] == "digits: digits batch-none-b64, 8 epochs"
    assert told["points"][0]["session"] == "s00"
    assert told["points"][0]["test_accuracy"] == 0.973
    (change,) = told["changes"]
    assert (change["before"], change["after"]) == ("s19", "s20")
    assert change["difference"] == pytest.approx(-0.05)
    assert change["interval"][0] < -0.05 < change["interval"][1]
    assert "changes" not in document(NIGHTS, found, {}, with_changes=False)["cases"][0]


def nights_of(results: Path, accuracies: Sequence[float | None]) -> list[StoredSession]:
    """Store a session of one case for each accuracy; the runs of None have diverged."""
    spec = RunSpec("digits", "digits", "batch", recipe="digits")
    stored = []
    for number, accuracy in enumerate(accuracies):
        case = Case("digits", "smoke", spec, 0.5)
        run = RunResult(spec, "diverged", "the loss was not finite")
        runs = [run if accuracy is None else finished(spec, accuracy)]
        outcomes = {case.id: "failed" if accuracy is None else "passed"}
        name = f"s{number:02}"
        session = store_session(results, judged([case], runs, outcomes), runs, name=name)
        edit_document(session.folder, started=f"2026-01-{number + 1:02}T00:00:00+00:00")
        stored.append(read_session(session.folder))
    return stored


def test_a_small_chart_has_points_changes_and_the_baselines_band(tmp_path: Path) -> None:
    *_, before, last = nights_of(tmp_path, [round(a, 4) for a in DROPPED])
    title = "digits batch-none-b64, 1 epoch"
    drawn = small_multiples(last, {title: [96.0, 99.0]})
    assert len(drawn["sessions"]) == 30
    assert drawn["sessions"][1] == "2026-01-02 00:00, commit abc, torch 2.15.0"
    (chart,) = drawn["cases"]
    assert chart["case"] == f"digits: {title}"
    assert chart["changed"]
    # 97 on one side and 92 on the other; the axis reaches to the band
    assert chart["caption"] == "92.00 % (-5.00 since 2026-01-21), 30 sessions"
    assert (chart["band"], chart["high"]) == ([96.0, 99.0], 99.0)
    assert chart["points"][0] == [0, 97.3, None, 1, ""]
    ((place, told),) = chart["changes"]
    assert place == 20
    assert told.startswith("-5.00 (")
    # a session looks back, and not ahead
    assert len(small_multiples(before, {})["cases"][0]["points"]) == 29


def test_a_case_that_has_lost_its_accuracy_is_shown_as_changed(tmp_path: Path) -> None:
    first, second, third, last = nights_of(tmp_path, [None, None, 0.97, None])
    assert small_multiples(first, {})["cases"] == []
    # neither has an accuracy to be beside
    assert small_multiples(second, {})["cases"] == []
    assert small_multiples(third, {})["cases"] == []
    (chart,) = small_multiples(last, {})["cases"]
    assert chart["changed"]
    assert chart["caption"] == "diverged, before 97.00 %, 1 session"
    assert chart["points"][-1] == [3, None, None, 0, "diverged"]
