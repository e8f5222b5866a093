"""Several sessions on one page: earlier ones in small charts, others side by side."""

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from normbench.cases.case import Case
from normbench.commands.main import main
from normbench.report.page import write_report
from normbench.storage.session import read_session

from ..storage.stored import golden_copy, judged, store_session
from .browsing import attribute, column, embedded, lines, log, look, tap
from .sessions import SPEC, run, write


def small_charts(page: webdriver.Chrome) -> dict[str, WebElement]:
    """Return the charts of the history by case."""
    figures = page.find_elements(By.CSS_SELECTOR, "#history figure")
    return {attribute(figure, "data-case"): figure for figure in figures}


def test_earlier_sessions_make_a_small_chart_for_each_case(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    write(tmp_path, ("batch", "layer"), name="20260101-000000")
    report = write(tmp_path, ("batch", "none"), name="20260102-000000")
    look(browser, report, "history")
    charts = small_charts(browser)
    # the cases of both sessions, and of the newest one's alone none; the regression comes first
    assert list(charts) == [
        "digits: digits batch-none-b64, 3 epochs",
        "digits: digits batch-none-b32, 3 epochs",
        "digits: digits batch-l2:0.001-b32, 3 epochs",
        "digits: digits batch-l2:0.001-b64, 3 epochs",
    ]
    first = charts["digits: digits batch-none-b32, 3 epochs"]
    assert first.text.split("\n") == [
        "digits: digits batch-none-b32, 3 epochs",
        "97.11 %, 2 sessions",
    ]
    known = embedded(browser)["history"]
    points = known["cases"][0]["points"]
    assert [(n, value, seeds) for n, value, _, seeds, _ in points] == [(0, 97.12, 2), (1, 97.12, 2)]
    assert known["sessions"][0] == "2026-01-01 00:00, commit 1, torch 1"
    # the baseline has the case at batch size 64 alone
    assert [bool(one["band"]) for one in known["cases"]] == [True, False, False, False]
    changed = browser.find_elements(By.CSS_SELECTOR, "#history .changed")
    assert [attribute(chart, "data-case") for chart in changed] == list(charts)[:1]
    assert not browser.find_element(By.CSS_SELECTOR, "#history .more").is_displayed()
    assert log(browser, "browser") == []


def test_of_many_cases_the_charts_are_shown_that_one_looks_at(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    norms = tuple(f"group:{g}" for g in range(1, 8))
    write(tmp_path, norms, name="a")
    look(browser, write(tmp_path, norms, name="b"), "history")
    assert len(small_charts(browser)) == 24
    tap(browser, browser.find_element(By.CSS_SELECTOR, "#history .more"))
    assert len(small_charts(browser)) == 28
    assert log(browser, "browser") == []


def test_several_sessions_stand_side_by_side(
    browser: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path, ("batch", "layer"), name="a")
    second = write(tmp_path, ("batch",), name="b")
    assert main(["report", str(first.parent), str(second.parent)]) == 0
    page = second.parent / "side-by-side.html"
    assert capsys.readouterr().out == f"{page}\n"
    look(browser, page, "curves", "sessions", "cases")
    assert column(browser, "session") == ["1"] * 8 + ["2"] * 4
    assert lines(browser, "test_loss") == ["batch (1)", "layer (1)", "batch (2)"]
    assert "Session 2: b" in browser.find_element(By.TAG_NAME, "header").text
    # both have the cases of batch alone
    rows = browser.find_elements(By.CSS_SELECTOR, "#sessions tbody tr")
    assert sorted(row.text for row in rows)[0].startswith("digits-batch-l2:0.001-b32 97.1")
    assert len(rows) == 4
    assert log(browser, "browser") == []


def test_sessions_of_both_schemas_stand_side_by_side(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    sessions = [read_session(golden_copy(name, tmp_path)) for name in ("session-1", "session-2")]
    look(browser, write_report(*sessions), "history", "cases")
    assert column(browser, "session") == ["1"] * 7 + ["2"] * 7
    # one of them has diverged in both
    assert len(small_charts(browser)) == 6
    assert log(browser, "browser") == []


def test_side_by_side_a_planted_fault_is_that_of_its_session(tmp_path: Path) -> None:
    cases, runs = [Case("digits", "smoke", SPEC, 0.9)], [run(SPEC, 0.95)]
    sessions = [
        store_session(tmp_path, judged(cases, runs), runs, name=name, planted=fault)
        for name, fault in (("a", ""), ("b", "no-decay"))
    ]
    page = write_report(*sessions).read_text(encoding="utf-8")
    assert page.count('class="planted"') == 1
    assert "Session 2: the fault no-decay was planted: what follows is of broken code." in page
