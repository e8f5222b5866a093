"""The page's charts, heat maps and confusion matrices: true values, by mouse and by keyboard."""

import dataclasses
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from normbench.cases.case import Case
from normbench.report.page import write_figures, write_report
from normbench.results import Epoch, RunResult
from normbench.storage.session import read_session

from ..storage.stored import golden_copy, judged, store_session
from .browsing import attribute, column, embedded, lines, log, look, scroll, series, tap
from .sessions import HOSTILE, SPEC, keep_pictures, run


def test_curves_show_true_values(browser: webdriver.Chrome, tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, epochs=4)
    epochs = [
        Epoch(n, 0.1, 0.3, a, 0.2, a, 2.0, 0.5) for n, a in ((1, 0.383), (2, 0.751), (3, 0.96))
    ]
    result = dataclasses.replace(run(spec, 0.97), epochs=(*epochs, run(spec, 0.97).epochs[-1]))
    case = Case("digits", "standard", spec, 0.9)
    session = store_session(tmp_path, judged([case], [result]), [result])
    look(browser, write_report(session), "curves")
    (curve,) = [one for one in series(browser, "test_accuracy") if one["type"] == "line"]
    assert curve["data"] == [[1, 38.3], [2, 75.1], [3, 96], [4, 97]]
    # without the first of the four, and then as what is wrong
    for name in ("late", "log"):
        tap(browser, browser.find_element(By.CSS_SELECTOR, f"#curves [name={name}]"))
    (curve,) = [one for one in series(browser, "test_accuracy") if one["type"] == "line"]
    assert [x for x, _ in curve["data"]] == [2, 3, 4]
    assert [y for _, y in curve["data"]] == pytest.approx([24.9, 4, 3])
    assert log(browser, "browser") == []


