"""Take the README's pictures anew from the report of a session: docs/report*.png.

``make pictures SESSIONS=results/runs/...`` draws the report of that session beside it and opens it
in headless Chromium, which ``chromedriver`` must find. The session should have cases of MNIST and
CIFAR-10 with several norms, and with one batch size, as the README says what is to be seen.
"""

import base64
import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from normbench.report.page import write_report
from normbench.storage.session import read_session

DOCS = Path(__file__).resolve().parents[1] / "docs"

# As wide as the README's readers see it; so high that no section waits to be scrolled to.
WIDTH, HEIGHT = 1280, 9000


@dataclass(frozen=True)
class Picture:
    """What of the page is taken: from the top of one section to the end of another, in pixels.

    Without ``first`` it begins at the page's top, with its header and filters. Of a last section
    that is longer than ``most``, only so much is taken.
    """

    file: str
    last: str
    first: str = ""
    most: int = HEIGHT


PICTURES = (
    Picture("report.png", last="maps"),
    Picture("report-mistakes.png", first="confusions", last="gallery", most=720),
    Picture("report-norms.png", first="activations", last="activations"),
)

# Where each section lies: its left edge, its top and its end.
PLACES = """return Object.fromEntries([...document.querySelectorAll('#report section[id]')]
  .filter(section => section.offsetHeight).map(section => {
    const { left, top, bottom } = section.getBoundingClientRect();
    return [section.id, [left, top + scrollY, bottom + scrollY]];
  }));"""
# As many charts as there are, and each of them drawn.
DRAWN = """const charts = [...document.querySelectorAll('#activations .chart')];
return charts.length > 0 && charts.every(chart => chart.querySelector('svg path'));"""


def main(folder: str) -> None:
    """Draw the report of the session in ``folder``, and take the pictures."""
    page = write_report(read_session(Path(folder)))
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    with webdriver.Chrome(
        options=options, service=Service(shutil.which("chromedriver"))
    ) as browser:
        browser.get(page.resolve().as_uri())
        needed = {picture.first for picture in PICTURES} | {picture.last for picture in PICTURES}
        if missing := needed - {"", *browser.execute_script(PLACES)}:
            sys.exit(f"{folder}: its report has no section {', '.join(sorted(missing))}")
        WebDriverWait(browser, 30).until(lambda it: it.execute_script(DRAWN))
        places = browser.execute_script(PLACES)
        whole = Image.open(io.BytesIO(base64.b64decode(browser.get_screenshot_as_base64())))
    for picture in PICTURES:
        left, top, _ = places[picture.first] if picture.first else (0, 0, 0)
        _, begins, ends = places[picture.last]
        end = min(ends, begins + picture.most)
        box = (max(0, int(left) - 1), int(top), WIDTH, int(end))
        whole.convert("RGB").crop(box).save(DOCS / picture.file, optimize=True)
        print(f"wrote docs/{picture.file}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{__doc__}\nexpected the folder of one session, not {sys.argv[1:]}")
    main(sys.argv[1])
