"""Documents of every schema, as they were once written: read with every figure that they hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.claims import stored_claims
from normbench.analysis.comparison import Comparison, compare
from normbench.results import CaseVerdict, ClaimVerdict, Outcome
from normbench.storage.baseline import Baseline
from normbench.storage.session import Session, SessionError, StoredSession, read_session

from .stored import GOLDEN, TRACE, edit_document, golden_copy

SPEEDS = {"session-1": 1.039, "session-2": 0.968, "session-3": 0.968}
SESSIONS = tuple(SPEEDS)
IMAGES = 449  # of the test set of digits

# Of each case: seeds, target, verdict, rightly classified images by seed, half a 95 % interval.
FAULTY, DIVERGING = "own_norms:Faulty", "own_norms:Diverging"
CASES: dict[str, tuple[int, float, str, list[int], float | None]] = {
    "tiny-batch-l2:0.001-b64": (1, 0.2, "passed", [427], 0.0780),
    "tiny-layer-l2:0.001-b64": (1, 0.999, "failed", [416], 0.0780),
    "tiny-group:4-l2:0.001-b64": (1, 0.92, "marginal", [424], 0.0780),
    f"tiny-{FAULTY}-l2:0.001-b64": (1, 0.2, "failed", [47], 0.0780),
    f"tiny-{DIVERGING}-l2:0.001-b64": (1, 0.2, "diverged", [], None),
    "claims-tiny-batch-l2:0.001-b64": (2, 0.2, "passed", [427, 438], 0.0552),
    "claims-tiny-layer-l2:0.001-b64": (2, 0.999, "failed", [416, 428], 0.0552),
}
# Of each norm: the outcome, rightly classified images of the baseline and now, and the p-value.
COMPARED: dict[str, tuple[Outcome, list[int], list[int], float | None, str]] = {
    "batch": (Outcome.UNDECIDED, [427, 438, 442], [427, 438], 0.353, ""),
    "layer": (Outcome.ONLY_NOW, [], [], None, ""),
    "group:4": (
        Outcome.NOT_COMPARABLE,
        [424, 433, 405],
        [424],
        None,
        "trained with another network or recipe than the baseline",
    ),
    FAULTY: (Outcome.REGRESSION, [427, 438, 442], [47], 4.06e-12, ""),
    DIVERGING: (Outcome.REGRESSION, [427, 438, 442], [], None, "1 of 1 runs diverged"),
    "instance": (Outcome.ONLY_BASELINE, [], [], None, ""),
}


def share(images: list[int]) -> float:
    return sum(images) / len(images) / IMAGES


@pytest.fixture(params=SESSIONS)
def session(request: pytest.FixtureRequest) -> StoredSession:
    return read_session(GOLDEN / str(request.param))


def test_a_session_of_before_faults_were_planted_has_none(session: StoredSession) -> None:
    assert session.planted == ""
    assert {run.planted for run in session.results.values()} == {""}


def test_a_session_has_its_cases_with_targets_verdicts_and_accuracies(
    session: StoredSession,
) -> None:
    stored = {case.case.id: case for case in session.document.cases}
    assert stored.keys() == CASES.keys() == session.cases.keys()
    for name, (seeds, target, verdict, right, margin) in CASES.items():
        case = stored[name]
        assert (case.tier, case.seeds, case.verdict) == ("smoke", seeds, CaseVerdict(verdict)), name
        assert case.target == pytest.approx(target)
        assert case.runs == len(right)
        assert case.test_accuracy == (pytest.approx(share(right)) if right else None)
        assert case.margin_of_error == (margin and pytest.approx(margin, abs=5e-5))


def test_a_session_has_the_published_figures_beside_its_cases(session: StoredSession) -> None:
    published = {name: case.published for name, case in session.cases.items() if case.published}
    assert published.keys() == {"tiny-batch-l2:0.001-b64", "claims-tiny-batch-l2:0.001-b64"}
    assert [figure.test_accuracy for figure in published.values()] == pytest.approx([0.97, 0.97])


def test_a_session_has_the_runs_of_each_case(session: StoredSession) -> None:
    assert len(session.results) == 7
    for name, (seeds, *_, right, _margin) in CASES.items():
        runs = session.runs(session.cases[name])
        assert [run.spec.seed for run in runs] == list(range(seeds)), name
        accuracies = [run.test_accuracy for run in runs if run.status == "ok"]
        assert accuracies == pytest.approx([images / IMAGES for images in right])
    diverged = session.runs(session.cases[f"tiny-{DIVERGING}-l2:0.001-b64"]).results[0]
    assert (diverged.status, diverged.epochs) == ("diverged", ())


def test_a_session_has_where_and_how_it_ran(session: StoredSession) -> None:
    document = session.document
    assert (document.status, document.workers, document.resumed) == ("finished", 1, 0)
    assert document.environment["torch"] == "2.15.0+cu132"
    assert document.options["tier"] == "smoke"
    assert document.started.startswith("2026-11-24T22:3")
    assert not session.sequential


def test_a_session_has_the_verdicts_on_its_claims(session: StoredSession) -> None:
    found = {result.claim.name: result for result in stored_claims(session)}
    verdicts = {name: result.verdict for name, result in found.items()}
    assert verdicts == {
        "batch-beats-layer": ClaimVerdict.REFUTED,
        "means-computed": ClaimVerdict.HOLDS,
    }
    assert found["batch-beats-layer"].claim.expected == (ClaimVerdict.REFUTED,)
    assert found["batch-beats-layer"].claim.seeds == 2
    assert not any(result.unexpected for result in found.values())


@pytest.mark.parametrize("name", SESSIONS[1:])
def test_since_schema_2_a_claim_has_its_evidence_as_well(name: str) -> None:
    found = {r.claim.name: r for r in stored_claims(read_session(GOLDEN / name))}
    (contrast,) = found["batch-beats-layer"].evidence
    assert contrast.subject == "batch-l2:0.001-b64 less layer-l2:0.001-b64"
    assert contrast.estimate is not None
    assert contrast.estimate.value == pytest.approx(share([427, 438]) - share([416, 428]))
    assert [count.found for count in found["means-computed"].evidence] == ["8 means", "12 means"]


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_has_its_comparison(name: str) -> None:
    stored = read_session(GOLDEN / name).document.comparison
    assert stored is not None
    comparison = Comparison.of_stored(stored)
    assert comparison.baseline == "golden"
    assert comparison.speed == pytest.approx(SPEEDS[name], 1e-3)
    # schema 1 knew cases of the baseline alone by their titles, of which no spec can be made
    expected = {k: v for k, v in COMPARED.items() if name != "session-1" or k != "instance"}
    assert {case.spec.norm for case in comparison.cases} == expected.keys()
    for case in comparison.cases:
        outcome, before, now, p, reason = expected[case.spec.norm]
        assert (case.outcome, case.reason) == (outcome, reason)
        assert (len(case.before), len(case.now)) == (len(before), len(now))
        assert case.adjusted_p == (p and pytest.approx(p, rel=2e-3))
        if before and now:
            assert case.difference.value == pytest.approx(share(now) - share(before))


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_the_baseline_has_its_cases_and_runs(schema: int) -> None:
    baseline = Baseline.read(GOLDEN / f"baseline-{schema}.json")
    assert baseline.traces == ((TRACE,) if schema > 1 else ())
    right = {norm: before for norm, (_, before, *_) in COMPARED.items() if norm != "layer"}
    right["instance"] = [429, 432, 425]
    cases = {spec.norm: case for spec, case in baseline.cases.items()}
    assert cases.keys() == right.keys()
    for norm, case in cases.items():
        assert [run.seed for run in case.runs] == [0, 1, 2]
        assert case.accuracies == pytest.approx([images / IMAGES for images in right[norm]])
        assert case.fingerprint == ("0" * 12 if norm == "group:4" else "2ad369566b42")
    assert (baseline.name, baseline.workers, baseline.sequential) == ("golden", 1, False)
    assert baseline.environment["torch"] == "2.15.0+cu132"


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_compares_with_the_baseline_by_todays_rules(name: str) -> None:
    session = read_session(GOLDEN / name)
    again = compare(Baseline.read(GOLDEN / "baseline-1.json"), Baseline.of_session(session))
    for case in again.cases:
        outcome, _, _, p, reason = COMPARED[case.spec.norm]
        # its one run is no alarm any more, whatever it came to
        today = Outcome.SUSPECTED if case.spec.norm == FAULTY else outcome
        assert (case.outcome, case.reason) == (today, reason)
        assert case.adjusted_p == (p and 1.0)


def with_later_fields(document: Any) -> Any:
    """Return a document each object of which has one more field, as a later version may add."""
    if isinstance(document, list):
        return [with_later_fields(value) for value in document]
    if not isinstance(document, dict):
        return document
    return {**{k: with_later_fields(v) for k, v in document.items()}, "later": {"is": [1, None]}}


def test_fields_of_a_later_version_change_nothing_and_are_kept(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    known = read_session(folder)
    document = json.loads((folder / "session.json").read_text())
    added = with_later_fields(document)
    edit_document(folder, **added)
    read = read_session(folder)
    assert read.cases == known.cases
    assert [r.verdict for r in stored_claims(read)] == [r.verdict for r in stored_claims(known)]
    kept = json.loads(read.document.to_json())
    assert kept["later"] == {"is": [1, None]}
    for places in (
        kept["environment"],
        kept["options"],
        *kept["cases"],
        *kept["claims"],
        kept["claims"][0]["contrasts"][0],
        kept["comparison"],
        *kept["comparison"]["cases"],
    ):
        assert places["later"] == {"is": [1, None]}


def test_a_resumed_session_keeps_the_fields_of_a_later_version(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    edit_document(folder, session="session-2", status="interrupted", later={"is": [1, None]})
    (tmp_path / "latest").write_text("runs/session-2\n")
    session = Session.interrupted(tmp_path, {})
    session.write("interrupted")
    written = json.loads((folder / "session.json").read_text())
    assert written["later"] == {"is": [1, None]}
    assert written["resumed"] == 1
    assert written["started"] == "2026-11-24T22:33:21+00:00"


def test_an_interrupted_session_of_schema_1_goes_on_as_one_of_today(tmp_path: Path) -> None:
    folder = golden_copy("session-1", tmp_path)
    edit_document(folder, session="session-1", status="interrupted")
    (tmp_path / "latest").write_text("runs/session-1\n")
    session = Session.interrupted(tmp_path, {"tier": "smoke"})
    session.cases = read_session(folder).document.cases
    session.write("interrupted")
    assert json.loads((folder / "session.json").read_text())["schema"] == 3
    assert read_session(folder).cases.keys() == CASES.keys()


def test_a_copy_that_was_called_otherwise_goes_on_where_it_lies(tmp_path: Path) -> None:
    # its document still has the name that it was begun under
    folder = golden_copy("session-2", tmp_path)
    edit_document(folder, status="interrupted")
    (tmp_path / "latest").write_text("runs/session-2\n")
    assert Session.interrupted(tmp_path, {}).folder == folder


def test_a_schema_from_the_future_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    edit_document(folder, schema=4)
    with pytest.raises(
        SessionError,
        match=r"^cannot read the session .*session\.json: its schema is 4, and this version reads "
        r"1, 2 and 3; a later version of normbench wrote it: upgrade normbench; expected a .*$",
    ) as refused:
        read_session(folder)
    assert "\n" not in str(refused.value)
