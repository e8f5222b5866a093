"""The session's folder: found again by its link, whole at any time, and signed by its machine."""

import dataclasses
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from normbench.cases.case import Case, Published
from normbench.results import CaseVerdict
from normbench.spec import RunSpec
from normbench.storage.documents import StoredCase
from normbench.storage.environment import environment, new_session_name
from normbench.storage.files import write_atomic
from normbench.storage.session import Session, SessionError, latest_session, read_session

from .stored import GOLDEN, edit_document, edit_rows, finished, golden_copy, judged, store_session

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=2)
CASE = Case("digits", "smoke", SPEC, 0.9, Published(0.95, 0.001, "a table"), seeds=2)


def test_latest_leads_to_the_newest_session(tmp_path: Path) -> None:
    for name in ("first", "second"):
        Session(tmp_path, name).open()
    assert latest_session(tmp_path) == tmp_path / "runs" / "second"
    assert (tmp_path / "runs" / "first" / "session.json").exists()


def test_a_session_whose_lock_cannot_be_removed_ends_all_the_same(tmp_path: Path) -> None:
    session = Session(tmp_path, "s")
    session.open()
    lock = session.folder / "session.lock"
    lock.unlink()
    lock.mkdir()  # as in a folder that is read-only by now
    session.close()
    assert not session.is_open


def test_latest_is_a_file_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise OSError("a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    Session(tmp_path, "only").open()
    assert (tmp_path / "latest").read_text().strip().endswith("only")
    assert latest_session(tmp_path) == tmp_path / "runs" / "only"


def test_a_folder_in_place_of_the_link_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(
        SessionError,
        match=r"/latest is a folder of its own: expected the link .*; move it away, or",
    ):
        Session(tmp_path, "s").open()
    assert [file.name for file in tmp_path.iterdir()] == ["latest"]


def test_what_a_dead_process_left_of_the_link_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / f".latest.{os.getpid()}"
    left.symlink_to("runs/gone", target_is_directory=True)
    Session(tmp_path, "s").open()
    assert latest_session(tmp_path) == tmp_path / "runs" / "s"
    assert not left.is_symlink()


def test_a_session_says_whether_it_is_over(tmp_path: Path) -> None:
    session = Session(tmp_path, "s", workers=3, cases=[StoredCase.of(CASE)])
    session.open()
    running = json.loads((session.folder / "session.json").read_text())
    assert (running["schema"], running["status"], running["ended"]) == (3, "running", None)
    assert running["cases"][0]["verdict"] is None
    session.cases = [StoredCase.of(CASE, verdict=CaseVerdict.PASSED)]
    session.write("finished")
    over = json.loads((session.folder / "session.json").read_text())
    assert over["status"] == "finished"
    assert over["ended"] >= over["started"]
    assert (over["workers"], over["cases"][0]["verdict"]) == (3, "passed")


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    runs = [
        finished(SPEC.with_seed(seed), 0.5, accuracy) for seed, accuracy in ((0, 0.9), (1, 0.94))
    ]
    session = store_session(tmp_path, judged([CASE], runs), runs)
    assert session.cases == {"digits-batch-none-b64": CASE}
    (stored,) = session.judged_cases
    assert (stored.verdict, stored.runs) == (CaseVerdict.MARGINAL, 2)
    assert stored.test_accuracy == pytest.approx(0.92)
    # t of 0.975 on one degree of freedom, times the standard error of two runs
    assert stored.margin_of_error == pytest.approx(12.7062 * 0.02, rel=1e-5)
    assert list(session.runs(CASE)) == runs
    assert list(session.results) == [run.spec.key for run in runs]
    assert session.name == session.folder.name == "20260101-000000-1"
    assert session.document.started == "2026-01-01T00:00:00+00:00"


def test_a_case_is_stored_with_its_least_number_of_runs() -> None:
    case = dataclasses.replace(CASE, seeds=8, least=3)
    assert StoredCase.of(case).case == case
    document = json.loads(StoredCase.of(case).to_json())
    assert (document["seeds"], document["least"]) == (8, 3)
    # sessions of an earlier version do not have it
    del document["least"]
    assert StoredCase.model_validate(document).case.least == 1


def test_a_case_whose_test_did_not_come_up_has_no_verdict(tmp_path: Path) -> None:
    session = store_session(tmp_path, judged([CASE], [], outcomes={}))
    assert session.cases == {"digits-batch-none-b64": CASE}
    assert session.judged_cases == []


def test_an_unchanged_case_without_its_row_has_lost_it(tmp_path: Path) -> None:
    case = Case("tiny", "smoke", RunSpec("digits", "digits", "batch", recipe="digits"), 0.5)
    runs = [dataclasses.replace(finished(case.spec, 0.9), replayed="an earlier one")]
    stored = store_session(tmp_path, judged([case], runs), runs)
    assert stored.document.cases[0].verdict is CaseVerdict.UNCHANGED
    stored.require_rows()
    edit_rows(stored.folder, lambda _: None)
    with pytest.raises(
        SessionError, match=r"has none of the runs .*, such as those of tiny-batch-"
    ):
        read_session(stored.folder).require_rows()


def test_a_folder_that_cannot_be_made_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match=r"cannot write results to .*--bench-results DIR"):
        Session(tmp_path / "file", "s").open()


