"""What tests do on an open page, and read off it: scroll, click, choose, what the charts draw."""

import json
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

# Sections are drawn when they come into view.
SCROLL = """
const [names, done] = arguments;
const frame = () => new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next)));
(async () => {
  const all = [...document.querySelectorAll("#report section")].map(section => section.id);
  for (const name of names.length ? names : all) {
    document.getElementById(name)?.scrollIntoView();
    await frame();
  }
  done();
})();
"""
SERIES = """
const box = document.querySelector(`[data-chart="${arguments[0]}"] .chart`);
return echarts.getInstanceByDom(box).getOption().series.map(
  series => ({ type: series.type, name: series.name, data: series.data.map(d => d.value ?? d) }));
"""


def look(browser: webdriver.Chrome, page: Path, *sections: str, address: str = "") -> None:
    """Open a page, and scroll to these of its sections."""
    browser.get("about:blank")  # or another address of the same page would not load it
    browser.get(f"{page.as_uri()}#{address}")
    scroll(browser, *(sections or ("cases",)))


def scroll(page: webdriver.Chrome, *sections: str) -> None:
    """Scroll to these sections, or through all of the page, which draws them."""
    page.execute_async_script(SCROLL, list(sections))


def log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """Return what the browser has logged since it was last asked."""
    # selenium gives get_log no types
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def attribute(element: WebElement, name: str) -> str:
    value = element.get_attribute(name)
    assert value is not None
    return value


def embedded(page: webdriver.Chrome) -> Any:
    """Return the data that the page's script draws."""
    return json.loads(attribute(page.find_element(By.ID, "data"), "textContent"))


def tap(page: webdriver.Chrome, element: WebElement) -> None:
    """Click what may lie below the bar of filters, which stays in view."""
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    element.click()


def choose(page: webdriver.Chrome, name: str, value: str) -> None:
    menu = page.find_element(By.CSS_SELECTOR, f"#menus [data-name={name}]")
    Select(menu).select_by_value(value)


def column(page: webdriver.Chrome, heading: str) -> list[str]:
    headings = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, "#table thead th")]
    number = headings.index(heading) + 1
    cells = page.find_elements(By.CSS_SELECTOR, f"#table tbody :nth-child({number})")
    return [cell.text for cell in cells if cell.tag_name in ("td", "th")]


def series(page: webdriver.Chrome, chart: str) -> list[dict[str, Any]]:
    """Return what a chart draws."""
    found: list[dict[str, Any]] = page.execute_script(SERIES, chart)
    return found


def lines(page: webdriver.Chrome, chart: str) -> list[str]:
    return [one["name"] for one in series(page, chart) if one["type"] == "line"]


def rows_of_pictures(page: webdriver.Chrome) -> list[str]:
    return [h.text for h in page.find_elements(By.CSS_SELECTOR, "#pictures summary")]
