"""All that is drawn of a session when it ends, and what is said where a part cannot be drawn."""

from pathlib import Path

import pytest

from normbench.report.writer import write_all
from normbench.storage.session import read_session

from ..storage.stored import edit_document, golden_copy


@pytest.fixture(autouse=True)
def no_github_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def drawn(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"runs.jsonl", "session.json", "pictures"}


@pytest.mark.parametrize("name", ["session-1", "session-2"])
def test_tables_summary_and_report_are_drawn(tmp_path: Path, name: str) -> None:
    folder = golden_copy(name, tmp_path)
    assert write_all(read_session(folder)) == []
    assert drawn(folder) == {"tables", "summary.md", "report.html"}
    tables = {file.name for file in (folder / "tables").iterdir()}
    names = ("tiny", "claims-tiny", "comparison", "claims")
    assert tables == {f"{name}.{kind}" for name in names for kind in ("md", "csv")}


def test_figures_are_drawn_of_longer_sessions(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    edit_document(folder, seconds=300.0)
    assert write_all(read_session(folder)) == []
    assert "figures" not in drawn(folder)
    edit_document(folder, seconds=301.0)
    assert write_all(read_session(folder)) == []
    assert (folder / "figures" / "accuracy-tiny.svg").exists()


def test_a_part_that_cannot_be_drawn_is_noted_and_the_others_are_drawn(tmp_path: Path) -> None:
    folder = golden_copy("session-2", tmp_path)
    (folder / "tables").write_text("in the way")
    (note,) = write_all(read_session(folder))
    assert note.startswith("the tables could not be drawn: FileExistsError: ")
    assert note.endswith(f"; all runs and verdicts are in {folder}")
    assert drawn(folder) == {"tables", "summary.md", "report.html"}