def test_a_session_that_runs_is_not_opened_twice(tmp_path: Path) -> None:
    session = Session(tmp_path, "s")
    session.open()
    with pytest.raises(SessionError, match=r"the session .*/s is still running in another process"):
        Session(tmp_path, "s").open()
    session.close()
    Session(tmp_path, "s").open()


def interrupted(results: Path, **changes: Any) -> Path:
    """Store a session that was interrupted after 90 seconds; return its folder."""
    session = store_session(results, [StoredCase.of(CASE)], status="interrupted")
    edit_document(session.folder, seconds=90.0, **changes)
    (results / "latest").write_text(f"runs/{session.name}\n")
    return session.folder


def test_an_interrupted_session_goes_on_in_its_folder(tmp_path: Path) -> None:
    folder = interrupted(tmp_path, resumed=1)
    session = Session.interrupted(tmp_path, {"seeds": 5})
    assert session.folder == folder
    assert session.started_at == "2026-01-01T00:00:00+00:00"
    assert session.seconds >= 90
    assert (session.resumed, session.options) == (2, {"seeds": 5})
    session.open()
    document = read_session(folder).document
    assert (document.status, document.resumed) == ("running", 2)
    assert document.environment["torch"] == "2.15.0"


def test_another_build_of_torch_does_not_go_on_with_a_session(tmp_path: Path) -> None:
    interrupted(tmp_path)
    session = Session.interrupted(tmp_path, {})
    session.require_torch("2.15.0")
    with pytest.raises(
        SessionError,
        match=r"begun with torch 2\.15\.0, and this is torch 2\.16\.0: .*--bench-resume",
    ):
        session.require_torch("2.16.0")