def test_what_is_right_without_exception_has_no_place_on_a_logarithmic_axis(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    case = Case("digits", "standard", SPEC, 0.9, seeds=2)
    runs = [run(SPEC, 0.97), run(SPEC.with_seed(1), 1.0)]
    perfect = dataclasses.replace(
        runs[1], epochs=tuple(dataclasses.replace(e, test_accuracy=1.0) for e in runs[1].epochs)
    )
    session = store_session(tmp_path, judged([case], runs), [runs[0], perfect])
    look(browser, write_report(session), "curves", address="log=1&seeds=1")
    ends = {one["name"]: one["data"][-1][1] for one in series(browser, "test_accuracy")}
    assert ends["batch"] == pytest.approx(1.5)
    assert ends["batch, seed 1"] is None
    # with bands in place of the seeds
    tap(browser, browser.find_element(By.CSS_SELECTOR, "#curves [name=seeds]"))
    assert log(browser, "browser") == []


def test_a_run_that_ended_badly_is_drawn_as_far_as_it_came(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    case = Case("digits", "standard", SPEC, 0.9, seeds=2)
    sound = run(SPEC, 0.97)
    bad = dataclasses.replace(
        RunResult(SPEC.with_seed(1), "diverged", "the loss was no longer finite in epoch 3"),
        epochs=sound.epochs[:2],
    )
    cases = judged([case], [sound, bad], {case.id: "failed"})
    session = store_session(tmp_path, cases, [sound, bad])
    keep_pictures(session)
    look(browser, write_report(session), "curves", "cases")
    assert lines(browser, "test_loss") == ["batch", "batch (diverged)"]
    (broken,) = embedded(browser)["broken"]
    assert len(broken["curves"]["test_loss"][0]) == 2
    assert "the loss was no longer finite in epoch 3" in column(browser, "reason")
    assert log(browser, "browser") == []
    write_figures(session)


def test_accuracy_is_drawn_over_the_batch_size_beside_the_published_shape(
    page: webdriver.Chrome,
) -> None:
    scroll(page, "sizes")
    assert lines(page, "sizes") == ["none", "batch", "layer", "group:4", HOSTILE]
    assert lines(page, "published") == ["batch", "group:32"]
    # two seeds at 97.05 and 97.25 %, the fifth case of the twenty, at batch size 2 ** 5
    batch = next(one for one in series(page, "sizes") if one["name"] == "batch")
    assert batch["data"][0][:2] == [5, 97.15]
    published = next(one for one in series(page, "published") if one["name"] == "batch")
    assert published["data"][0][:2] == [1, 65.3]


def test_cases_stand_by_their_difference_to_the_baseline_the_lowest_first(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    session = read_session(golden_copy("session-2", tmp_path))
    look(browser, write_report(session), "overview", "looks")
    points = next(o for o in series(browser, "overview digits") if o["type"] == "scatter")["data"]
    assert [x for x, _ in points] == list(range(1, len(points) + 1))
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert points[0][1] == pytest.approx(-86.56, abs=0.01)
    looks = browser.find_element(By.ID, "looks").text
    assert "regression: -86.56 points beside the baseline" in looks


def test_a_heat_map_is_coloured_by_value_and_a_collapse_is_marked(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    specs = [dataclasses.replace(SPEC, norm=f"group:{groups}") for groups in (1, 2, 4, 8, 16)]
    runs = [run(spec, a) for spec, a in zip(specs, (0.95, 0.96, 0.97, 0.98, 0.1), strict=True)]
    cases = [Case("digits", "standard", spec, 0.9) for spec in specs]
    look(browser, write_report(store_session(tmp_path, judged(cases, runs), runs)), "maps")
    cells = browser.find_elements(By.CSS_SELECTOR, "#maps td")
    assert [cell.text for cell in cells] == ["95.00", "96.00", "97.00", "98.00", "10.00"]
    # the middle half lies from 95 to 97: six points around it are the scale, cut to what there is
    assert browser.find_element(By.CSS_SELECTOR, "#maps .scale").text.split() == ["89.00", "98.00"]
    shares = [attribute(cell, "style") for cell in cells]
    assert shares[:2] == ["--share: 67%;", "--share: 78%;"]
    assert "below" in attribute(cells[4], "class")
    menu = Select(browser.find_element(By.CSS_SELECTOR, "#maps select"))
    menu.select_by_visible_text("room to the target (points)")
    cells = browser.find_elements(By.CSS_SELECTOR, "#maps td")
    assert [cell.text for cell in cells][:2] == ["+5.00", "+6.00"]
    assert log(browser, "browser") == []


def test_confusions_stand_side_by_side_with_their_differences(page: webdriver.Chrome) -> None:
    scroll(page, "confusions")
    captions = [c.text for c in page.find_elements(By.CSS_SELECTOR, "#confusions caption")]
    assert captions == [
        "batch: 10.0 wrong",
        "layer: 10.0 wrong",
        "group:4: 10.0 wrong",
        "layer less batch",
        "group:4 less batch",
    ]
    # norms of one's own as well
    boxes = page.find_elements(By.CSS_SELECTOR, "#confusions .choose input")
    tap(page, next(box for box in boxes if box.get_attribute("value") == HOSTILE))
    captions = [c.text for c in page.find_elements(By.CSS_SELECTOR, "#confusions caption")]
    assert f"{HOSTILE} less batch" in captions
    cell = '#confusions [aria-label="3 taken for 4: 1"]'
    tap(page, page.find_element(By.CSS_SELECTOR, cell))
    assert page.find_element(By.CSS_SELECTOR, "#cell h3").text == "batch: 3 taken for 4"


def test_activations_and_weights_are_drawn(page: webdriver.Chrome) -> None:
    scroll(page, "activations", "weights")
    assert lines(page, "std_after") == ["none", "batch", "layer", "group:4", HOSTILE]
    assert lines(page, "weights batch") == ["none", "l2:0.001"]
    # thirteen bins of the thirty lie below 0.001
    zeros = page.find_element(By.ID, "zeros").text
    assert "no regularizer 38.1 %, l2:0.001 47.6 %" in zeros


def test_the_arrow_keys_go_along_a_charts_points(page: webdriver.Chrome) -> None:
    scroll(page, "overview", "curves")

    def told(chart: str, *keys: str) -> str:
        figure = page.find_element(By.CSS_SELECTOR, f'figure[data-chart="{chart}"]')
        for key in keys:
            figure.find_element(By.CLASS_NAME, "chart").send_keys(key)
        return attribute(figure.find_element(By.TAG_NAME, "output"), "textContent")

    assert told("test_loss", Keys.ARROW_RIGHT).startswith("none: epoch 1")
    assert told("test_loss", Keys.ARROW_RIGHT).startswith("none: epoch 2")
    assert told("test_loss", Keys.ARROW_DOWN).startswith("batch: epoch 2")
    assert told("test_loss", Keys.ARROW_LEFT, Keys.ARROW_LEFT).startswith("batch: epoch 3")
    # Enter opens what a click would
    case = told("overview digits", Keys.ARROW_RIGHT)
    assert "difference-4.10" in "".join(case.split())
    told("overview digits", Keys.ENTER)
    assert page.find_element(By.CSS_SELECTOR, "#case h1").text in case


def test_a_saved_chart_says_what_it_is_and_which_line_is_which(page: webdriver.Chrome) -> None:
    scroll(page, "curves")
    script = """
      const made = URL.createObjectURL;
      URL.createObjectURL = blob => { blob.text().then(arguments[0]); return made(blob); };
      document.querySelector('figure[data-chart="test_loss"] .tools button').click();
    """
    saved = page.execute_async_script(script)
    assert all(f">{text}<" in saved for text in ("test loss", "batch", "layer", "group:4"))
