"""How cases went over the stored sessions, whatever schema each is of."""

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from normbench.cases.case import Case
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.history import (
    CaseHistory,
    HistoryError,
    Machine,
    SessionEntry,
    find_case,
    open_history,
)
from normbench.storage.session import StoredSession

from .stored import edit_document, finished, golden_copy, judged, store_session

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")
OTHER = RunSpec("digits", "digits", "layer", recipe="digits")
# 427 and 438 images of 449
GOLDEN_MEAN = 865 / 898


def store(results: Path, name: str, accuracy: float, *specs: RunSpec) -> StoredSession:
    """Store a session of one run of each spec."""
    cases = [Case("digits", "smoke", spec, 0.5) for spec in specs]
    runs = [finished(spec, accuracy) for spec in specs]
    return store_session(results, judged(cases, runs), runs, name=name)


def known(results: Path) -> tuple[list[SessionEntry], list[CaseHistory], dict[str, str]]:
    """Return all sessions, all cases, and what is unreadable."""
    with open_history(results / "runs") as history:
        sessions = history.sessions()
        return sessions, history.cases(sessions), dict(history.unreadable)


def accuracies(results: Path) -> dict[str, list[float | None]]:
    return {case.title: [p.test_accuracy for p in case.points] for case in known(results)[1]}


BATCH = "digits batch-none-b64, 1 epoch"
LAYER = "digits layer-none-b64, 1 epoch"


def test_sessions_of_every_schema_stand_side_by_side(tmp_path: Path) -> None:
    golden_copy("session-2", tmp_path)
    golden_copy("session-1", tmp_path)
    sessions, cases, _ = known(tmp_path)
    assert [session.name for session in sessions] == ["session-1", "session-2"]
    # in the order of the newest one
    assert [case.name for case in cases] == [
        "tiny: digits batch-l2:0.001-b64, 2 epochs",
        "tiny: digits layer-l2:0.001-b64, 2 epochs",
        "tiny: digits group:4-l2:0.001-b64, 2 epochs",
        "tiny: digits own_norms:Faulty-l2:0.001-b64, 2 epochs",
        "tiny: digits own_norms:Diverging-l2:0.001-b64, 2 epochs",
        "claims-tiny: digits batch-l2:0.001-b64, 2 epochs",
        "claims-tiny: digits layer-l2:0.001-b64, 2 epochs",
    ]
    for point in cases[5].points:
        assert point.test_accuracy == pytest.approx(GOLDEN_MEAN, abs=5e-6)
        assert point.margin_of_error == pytest.approx(0.05515, abs=5e-6)
        # of two values, the deviation is their difference over the root of two
        assert point.deviation == pytest.approx(11 / 449 / 2**0.5)
        assert (point.runs, point.session.torch, point.session.commit) == (2, "2.15.0+cu132", None)
        assert (point.device, point.unchanged) == ("cpu", False)
    assert [(p.verdict, p.test_accuracy) for p in cases[4].points] == [("diverged", None)] * 2
    assert sessions[1].verdicts == {"failed": 3, "passed": 2, "marginal": 1, "diverged": 1}
    assert sessions[1].outcomes["regression"] == 2
    assert sessions[1].cases == 7


def test_a_point_knows_its_outcome_and_the_variance_beside_the_baseline(tmp_path: Path) -> None:
    golden_copy("session-2", tmp_path)
    case = find_case(known(tmp_path)[1], "Faulty")
    document = json.loads((tmp_path / "runs" / "session-2" / "session.json").read_text())
    (compared,) = (
        c for c in document["comparison"]["cases"] if c["spec"]["norm"] == "own_norms:Faulty"
    )
    (point,) = case.points
    assert point.outcome == compared["outcome"] == "regression"
    assert compared["variance"] == {
        "value": point.variance,
        "degrees_of_freedom": point.degrees_of_freedom,
    }


def test_speed_is_the_median_of_the_runs_images_per_second(tmp_path: Path) -> None:
    runs = [
        dataclasses.replace(
            run, epochs=tuple(dataclasses.replace(e, train_seconds=seconds) for e in run.epochs)
        )
        for run, seconds in zip(
            (finished(SPEC.with_seed(n), 0.9) for n in range(3)), (4.0, 2.0, 1.0), strict=True
        )
    ]
    case = Case("digits", "smoke", SPEC, 0.5, seeds=3)
    store_session(tmp_path, judged([case], runs), runs)
    # 1,348 images an epoch, in 2 seconds
    assert known(tmp_path)[1][0].points[0].images_per_second == 674


