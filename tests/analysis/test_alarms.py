"""What a session raises an alarm for, and in which session it was well for the last time."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.alarms import Subject, alarms, since_when, standing
from normbench.analysis.comparison import CaseComparison, Comparison
from normbench.cases.case import Case, Claim, Contrast
from normbench.check.properties import Checked, Property, Standing
from normbench.check.trace_record import Trace
from normbench.results import ClaimVerdict, Outcome
from normbench.spec import RunSpec
from normbench.storage.checks import store_check
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession, sessions_before
from normbench.storage.traces import store_trace

from ..storage.stored import TRACE, finished, judged, store_session

BATCH = RunSpec("mnist", "mnist", "batch")
LAYER = RunSpec("mnist", "mnist", "layer")
WORSE = Subject("regression of", BATCH.title)


def night(results: Path, day: int, outcome: Outcome, **parts: Any) -> StoredSession:
    """Store a session in which batch normalization came to an outcome beside its baseline."""
    compared = Comparison("monday", (CaseComparison(BATCH, outcome),))
    return store_session(results, name=f"202601{day:02}", comparison=compared, **parts)


def broken(trace: Trace) -> Trace:
    return dataclasses.replace(trace, broken=("step 1: the loss is not the reference's",))


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(Outcome.NO_REGRESSION, "passed"), (Outcome.UNCHANGED, "unchanged")],
)
def test_a_session_in_which_all_is_well_raises_no_alarm(
    tmp_path: Path, outcome: Outcome, verdict: str
) -> None:
    case = StoredCase.of(Case("mnist", "standard", BATCH, 0.9), verdict=verdict)
    session = night(tmp_path, 1, outcome, cases=[case])
    assert standing(session) == {WORSE: True, Subject("case", case.case.id): True}
    assert alarms(session) == []


@pytest.mark.parametrize(
    "outcome", [Outcome.UNDECIDED, Outcome.SUSPECTED, Outcome.NOT_COMPARABLE, Outcome.ONLY_NOW]
)
def test_what_is_left_open_is_neither_well_nor_an_alarm(tmp_path: Path, outcome: Outcome) -> None:
    assert standing(night(tmp_path, 1, outcome)) == {}


def test_alarms_are_regressions_then_what_failed_and_what_is_broken(tmp_path: Path) -> None:
    cases = [
        StoredCase.of(Case("mnist", "standard", spec, 0.9), verdict=verdict)
        for spec, verdict in ((BATCH, "failed"), (LAYER, "diverged"))
    ]
    session = night(tmp_path, 1, Outcome.REGRESSION, cases=cases)
    store_trace(session.folder, broken(TRACE))
    # the case that became worse has missed its target as well, and is told once
    assert [str(subject) for subject in alarms(session)] == [
        "regression of mnist batch-none-b64, 1 epoch",
        f"case {cases[1].case.id}",
        "trace digits-batch-none",
    ]


def test_what_checks_and_traces_found_is_well_or_broken(tmp_path: Path) -> None:
    session = store_session(tmp_path)
    for subject, found in (("batch", Standing.HOLDS), ("my:Norm", Standing.BROKEN)):
        property_of_it = Property("function", "batch of 1", found, "as it is")
        store_check(session.folder, Checked("norm", subject, (property_of_it,), seconds=1.0))
    store_trace(session.folder, TRACE)
    assert standing(session) == {
        Subject("check of", "norm batch"): True,
        Subject("check of", "norm my:Norm"): False,
        Subject("trace", TRACE.name): True,
    }
    assert [str(subject) for subject in alarms(session)] == ["check of norm my:Norm"]


def test_a_skipped_case_is_no_alarm(tmp_path: Path) -> None:
    case = StoredCase.of(Case("mnist", "standard", BATCH, 0.9), verdict="skipped")
    assert alarms(store_session(tmp_path, [case])) == []


def test_a_claim_that_comes_out_otherwise_than_on_record_is_an_alarm(tmp_path: Path) -> None:
    cases = [
        Case("digits", "smoke", RunSpec("digits", "digits", norm), 0.5, seeds=2)
        for norm in ("batch", "layer")
    ]
    accuracies = {"batch": (0.95, 0.952), "layer": (0.90, 0.902)}
    runs = [finished(s, accuracies[s.norm][s.seed]) for case in cases for s in case.specs]
    layer_first = (Contrast(cases[1], cases[0], low=0.0),)
    refuted, holds = (ClaimVerdict.REFUTED,), (ClaimVerdict.HOLDS,)
    claims = [
        Claim("on-record", "No.", "hearsay", "smoke", refuted, 2, layer_first),
        Claim("otherwise", "Yes.", "hearsay", "smoke", holds, 2, layer_first),
    ]
    session = store_session(tmp_path, judged(cases, runs), runs, claims=claims)
    assert alarms(session) == [Subject("claim", "otherwise")]


def nights(results: Path, outcomes: str) -> list[StoredSession]:
    """Store a session a day: + well, - worse, ? undecided."""
    known = {"+": Outcome.NO_REGRESSION, "-": Outcome.REGRESSION, "?": Outcome.UNDECIDED}
    return [
        night(results, day, known[outcome], environment={"commit": f"c{day}"})
        for day, outcome in enumerate(outcomes, 1)
    ]


@pytest.mark.parametrize(
    ("outcomes", "good", "bad"),
    [
        ("+-", "20260101", "20260102"),
        ("++---", "20260102", "20260103"),
        ("+-+--", "20260103", "20260104"),
        ("+?-?-", "20260101", "20260103"),
        ("---", None, "20260101"),
        ("-", None, "20260101"),
    ],
)
def test_since_when_is_between_the_last_good_and_the_first_bad_session_after_it(
    tmp_path: Path, outcomes: str, good: str | None, bad: str
) -> None:
    *_, last = nights(tmp_path, outcomes)
    since = since_when([WORSE], last, sessions_before(last))[WORSE]
    assert (since.good and since.good.name, since.bad.name) == (good, bad)


def test_what_changed_in_between_is_told(tmp_path: Path) -> None:
    before = {"commit": "abc", "torch": "2.14.1"}
    night(tmp_path, 1, Outcome.NO_REGRESSION, environment=before)
    last = night(tmp_path, 2, Outcome.REGRESSION, environment={"commit": "def+"})
    since = since_when([WORSE], last, sessions_before(last))[WORSE]
    assert since.changed == {"torch": ("2.14.1", "2.15.0")}
    assert since.commits == ("abc", "def+")


def test_equal_commits_are_no_suspects(tmp_path: Path) -> None:
    night(tmp_path, 1, Outcome.NO_REGRESSION)
    last = night(tmp_path, 2, Outcome.REGRESSION)
    since = since_when([WORSE], last, sessions_before(last))[WORSE]
    assert since.commits is None
    assert since.changed == {}


def test_each_subject_has_its_own_last_good_session(tmp_path: Path) -> None:
    regressed, well = Outcome.REGRESSION, Outcome.NO_REGRESSION
    group = RunSpec("mnist", "mnist", "group:4")
    sessions = [
        store_session(
            tmp_path,
            name=f"202601{day:02}",
            comparison=Comparison(
                "monday",
                # of the first case, nothing is asked
                tuple(map(CaseComparison, (group, BATCH, LAYER), (well, *outcomes))),
            ),
        )
        for day, outcomes in enumerate(
            ((well, well), (well, well), (well, regressed), (regressed, regressed)), 1
        )
    ]
    *earlier, last = sessions
    layer = Subject("regression of", LAYER.title)
    since = since_when([WORSE, layer], last, earlier[::-1])
    assert {subject: (s.good, s.bad) for subject, s in since.items()} == {
        WORSE: (sessions[2], sessions[3]),
        layer: (sessions[1], sessions[2]),
    }


def test_no_more_sessions_are_read_than_it_takes(tmp_path: Path) -> None:
    *earlier, last = nights(tmp_path, "++-")
    read: list[str] = []

    def told(sessions: Sequence[StoredSession]) -> Iterator[StoredSession]:
        for session in sessions:
            read.append(session.name)
            yield session

    since_when([WORSE], last, told(earlier[::-1]))
    assert read == ["20260102"]
    since_when([], last, told(earlier))
    assert read == ["20260102"]


def test_sessions_that_cannot_be_read_and_those_of_broken_code_are_passed_over(
    tmp_path: Path,
) -> None:
    first, second, _, fourth, last = nights(tmp_path, "++++-")
    (second.folder / "session.json").write_text("{")
    night(tmp_path, 3, Outcome.NO_REGRESSION, planted="no-decay")
    (fourth.folder / "traces").mkdir()
    (fourth.folder / "traces" / "damaged.json").write_text("{")
    found = list(sessions_before(last))
    assert [session.name for session in found] == [fourth.name, first.name]
    assert since_when([WORSE], last, found)[WORSE].good == found[1]
