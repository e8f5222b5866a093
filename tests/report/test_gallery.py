"""The gallery of what goes wrong, and its images: stored with the session, or not to be had."""

import base64
import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from normbench.report.gallery import mistakes
from normbench.report.page import needed_pictures, write_report

from .browsing import choose, column, embedded, lines, log, look, rows_of_pictures, scroll
from .sessions import SPEC, run, stored


def sheet_of(page: webdriver.Chrome, dataset: str) -> tuple[Image.Image, dict[str, Any]]:
    """Return the picture that holds a data set's images, and what the page knows of it."""
    known = embedded(page)["pictures"][dataset]
    kind, _, coded = known["uri"].partition(";base64,")
    assert kind == "data:image/png"
    return Image.open(io.BytesIO(base64.b64decode(coded))), known


def test_the_gallery_shows_what_goes_wrong_with_each_norm_and_with_all(
    page: webdriver.Chrome,
) -> None:
    scroll(page, "gallery")
    headings = rows_of_pictures(page)
    assert headings[:3] == ["wrong with every norm: 2", "none: 10 wrong", "batch: 10 wrong"]
    assert "wrong with batch alone: 8" in headings
    assert [f.text for f in page.find_elements(By.CSS_SELECTOR, "#pictures figure")][:2] == [
        "1",
        "2",
    ]
    first = page.find_element(By.CSS_SELECTOR, "#pictures details:nth-child(2) figure")
    assert first.text == "3, taken for 5 (100 %)"
    assert first.get_attribute("data-image") == "1"
    picture = first.find_element(By.CLASS_NAME, "picture")
    assert picture.value_of_css_property("background-image").startswith('url("data:image/png')


def test_of_many_images_those_shown_come_from_everywhere_in_the_test_set() -> None:
    # as in CIFAR-10's JPEG copy, whose images lie sorted by class
    result = dataclasses.replace(
        run(SPEC, 0.9), wrong=tuple(range(0, 320, 2)), confusion=((0, 160), (0, 0))
    )
    found = mistakes({"batch": result, "layer": result})
    assert found["all_count"] == 160
    assert found["all"] == list(range(0, 320, 20))


def test_several_sessions_have_galleries_of_their_own(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    first = stored(tmp_path, ("batch", "layer"), name="a")
    second = stored(tmp_path, ("group:4",), name="b")
    look(browser, write_report(first, second), "gallery")
    assert rows_of_pictures(browser) == [
        "wrong with every norm: 2",
        "batch (1): 10 wrong",
        "layer (1): 10 wrong",
        "wrong with batch (1) alone: 8",
        "wrong with layer (1) alone: 8",
        "group:4 (2): 10 wrong",
    ]
    choose(browser, "session", "2")
    scroll(browser, "gallery")
    assert rows_of_pictures(browser) == ["group:4 (2): 10 wrong"]
    # the images of both stand in one picture
    _, known = sheet_of(browser, "digits")
    needed = [needed_pictures(session)["digits"] for session in (first, second)]
    assert set(map(int, known["places"])) == needed[0] | needed[1]
    assert needed[1] - needed[0]
    assert log(browser, "browser") == []


def test_pictures_are_read_from_the_sessions_folder(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    session = stored(tmp_path, ("none", "batch"))
    look(browser, write_report(session), "gallery")
    picture, known = sheet_of(browser, "digits")
    # image 1 and 2, and eight of each norm: 458 and 460 are the sums of the letters' numbers
    none, batch = 10 + 8 * (sum(map(ord, "none")) % 50), 10 + 8 * (sum(map(ord, "batch")) % 50)
    wrong = sorted({1, 2, *range(none, none + 8), *range(batch, batch + 8)})
    assert sorted(map(int, known["places"])) == wrong
    for index in wrong:
        place = known["places"][str(index)]
        left, top = 8 * (place % known["columns"]), 8 * (place // known["columns"])
        assert picture.crop((left, top, left + 8, top + 8)).getextrema() == (index % 256,) * 2
        assert known["labels"][str(index)] == index % 10
    # the page needs neither the data root nor the folder any more
    shutil.rmtree(session.folder / "pictures")
    browser.refresh()
    first = browser.find_element(By.CSS_SELECTOR, "#pictures figure .picture")
    assert first.value_of_css_property("background-image").startswith('url("data:image/png')


def test_without_stored_pictures_the_page_says_so_and_opens(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    spec = dataclasses.replace(SPEC, dataset="mnist", network="mnist", recipe="mnist")
    session = stored(tmp_path, ("batch", "layer"), spec=spec, pictures=False)
    look(browser, write_report(session), "curves", "gallery", "cases")
    text = browser.find_element(By.ID, "pictures").text
    assert "The images cannot be shown: the session stored no images of mnist" in text
    assert "batch: 10 wrong" in text
    assert "3, taken for 5 (100 %)" in text
    assert lines(browser, "test_loss") == ["batch", "layer"]
    assert len(column(browser, "norm")) == 8
    assert log(browser, "browser") == []


def test_pictures_that_cannot_be_read_are_as_none(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    session = stored(tmp_path, ("batch", "layer"))
    file = session.folder / "pictures" / "digits.npz"
    file.write_bytes(file.read_bytes()[:100])
    look(browser, write_report(session), "gallery")
    text = browser.find_element(By.ID, "pictures").text
    assert "The images cannot be shown: the session stored no images of digits" in text
    assert log(browser, "browser") == []
