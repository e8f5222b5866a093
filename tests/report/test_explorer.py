"""How one finds a case on a page: sort, search, filter, follow links and addresses, open it."""

from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from .browsing import attribute, choose, column, lines, look, scroll, tap
from .sessions import HOSTILE


def click(page: webdriver.Chrome, heading: str) -> None:
    buttons = page.find_elements(By.CSS_SELECTOR, "#table thead button")
    tap(page, next(button for button in buttons if button.text == heading))


def press(page: webdriver.Chrome, norm: str) -> None:
    chips = page.find_elements(By.CSS_SELECTOR, "#norms [data-norm]")
    tap(page, next(chip for chip in chips if chip.text == norm))


def heading_top(page: webdriver.Chrome, section: str) -> float:
    """Return how far below the bar of filters a section's heading stands."""
    script = """
      const [section, done] = arguments;
      const top = element => document.querySelector(element).getBoundingClientRect();
      setTimeout(() => done(top(`#${section} h2`).top - top("#filters").bottom), 300);
    """
    found: float = page.execute_async_script(script, section)
    return found


def test_a_heading_sorts_up_and_then_down(page: webdriver.Chrome) -> None:
    accuracy = "test accuracy, last epoch (%)"
    before = column(page, accuracy)
    click(page, accuracy)
    assert column(page, accuracy) == sorted(before, key=float)
    click(page, accuracy)
    assert column(page, accuracy) == sorted(before, key=float, reverse=True)
    click(page, "published best (%)")
    # absent figures come last, whichever way
    assert column(page, "published best (%)") == ["98.00"] * 4 + [""] * 16


def test_words_and_fields_are_searched(page: webdriver.Chrome) -> None:
    search = page.find_element(By.ID, "search")
    search.send_keys("norm:group l2:0.001 batch:32")
    assert column(page, "case") == ["digits-group:4-l2:0.001-b32"]
    assert page.find_element(By.ID, "shown").text == "1 of 20 cases"
    search.clear()
    search.send_keys("failed")
    assert column(page, "norm") == ["none"] * 4
    # a whole name stands for itself alone, and a figure is found as it is shown
    search.clear()
    search.send_keys("regularizer:none norm:layer test_accuracy_percent:97.19")
    assert column(page, "case") == ["digits-layer-none-b32"]


def test_the_table_is_saved_as_it_is_shown(page: webdriver.Chrome) -> None:
    page.find_element(By.ID, "search").send_keys("norm:batch l2 32")
    (heads, row, end) = page.execute_script("return csv().split('\\n')")
    assert end == ""
    found = dict(zip(heads.split(","), row.split(","), strict=True))
    assert found["id"] == "digits-batch-l2:0.001-b32"
    assert (found["verdict"], found["seeds"]) == ("passed", "2")


def test_one_bar_filters_all_sections_and_an_address_shows_the_same_again(
    page: webdriver.Chrome,
) -> None:
    choose(page, "batch_size", "64")
    choose(page, "regularizer", "l2:0.001")
    press(page, "layer")
    scroll(page, "curves", "sizes", "cases")
    left = ["none", "batch", "group:4", HOSTILE]
    assert column(page, "norm") == left
    assert lines(page, "test_loss") == left
    assert lines(page, "sizes") == left
    assert page.find_element(By.ID, "matching").text == "4 of 20 cases"
    panel = page.find_element(By.CSS_SELECTOR, "#curves .panel").text
    assert panel == "digits, 3 epochs · l2:0.001 · batch size 64"
    page.refresh()
    scroll(page, "curves", "sizes", "cases")
    assert column(page, "norm") == left
    tap(page, page.find_element(By.ID, "clear"))
    # a page that has just been opened again is still drawing
    WebDriverWait(page, 20).until(lambda _: len(column(page, "norm")) == 20)


def test_a_norm_is_shown_or_hidden_everywhere_by_its_name(page: webdriver.Chrome) -> None:
    scroll(page, "curves", "activations")
    every = ["none", "batch", "layer", "group:4", HOSTILE]
    assert lines(page, "test_loss") == lines(page, "std_after") == every
    press(page, "layer")
    scroll(page, "curves", "activations")
    assert lines(page, "test_loss") == lines(page, "std_after") == [*every[:2], *every[3:]]
    press(page, "layer")
    scroll(page, "curves", "activations")
    assert "layer" in lines(page, "test_loss")


def test_a_link_leads_to_its_section_though_what_is_above_has_yet_to_be_drawn(
    page: webdriver.Chrome, report: Path
) -> None:
    look(page, report, "overview", address="section=weights&norm=batch&search=l2")
    page.refresh()
    assert 0 <= heading_top(page, "weights") < 60
    page.refresh()
    link = page.find_element(By.CSS_SELECTOR, '#contents [data-section="confusions"]')
    # it keeps what is chosen, for who opens it elsewhere
    assert "norm=batch" in attribute(link, "href")
    tap(page, link)
    assert 0 <= heading_top(page, "confusions") < 60


def test_an_address_that_is_changed_on_the_open_page_is_followed(page: webdriver.Chrome) -> None:
    scroll(page)
    asked = "search=norm:batch&sort=-batch_size&norm=unknown&columns=verdict,batch_size,unknown"
    page.execute_script("location.hash = arguments[0]", asked)
    WebDriverWait(page, 10).until(lambda it: len(column(it, "case")) == 4)
    assert column(page, "case")[0] == "digits-batch-none-b64"
    heads = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, "#table thead th")]
    assert heads == ["case", "verdict", "batch size"]
    tap(page, page.find_element(By.ID, "clear"))
    assert len(column(page, "case")) == 20


def test_a_case_has_a_page_of_its_own(page: webdriver.Chrome) -> None:
    scroll(page, "looks")
    key = "digits-none-none-b32"
    buttons = page.find_elements(By.CSS_SELECTOR, "#looks button")
    tap(page, next(one for one in buttons if one.text == key))
    case = page.find_element(By.ID, "case")
    assert page.find_element(By.CSS_SELECTOR, "#case h1").text == key
    assert not page.find_element(By.ID, "report").is_displayed()
    assert "97.11 % ± " in case.text
    assert "more than 90.00 %: +7.11 points" in case.text
    assert f"normbench run --bench-tier standard --bench-seeds 2 -k '[{key}]'" in case.text
    assert lines(page, "case test_loss")[:1] == ["none"]
    assert {"Seeds", "Confusion matrix", "Most confident mistakes", "Sizes of the weights"} <= {
        heading.text for heading in case.find_elements(By.TAG_NAME, "h2")
    }
    page.refresh()
    assert page.find_element(By.CSS_SELECTOR, "#case h1").text == key
    page.back()
    assert page.find_element(By.ID, "report").is_displayed()


def test_one_comes_back_from_a_case_to_where_one_was(page: webdriver.Chrome) -> None:
    (button, *_) = page.find_elements(By.CSS_SELECTOR, "#table tbody tr:last-child button")
    tap(page, button)
    place = "return [scrollY, document.activeElement.textContent]"
    tap(page, page.find_element(By.CSS_SELECTOR, "#case button.plain"))
    down, focused = page.execute_script(place)
    assert down > 500
    assert focused == button.text
