"""A headless Chromium for the tests of this folder, and a report that most of them look at."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from .browsing import log, look
from .sessions import HOSTILE, write

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


# One for each process, as it takes seconds to open; closed after this folder's tests.
@pytest.fixture(scope="package")
def browser() -> Iterator[webdriver.Chrome]:
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver on the path: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as opened:
        yield opened


@pytest.fixture(scope="package")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    norms = ("none", "batch", "layer", "group:4", HOSTILE)
    return write(tmp_path_factory.mktemp("report"), norms)


@pytest.fixture
def page(browser: webdriver.Chrome, report: Path) -> Iterator[webdriver.Chrome]:
    log(browser, "performance")
    look(browser, report)
    yield browser
    assert log(browser, "browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in log(browser, "performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "about"}