def test_a_session_that_has_finished_is_not_resumed(tmp_path: Path) -> None:
    interrupted(tmp_path, status="finished")
    with pytest.raises(
        SessionError, match=r"has finished: there is nothing to resume; run without"
    ):
        Session.interrupted(tmp_path, {})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"started": "yesterday"}, "'yesterday'"),
        ({"seconds": "long"}, 'seconds: expected a number, came "long"'),
        ({"schema": 4}, "its schema is 4"),
    ],
)
def test_a_session_that_cannot_be_read_is_not_resumed(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    interrupted(tmp_path)
    edit_document(latest_session(tmp_path), **changes)
    with pytest.raises(
        SessionError,
        match=rf"^there is no session to resume in .*{told}.*; run without --bench-resume$",
    ):
        Session.interrupted(tmp_path, {})


def test_a_session_with_a_broken_row_is_not_resumed(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    (folder / "runs.jsonl").write_text('{"schema": 1, "status": "ok"}\n')
    with pytest.raises(
        SessionError,
        match=r"^cannot read the session .*runs\.jsonl, line 1: spec is missing; .*; take that "
        r"line out, so that its run is trained again, or run without --bench-resume$",
    ):
        Session.interrupted(tmp_path, {})


def test_where_there_is_no_session_none_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"^there is no session to resume in .*No such file"):
        Session.interrupted(tmp_path, {})


MINIMAL = {
    "schema": 2,
    "session": "s",
    "status": "finished",
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 1,
    "workers": 1,
    "environment": {},
    "options": {},
}
ALL_MISSING = "; ".join(f"{name} is missing" for name in list(MINIMAL)[1:])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is not JSON: .*"),
        (b'{"schema": 2', "it is not JSON: .*"),
        (b"\x80\x81\xff", "it is not a text in UTF-8"),
        (b"[]", r"expected a JSON object, came \[\]"),
        (b"{}", "schema is missing"),
        (b'{"schema": "2"}', "its schema is '2', and this version reads 1, 2 and 3"),
        (b'{"schema": true}', "its schema is True, and this version reads 1, 2 and 3"),
        (b'{"schema": 2}', ALL_MISSING),
        (b'{"schema": 1}', ALL_MISSING),
    ],
)
def test_a_file_that_is_no_session_is_refused_in_one_line(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "session.json").write_bytes(content)
    place = re.escape(f"cannot read the session {tmp_path}: {tmp_path / 'session.json'}: ")
    with pytest.raises(
        SessionError, match=f"^{place}{told}; expected a folder with .*$"
    ) as refused:
        read_session(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"environment": None}, "environment: expected an object, came null"),
        ({"status": "asleep"}, "status: expected one of 'running', .*, came \"asleep\""),
        ({"workers": "many"}, 'workers: expected a whole number, came "many"'),
        ({"workers": "1"}, 'workers: expected a whole number, came "1"'),
        ({"seconds": "0.5"}, 'seconds: expected a number, came "0.5"'),
        ({"started": 1767225600}, "started: expected a text, came 1767225600"),
        ({"cases": {}}, "cases: expected a list, came {}"),
        ({"cases": [{}]}, r"cases\[0\]\.grid is missing; cases\[0\]\.tier is missing; .*"),
        ({"comparison": []}, r"comparison: expected an object, came \[\]"),
    ],
)
def test_a_field_that_is_wrong_is_named_by_its_place(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    (tmp_path / "session.json").write_text(json.dumps(MINIMAL))
    assert read_session(tmp_path).name == "s"
    edit_document(tmp_path, **change)
    with pytest.raises(SessionError, match=rf"session\.json: {told}; expected a folder with"):
        read_session(tmp_path)


def test_of_many_wrong_fields_ten_and_the_last_one_are_named(tmp_path: Path) -> None:
    # each lacks its grid, tier, spec and target
    (tmp_path / "session.json").write_text(json.dumps({**MINIMAL, "cases": [{}] * 8}))
    tenth, last = r"cases\[2\]\.tier is missing", r"cases\[7\]\.target is missing"
    with pytest.raises(
        SessionError, match=rf"; {tenth}; and 22 more, the last of which is {last}; expected a f"
    ):
        read_session(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("target", "0.5", r'cases\[2\]\.target: expected a number, came "0\.5"'),
        ("target", "high", r'cases\[2\]\.target: expected a number, came "high"'),
        ("target", float("nan"), r"cases\[2\]\.target: expected a finite number, came NaN"),
        ("verdict", "good", r"cases\[2\]\.verdict: expected one of 'passed', .*, came \"good\""),
        ("spec", None, r"cases\[2\]\.spec: expected an object, came null"),
        ("spec", {"dataset": "digits"}, r"cases\[2\]\.spec\.network is missing; .*"),
    ],
)
def test_a_case_that_is_wrong_is_named_by_its_number(
    tmp_path: Path, field: str, value: Any, told: str
) -> None:
    folder = golden_copy("session-2", tmp_path)
    cases = json.loads((folder / "session.json").read_text())["cases"]
    cases[2][field] = value
    edit_document(folder, cases=cases)
    with pytest.raises(SessionError, match=rf"session\.json: {told}; expected a folder with"):
        read_session(folder)


@pytest.mark.parametrize(
    "change",
    [{"options": None}, {"options": []}, {"comparison": [1]}, {"comparison": {"cases": []}}],
    ids=str,
)
def test_a_document_that_is_not_as_schema_1_had_it_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = golden_copy("session-1", tmp_path)
    edit_document(folder, **change)
    with pytest.raises(SessionError, match=r"^cannot read the session .*; expected a folder with"):
        read_session(folder)


def test_a_table_of_schema_1_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    folder = golden_copy("session-1", tmp_path)
    table = folder / "tables" / "tiny.csv"
    table.write_text(table.read_text().replace("target_percent", "target"))
    with pytest.raises(SessionError, match=r"tiny\.csv: the column 'target_percent' is missing"):
        read_session(folder)


