"""Sessions out of CI artefacts: what is taken, and what is refused."""

import json
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from normbench.cases.case import Case
from normbench.spec import RunSpec
from normbench.storage import artefacts
from normbench.storage.artefacts import ArtefactError, import_sessions
from normbench.storage.session import StoredSession, read_session
from normbench.storage.traces import read_case_trace, store_case_trace, store_trace

from .stored import TRACE, edit_document, finished, judged, store_session

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")


def store(results: Path, name: str, accuracy: float = 0.91, status: str = "finished") -> Path:
    """Store a session with all that one leaves, and return its folder."""
    cases, runs = [Case("digits", "smoke", SPEC, 0.5)], [finished(SPEC, accuracy)]
    session = store_session(results, judged(cases, runs), runs, name=name)
    edit_document(session.folder, status=status)
    store_trace(session.folder, TRACE)
    store_case_trace(session.folder, TRACE)
    for path in ("report.html", "summary.md", "tables/digits.csv", "figures/accuracy.svg"):
        (session.folder / path).parent.mkdir(exist_ok=True)
        (session.folder / path).write_text("drawn")
    for path in ("session.lock", "checkpoints/x.pt", "running/main.json", "tables/run.sh"):
        (session.folder / path).parent.mkdir(exist_ok=True)
        (session.folder / path).write_text("not of a session that is over")
    return session.folder