def test_sessions_are_in_the_order_in_which_they_started(tmp_path: Path) -> None:
    for name, started in (("c", "2026-01-01"), ("a", "2026-01-03"), ("b", "2026-01-02")):
        folder = store(tmp_path, name, 0.9, SPEC).folder
        edit_document(folder, started=f"{started}T00:00:00+00:00")
    with open_history(tmp_path / "runs") as history:
        assert [session.name for session in history.sessions()] == ["c", "b", "a"]
        assert [session.name for session in history.sessions(2)] == ["b", "a"]
        assert [session.name for session in history.sessions(until="b")] == ["c", "b"]
        assert [session.name for session in history.sessions(1, until="b")] == ["b"]
        assert history.sessions(until="nowhere") == []


def test_cases_are_those_of_the_sessions_asked_for_the_newest_ones_first(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    store(tmp_path, "b", 0.92, OTHER)
    assert list(accuracies(tmp_path).items()) == [(LAYER, [0.92]), (BATCH, [0.91])]
    with open_history(tmp_path / "runs") as history:
        assert [case.title for case in history.cases(history.sessions(1))] == [LAYER]


def test_a_session_of_broken_code_is_listed_and_stands_in_no_cases_history(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    cases, runs = [Case("digits", "smoke", SPEC, 0.5)], [finished(SPEC, 0.3)]
    store_session(tmp_path, judged(cases, runs), runs, name="b", planted="no-decay")
    store(tmp_path, "c", 0.92, SPEC)
    assert accuracies(tmp_path) == {BATCH: [0.91, 0.92]}
    assert [session.planted for session in known(tmp_path)[0]] == ["", "no-decay", ""]


def test_a_case_that_was_not_trained_again_is_unchanged(tmp_path: Path) -> None:
    (stored,) = store(tmp_path, "a", 0.91, SPEC).document.cases
    taken = dataclasses.replace(finished(SPEC, 0.91), replayed="a")
    store_session(tmp_path, [stored.model_copy(update={"runs": 0})], [taken], name="b")
    first, second = known(tmp_path)[1][0].points
    assert (first.unchanged, second.unchanged) == (False, True)
    assert (second.test_accuracy, second.runs, second.replayed) == (0.91, 0, "a")
    assert (first.images_per_second, second.images_per_second) == (674, None)


def test_what_cannot_be_read_is_passed_over_and_told(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    edit_document(store(tmp_path, "b", 0.92, SPEC).folder, schema=4)
    (store(tmp_path, "c", 0.93, SPEC).folder / "session.json").write_bytes(b"\x80\x81")
    (store(tmp_path, "d", 0.93, SPEC).folder / "runs.jsonl").write_text("{}\n")
    (tmp_path / "runs" / "e").mkdir()
    # neither is a session
    (tmp_path / "runs" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "runs" / ".import-1").mkdir()
    store(tmp_path, "t", 0.94, SPEC)
    for _ in range(2):
        sessions, (case,), unreadable = known(tmp_path)
        assert [session.name for session in sessions] == ["a", "t"]
        assert [point.test_accuracy for point in case.points] == [0.91, 0.94]
        assert sorted(unreadable) == ["b", "c", "d", "e"]
    assert "its schema is 4" in unreadable["b"]
    assert "not a text in UTF-8" in unreadable["c"]
    assert "line 1: schema is missing" in unreadable["d"]
    assert "No such file" in unreadable["e"]


def test_sessions_that_are_added_changed_or_removed_are_noticed(tmp_path: Path) -> None:
    first = store(tmp_path, "a", 0.91, SPEC)
    assert accuracies(tmp_path) == {BATCH: [0.91]}
    second = store(tmp_path, "b", 0.92, SPEC)
    assert accuracies(tmp_path) == {BATCH: [0.91, 0.92]}
    # as a session that was resumed
    store(tmp_path, "b", 0.9312, SPEC, OTHER)
    assert accuracies(tmp_path) == {BATCH: [0.91, 0.9312], LAYER: [0.9312]}
    shutil.rmtree(first.folder)
    assert accuracies(tmp_path) == {BATCH: [0.9312], LAYER: [0.9312]}
    (second.folder / "session.json").unlink()
    assert accuracies(tmp_path) == {}


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    assert accuracies(tmp_path) == {BATCH: [0.91]}
    before = (tmp_path / "history.sqlite").stat()

    def parsed(row: object) -> RunResult:
        raise AssertionError("a row was read again")

    monkeypatch.setattr(RunResult, "from_row", parsed)
    assert accuracies(tmp_path) == {BATCH: [0.91]}
    after = (tmp_path / "history.sqlite").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_sessions_that_were_merged_count_once(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    store(tmp_path, "b", 0.92, OTHER)
    merged = store(tmp_path, "c", 0.93, SPEC, OTHER)
    options = merged.document.options
    edit_document(merged.folder, options=options | {"merged": ["a", "b"]})
    assert accuracies(tmp_path) == {BATCH: [0.93], LAYER: [0.93]}
    # the page of one of them shows it all the same
    with open_history(tmp_path / "runs") as history:
        assert [session.name for session in history.sessions(until="b")] == ["b"]
    shutil.rmtree(merged.folder)
    assert accuracies(tmp_path) == {BATCH: [0.91], LAYER: [0.92]}


def damage(file: Path, kind: str) -> None:
    if kind == "gone":
        file.unlink()
    elif kind == "no database":
        file.write_bytes(b"nonsense" * 1000)
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut off":
        file.write_bytes(file.read_bytes()[:9000])
    else:
        connection = sqlite3.connect(file)
        connection.executescript("UPDATE points SET test_accuracy = 0.5; PRAGMA user_version = 999")
        connection.close()


@pytest.mark.parametrize("kind", ["gone", "no database", "empty", "cut off", "another version"])
def test_an_index_that_is_gone_damaged_or_of_another_version_is_made_anew(
    tmp_path: Path, kind: str
) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    assert accuracies(tmp_path) == {BATCH: [0.91]}
    file = tmp_path / "history.sqlite"
    whole = file.read_bytes()
    damage(file, kind)
    assert accuracies(tmp_path) == {BATCH: [0.91]}
    assert file.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"history.sqlite", "runs"}


def test_where_the_index_cannot_be_kept_it_is_made_in_memory(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    # nothing can take a folder's place; root may write to any other
    (tmp_path / "history.sqlite" / "in the way").mkdir(parents=True)
    assert accuracies(tmp_path) == {BATCH: [0.91]}
    assert {path.name for path in tmp_path.iterdir()} == {"history.sqlite", "runs"}


def test_beside_sessions_that_lie_elsewhere_nothing_is_left(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    (tmp_path / "runs").rename(tmp_path / "artefacts")
    with open_history(tmp_path / "artefacts") as history:
        assert len(history.sessions()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["artefacts"]


def test_two_that_bring_it_up_to_date_at_once_leave_one_that_is_whole(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    with open_history(tmp_path / "runs") as first:
        store(tmp_path, "b", 0.92, SPEC)
        with open_history(tmp_path / "runs") as second:
            assert len(second.sessions()) == 2
        assert len(first.sessions()) == 1
    assert accuracies(tmp_path) == {BATCH: [0.91, 0.92]}


def test_no_folder_has_no_history(tmp_path: Path) -> None:
    assert known(tmp_path) == ([], [], {})
    assert list(tmp_path.iterdir()) == []


def test_a_machine_is_known_by_all_that_its_session_says(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.91, SPEC)
    (session,) = known(tmp_path)[0]
    assert session.machine == Machine("Some CPU", None, None, None, None, 2, "")
    told = {"processor": "X", "cpu_family": 25, "cpu_model": "17", "cpu_stepping": "1"}
    assert Machine.of({**told, "gpus": ["H100", "H100"], "cores": "?"}) == Machine(
        "X", "25", "17", "1", None, None, "H100, H100"
    )


NAMED = (("digits", "batch"), ("own", "batch"), ("digits", "layer"), ("digits", "layer_chw"))


def cases_named(names: Sequence[tuple[str, str]]) -> list[CaseHistory]:
    return [
        CaseHistory(grid, f"digits {norm}-none-b64, 8 epochs", "digits", norm, "none", 64, 8, ())
        for grid, norm in names
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("own: digits batch-none-b64, 8 epochs", "own: digits batch-none-b64, 8 epochs"),
        ("digits layer-none-b64, 8 epochs", "digits: digits layer-none-b64, 8 epochs"),
        ("digits-layer-none-b64", "digits: digits layer-none-b64, 8 epochs"),
        ("LAYER-", "digits: digits layer-none-b64, 8 epochs"),
        ("layer_chw", "digits: digits layer_chw-none-b64, 8 epochs"),
        ("own", "own: digits batch-none-b64, 8 epochs"),
    ],
)
def test_a_case_is_found_by_a_name_or_a_part_of_one(text: str, name: str) -> None:
    assert find_case(cases_named(NAMED), text).name == name


def test_a_name_that_several_cases_have_is_told_with_them() -> None:
    with pytest.raises(
        HistoryError,
        match=r"^'layer' names 2 cases: expected one of digits: digits layer-none-b64, 8 epochs; "
        r"digits: digits layer_chw-none-b64, 8 epochs$",
    ):
        find_case(cases_named(NAMED), "layer")
    with pytest.raises(HistoryError, match=r"names 2 cases: expected one of digits: .*; own: "):
        find_case(cases_named(NAMED), "digits batch-none-b64, 8 epochs")
    with pytest.raises(HistoryError, match=r"no stored session has a case named 'instance'"):
        find_case(cases_named(NAMED), "instance")
    many = cases_named([("digits", f"group:{n}") for n in range(10)])
    with pytest.raises(HistoryError, match=r"names 10 cases: .*group:5-none.*; and 4 more$"):
        find_case(many, "group")