@pytest.mark.parametrize("table", ["tiny", "claims", "comparison"])
@pytest.mark.parametrize("kept", [0, 1], ids=["nothing", "the header"])
def test_an_emptied_table_of_schema_1_is_refused(tmp_path: Path, table: str, kept: int) -> None:
    folder = golden_copy("session-1", tmp_path)
    file = folder / "tables" / f"{table}.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:kept]))
    with pytest.raises(SessionError, match=rf"/tables/{table}\.csv: it is empty, and was written"):
        read_session(folder)


def test_a_claim_on_a_case_that_the_session_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    claims = json.loads((folder / "session.json").read_text())["claims"]
    claims[0]["contrasts"][0]["first"] = "nobody's"
    edit_document(folder, claims=claims)
    with pytest.raises(SessionError, match=r"^cannot read the session .*nobody's"):
        _ = read_session(folder).claims


def test_a_claim_on_contrasts_without_runs_is_refused(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    claims = json.loads((folder / "session.json").read_text())["claims"]
    claims[0]["seeds"] = 0
    edit_document(folder, claims=claims)
    with pytest.raises(SessionError, match=r"claims\[0\]: seeds = 0: expected 1 or larger of a c"):
        read_session(folder)


def test_a_broken_row_is_an_error_of_the_session_once_it_is_asked_for(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    with (folder / "runs.jsonl").open("a") as rows:
        rows.write("no row\n")
    session = read_session(folder)
    with pytest.raises(SessionError, match=r"cannot read the session .*runs\.jsonl, line 8: "):
        _ = session.results


def test_a_session_without_rows_has_no_results(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_bytes((GOLDEN / "session-2" / "session.json").read_bytes())
    assert read_session(tmp_path).results == {}


def test_the_environment_names_machine_versions_and_commit(tmp_path: Path) -> None:
    described = environment(tmp_path)
    assert described["torch"] == torch.__version__
    assert described["cores"] >= 1
    assert described["processor"]
    assert described["torchvision"]
    assert described["commit"] is None


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for text in ("first", "second"):
        write_atomic(file, text)
        assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_sessions_of_one_process_and_one_second_have_names_of_their_own_in_order() -> None:
    names = []
    for _ in range(3):
        names.append(new_session_name())
        time.sleep(0.001)
    assert len(set(names)) == 3
    assert names == sorted(names)


def test_a_session_has_the_fault_that_was_planted_and_so_have_its_rows(tmp_path: Path) -> None:
    runs = [finished(SPEC, 0.9), finished(SPEC.with_seed(1), 0.9)]
    stored = store_session(tmp_path, runs=runs, planted="no-decay")
    assert stored.planted == stored.document.planted == "no-decay"
    assert {run.planted for run in stored.results.values()} == {"no-decay"}
    assert store_session(tmp_path, runs=runs, name="sound").planted == ""
    # as in what an older version wrote
    document = json.loads((stored.folder / "session.json").read_text(encoding="utf-8"))
    del document["planted"]
    (stored.folder / "session.json").write_text(json.dumps(document), encoding="utf-8")
    assert read_session(stored.folder).planted == ""


@pytest.mark.parametrize(
    ("session", "row", "told"),
    [
        ("no-decay", "", "had no fault planted, and the session the fault 'no-decay' planted"),
        ("", "no-decay", "had the fault 'no-decay' planted, and the session no fault planted"),
        ("l1-for-l2", "no-decay", "the fault 'no-decay' planted, and the session the fault 'l1-"),
    ],
)
def test_rows_of_other_faults_than_the_sessions_are_refused(
    session: str, row: str, told: str, tmp_path: Path
) -> None:
    folder = store_session(
        tmp_path, runs=[finished(SPEC, 0.9), finished(SPEC.with_seed(1), 0.9)], planted=session
    ).folder
    edit_rows(
        folder, lambda stored: {**stored, **({"planted": row} if stored["spec"]["seed"] else {})}
    )
    with pytest.raises(SessionError, match=told):
        _ = read_session(folder).results


def test_a_session_of_broken_code_is_not_resumed(tmp_path: Path) -> None:
    stored = store_session(tmp_path, status="interrupted", planted="no-decay")
    (tmp_path / "latest").symlink_to(stored.folder)
    with pytest.raises(
        SessionError, match=r"had the fault 'no-decay' planted, .*: run without --bench-resume"
    ):
        Session.interrupted(tmp_path, {})