TAKEN = {
    *("session.json", "runs.jsonl", "report.html", "summary.md"),
    *("tables/digits.csv", "figures/accuracy.svg"),
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def zipped(file: Path, folder: Path, inside: str = "") -> Path:
    """Write a folder's files into a zip file, below ``inside``."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files_of(folder).items():
            archive.writestr(f"{inside}{path}", content)
    return file


def as_folder(tmp_path: Path) -> Path:
    return tmp_path / "ci"


def as_runs(tmp_path: Path) -> Path:
    return tmp_path / "ci" / "runs" / "a"


def as_zip(tmp_path: Path) -> Path:
    return zipped(tmp_path / "all.zip", tmp_path / "ci")


def as_zip_of_its_files(tmp_path: Path) -> Path:
    # as GitHub packs what one folder holds
    return zipped(tmp_path / "one.zip", tmp_path / "ci" / "runs" / "a")


def as_deep_zip(tmp_path: Path) -> Path:
    return zipped(tmp_path / "deep.zip", tmp_path / "ci", "x/y\\z/")


@pytest.mark.parametrize("pack", [as_folder, as_runs, as_zip, as_zip_of_its_files, as_deep_zip])
def test_a_session_is_taken_with_the_files_that_are_a_sessions(
    pack: Callable[[Path], Path], tmp_path: Path
) -> None:
    before = files_of(store(tmp_path / "ci", "a"))
    runs = tmp_path / "results" / "runs"
    (line,) = import_sessions([pack(tmp_path)], runs)
    assert line.startswith("imported a (")
    taken = files_of(runs / "a")
    traces = [path for path in before if path.startswith(("traces/", "case-traces/"))]
    assert len(traces) == 2
    assert taken == {path: before[path] for path in (*TAKEN, *traces)}
    assert [folder.name for folder in runs.iterdir()] == ["a"]
    # what is newest is for the sessions here to say
    assert [folder.name for folder in runs.parent.iterdir()] == ["runs"]
    assert read_session(runs / "a").traces == (TRACE,)
    assert read_case_trace(runs / "a", TRACE.spec) == TRACE


def test_several_are_taken_and_those_that_are_there_already_are_told(tmp_path: Path) -> None:
    for name in "ab":
        store(tmp_path / "ci", name)
    archive = zipped(tmp_path / "b.zip", tmp_path / "ci" / "runs" / "b")
    runs = tmp_path / "results" / "runs"
    lines = import_sessions([tmp_path / "ci", archive], runs)
    assert [line.partition(" (")[0] for line in lines] == [
        "imported a",
        "imported b",
        "b is there already",
    ]
    # figures and page may have been drawn again
    (runs / "a" / "report.html").write_text("drawn again")
    assert [line.partition(" (")[0] for line in import_sessions([tmp_path / "ci"], runs)] == [
        "a is there already",
        "b is there already",
    ]
    assert (runs / "a" / "report.html").read_text() == "drawn again"
    # the results folder itself is one that holds sessions
    lines = import_sessions([runs.parent], runs)
    assert [line.partition(" (")[0] for line in lines] == [
        "a is there already",
        "b is there already",
    ]


@pytest.mark.parametrize("changed", ["session.json", "runs.jsonl", "traces"])
def test_another_session_of_the_same_name_is_refused(changed: str, tmp_path: Path) -> None:
    runs = tmp_path / "results" / "runs"
    folder = store(tmp_path / "results", "b")
    before = files_of(folder)
    store(tmp_path / "ci", "a")
    other = store(tmp_path / "ci", "b")
    if changed == "session.json":
        edit_document(other, seconds=1.0)
    elif changed == "runs.jsonl":
        (other / changed).write_text((other / changed).read_text().replace("0.91", "0.92"))
    else:
        (next((other / changed).iterdir())).unlink()
    with pytest.raises(ArtefactError, match=r"ci/runs/b is a session of the name b, which .* has"):
        import_sessions([tmp_path / "ci"], runs)
    # nothing was written over, and the other session was not taken either
    assert files_of(folder) == before
    assert [folder.name for folder in runs.iterdir()] == ["b"]


def test_a_session_that_has_not_ended_is_passed_over(tmp_path: Path) -> None:
    store(tmp_path / "ci", "a", status="running")
    store(tmp_path / "ci", "b", status="interrupted")
    lines = import_sessions([tmp_path / "ci"], tmp_path / "runs")
    assert lines[0].startswith("passed over a: it has not ended (")
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["b"]


def no_json(folder: Path) -> None:
    (folder / "session.json").write_text("{")


def no_name(folder: Path) -> None:
    edit_document(folder, session="../../elsewhere")


def hidden_name(folder: Path) -> None:
    edit_document(folder, session=".hidden")


def other_schema(folder: Path) -> None:
    edit_document(folder, schema=9)


def no_rows(folder: Path) -> None:
    (folder / "runs.jsonl").unlink()


def wrong_row(folder: Path) -> None:
    (folder / "runs.jsonl").write_text("{}\n")


def wrong_trace(folder: Path) -> None:
    next((folder / "traces").iterdir()).write_text("{}")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_json, r"^cannot read \S+/ci/runs/b/session.json: "),
        (no_name, r"names the session '../../elsewhere': expected the name of a folder"),
        (hidden_name, r"names the session '.hidden': expected the name of a folder"),
        (other_schema, r"^cannot read the session \S+/ci/runs/b: .*its schema is 9"),
        (no_rows, r"^\S+/ci/runs/b: runs.jsonl has none of the runs"),
        (wrong_row, r"^cannot read the session \S+/ci/runs/b: .*line 1: schema is missing"),
        (wrong_trace, r"^cannot read \S+/ci/runs/b/traces/"),
    ],
)
def test_if_one_session_cannot_be_read_none_is_taken(
    harm: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    store(tmp_path / "ci", "a")
    harm(store(tmp_path / "ci", "b"))
    with pytest.raises(ArtefactError, match=message):
        import_sessions([tmp_path / "ci"], tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_a_link_leads_to_is_not_taken(tmp_path: Path) -> None:
    folder = store(tmp_path / "ci", "a")
    (tmp_path / "secret").write_text("secret")
    (folder / "summary.md").unlink()
    (folder / "summary.md").symlink_to(tmp_path / "secret")
    (tmp_path / "ci" / "latest").symlink_to(folder)
    (line,) = import_sessions([tmp_path / "ci"], tmp_path / "runs")
    assert line.startswith("imported a (")
    assert "summary.md" not in files_of(tmp_path / "runs" / "a")


def archive_of(file: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


@pytest.mark.parametrize(
    ("name", "mode", "kind", "message"),
    [
        ("/etc/a", 0, zipfile.ZIP_STORED, r"'/etc/a' in it leads out of the folder"),
        ("a/../../b", 0, zipfile.ZIP_STORED, r"'a/../../b' in it leads out of the folder"),
        ("a\\..\\b", 0, zipfile.ZIP_STORED, r"'a/../b' in it leads out of the folder"),
        ("C:\\b", 0, zipfile.ZIP_STORED, r"'C:/b' in it leads out of the folder"),
        ("a/b", stat.S_IFLNK | 0o777, zipfile.ZIP_STORED, r"'a/b' in it is a link or a device"),
        ("a/b", stat.S_IFCHR | 0o777, zipfile.ZIP_STORED, r"'a/b' in it is a link or a device"),
        ("a/b", 0, zipfile.ZIP_BZIP2, r"'a/b' in it is compressed in a way that is not read"),
    ],
)
def test_an_archive_that_is_not_to_be_trusted_is_refused_as_a_whole(
    name: str, mode: int, kind: int, message: str, tmp_path: Path
) -> None:
    file = archive_of(tmp_path / "a.zip", files_of(store(tmp_path / "ci", "a")))
    with zipfile.ZipFile(file, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, b"x", kind)
    with pytest.raises(ArtefactError, match=rf"^cannot import {file}: {message}"):
        import_sessions([file], tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = archive_of(tmp_path / "a.zip", {f"{n}/session.json": bytes(10**6) for n in range(3)})
    assert file.stat().st_size < 10**5
    monkeypatch.setattr(artefacts, "MOST_BYTES", 2_999_999)
    with pytest.raises(ArtefactError, match=r"unpacks to 3000000 bytes: expected at most 2999999$"):
        import_sessions([file], tmp_path / "runs")
    monkeypatch.setattr(artefacts, "MOST_FILES", 2)
    with pytest.raises(ArtefactError, match=r"it has 3 files: expected at most 2$"):
        import_sessions([file], tmp_path / "runs")


def test_a_name_that_an_archive_has_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/session.json", "{}")
        archive.writestr("a\\session.json", "{}")
    with pytest.raises(ArtefactError, match=r"'a/session.json' is in it twice$"):
        import_sessions([file], tmp_path / "runs")


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    return content[:200] + b"\0" * 200 + content[400:]


def no_archive(_: bytes) -> bytes:
    return b"nonsense"


@pytest.mark.parametrize("harm", [cut_off, overwritten, no_archive])
def test_a_damaged_archive_is_told_in_one_line(
    harm: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    store(tmp_path / "ci", "a")
    file = zipped(tmp_path / "a.zip", tmp_path / "ci" / "runs" / "a")
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(ArtefactError, match=rf"^cannot read {file}: [^\n]*that is whole$"):
        import_sessions([file], tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_holds_no_session_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match=r"empty holds no session: expected a folder with"):
        import_sessions([tmp_path / "empty"], tmp_path / "runs")
    with pytest.raises(ArtefactError, match=r"there is no \S+/nowhere: expected a folder or a zip"):
        import_sessions([tmp_path / "nowhere"], tmp_path / "runs")
    with pytest.raises(ArtefactError, match=r"^nothing to import: name folders or zip files"):
        import_sessions([], tmp_path / "runs")


def test_an_imported_session_is_as_the_one_that_ran(tmp_path: Path) -> None:
    ran: StoredSession = read_session(store(tmp_path / "ci", "a"))
    import_sessions([tmp_path / "ci"], tmp_path / "runs")
    imported = read_session(tmp_path / "runs" / "a")
    assert json.loads(imported.document.to_json()) == json.loads(ran.document.to_json())
    assert imported.results == ran.results
