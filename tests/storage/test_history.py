"""How cases went over the stored sessions, whatever schema each is of."""

from pathlib import Path

import pytest

from normbench.cases.case import Case
from normbench.spec import RunSpec
from normbench.storage.history import SESSIONS, history
from normbench.storage.session import StoredSession, read_session

from .stored import edit_document, finished, golden_copy, judged, store_session

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")
OTHER = RunSpec("digits", "digits", "layer", recipe="digits")


def session(results: Path, name: str, accuracy: float, *specs: RunSpec) -> StoredSession:
    """Store a session of one run of each spec."""
    cases = [Case("digits", "smoke", spec, 0.5) for spec in specs]
    runs = [finished(spec, accuracy) for spec in specs]
    return store_session(results, judged(cases, runs), runs, name=name)


def test_sessions_of_every_schema_stand_side_by_side(tmp_path: Path) -> None:
    golden_copy("session-1", tmp_path)
    found = history(read_session(golden_copy("session-2", tmp_path)))
    # the diverged case has no accuracy
    assert {case["case"] for case in found} == {
        "tiny: digits batch-l2:0.001-b64, 2 epochs",
        "tiny: digits layer-l2:0.001-b64, 2 epochs",
        "tiny: digits group:4-l2:0.001-b64, 2 epochs",
        "tiny: digits own_norms:Faulty-l2:0.001-b64, 2 epochs",
        "claims-tiny: digits batch-l2:0.001-b64, 2 epochs",
        "claims-tiny: digits layer-l2:0.001-b64, 2 epochs",
    }
    first = next(case for case in found if case["case"].startswith("claims-tiny: digits batch"))
    assert first["title"] == "digits batch-l2:0.001-b64, 2 epochs"
    old, new = first["points"]
    assert (old["session"], new["session"]) == (
        "20261124-223252-661545-14547",
        "20261124-223321-029057-14595",
    )
    assert old["started"] < new["started"]
    for point in (old, new):
        # 427 and 438 images of 449
        assert point["accuracy"] == pytest.approx(100 * 865 / 898, abs=5e-4)
        assert point["interval"] == pytest.approx(5.515, abs=5e-4)
        assert (point["seeds"], point["torch"], point["commit"]) == (2, "2.15.0+cu132", None)


def test_a_session_looks_back_and_not_ahead(tmp_path: Path) -> None:
    session(tmp_path, "a", 0.91, SPEC)
    middle = session(tmp_path, "b", 0.92, SPEC)
    session(tmp_path, "c", 0.93, SPEC)
    (case,) = history(middle)
    assert [point["accuracy"] for point in case["points"]] == [91.0, 92.0]
    assert [point["interval"] for point in case["points"]] == [None, None]


def test_a_case_that_only_one_session_has_is_left_out(tmp_path: Path) -> None:
    session(tmp_path, "a", 0.91, SPEC, OTHER)
    (case,) = history(session(tmp_path, "b", 0.92, SPEC))
    assert case["case"] == "digits: digits batch-none-b64, 1 epoch"
    assert history(session(tmp_path / "elsewhere", "only", 0.9, SPEC)) == []


def test_a_session_of_broken_code_has_no_history_and_stands_in_none(tmp_path: Path) -> None:
    session(tmp_path, "a", 0.91, SPEC)
    cases, runs = [Case("digits", "smoke", SPEC, 0.5)], [finished(SPEC, 0.3)]
    stored = judged(cases, runs)
    planted = store_session(tmp_path, stored, runs, name="b", planted="no-decay")
    assert history(planted) == []
    (case,) = history(session(tmp_path, "c", 0.92, SPEC))
    assert [point["accuracy"] for point in case["points"]] == [91.0, 92.0]


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    session(tmp_path, "a", 0.91, SPEC)
    edit_document(session(tmp_path, "b", 0.92, SPEC).folder, schema=3)
    (session(tmp_path, "c", 0.93, SPEC).folder / "session.json").write_bytes(b"\x80\x81")
    (tmp_path / "runs" / "d").mkdir()
    (tmp_path / "runs" / ".DS_Store").write_bytes(b"\0")
    edit_document(golden_copy("session-1", tmp_path), options=None)
    (case,) = history(session(tmp_path, "t", 0.94, SPEC))
    assert [point["accuracy"] for point in case["points"]] == [91.0, 94.0]


def test_a_nightly_of_two_months_is_looked_at(tmp_path: Path) -> None:
    for night in range(SESSIONS + 3):
        last = session(tmp_path, f"{night:03}", 0.9 + night / 1000, SPEC)
    (case,) = history(last)
    assert len(case["points"]) == 60
    assert case["points"][0]["accuracy"] == pytest.approx(90.3)
