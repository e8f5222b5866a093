"""What a report is drawn from: stored sessions, of older versions too, that have ended."""

from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from normbench.cases.case import Case
from normbench.commands.main import main
from normbench.report.page import ReportError, write_figures, write_report
from normbench.storage.documents import StoredCase
from normbench.storage.session import read_session

from ..storage.stored import edit_rows, golden_copy, store_session
from .browsing import attribute, column, lines, log, look, rows_of_pictures
from .sessions import SPEC, draw_again, write


def test_a_report_is_drawn_again_from_what_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = write(tmp_path, ("batch",))
    drawn = report.read_text()
    report.unlink()
    assert main(["report", str(report.parent)]) == 0
    assert report.read_text() == drawn
    assert capsys.readouterr().out == f"{report}\n"


def test_rows_of_older_versions_are_read(browser: webdriver.Chrome, tmp_path: Path) -> None:
    report = write(tmp_path, ("batch", "layer"))

    def older(row: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in row.items() if k not in ("wrong", "activations", "weights")}

    edit_rows(report.parent, older)
    look(browser, draw_again(report), "gallery")
    headings = rows_of_pictures(browser)
    assert headings == ["batch: 10 wrong", "layer: 10 wrong"]
    assert not browser.find_elements(By.ID, "weights")
    assert not browser.find_elements(By.ID, "activations")
    assert log(browser, "browser") == []
    write_figures(read_session(report.parent))


@pytest.mark.parametrize("name", ["session-1", "session-2"])
def test_a_session_of_every_schema_is_drawn(
    browser: webdriver.Chrome, tmp_path: Path, name: str
) -> None:
    session = read_session(golden_copy(name, tmp_path))
    look(browser, write_report(session), "curves", "gallery", "cases")
    counts = [item.text for item in browser.find_elements(By.CSS_SELECTOR, ".counts li")]
    assert counts[:4] == ["3 failed", "2 passed", "1 marginal", "1 diverged"]
    assert {"2 regression", "1 undecided", "1 claim: refuted", "1 claim: holds"} < set(counts)
    assert len(column(browser, "norm")) == 7
    assert "own_norms:Faulty-l2:0.001-b64, 2 epochs 97.03 10.47 -86.56" in (
        browser.find_element(By.CLASS_NAME, "baseline").text
    )
    claims = attribute(browser.find_element(By.CLASS_NAME, "claims"), "textContent")
    assert "Batch beats layer normalization by 90 points." in claims
    assert lines(browser, "test_loss") == ["batch", "layer", "group:4", "own_norms:Faulty"]
    headings = rows_of_pictures(browser)
    # 427 and 416 images of 449 are right
    assert headings[1:3] == ["batch: 22 wrong", "layer: 33 wrong"]
    # normbench 0.1 kept no images
    missing = "The images cannot be shown" in browser.find_element(By.ID, "pictures").text
    assert missing == (name == "session-1")
    assert log(browser, "browser") == []
    write_figures(session)
    assert (session.folder / "figures" / "accuracy-tiny.png").exists()


def test_a_folder_that_is_no_session_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    told = capsys.readouterr().err
    assert "cannot read the session" in told
    assert "nowhere" in told
    assert main(["report", str(tmp_path)]) == 2
    assert "expected a folder with session.json" in capsys.readouterr().err


def test_a_session_that_has_not_ended_has_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [StoredCase.of(Case("digits", "standard", SPEC, 0.9))]
    session = store_session(tmp_path, cases, status="running")
    with pytest.raises(ReportError, match=r"the session has not ended, or ran no case"):
        write_report(session)
    assert main(["report", str(session.folder)]) == 2
    assert str(session.folder) in capsys.readouterr().err
    assert not (session.folder / "report.html").exists()
