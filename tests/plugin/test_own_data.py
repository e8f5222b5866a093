"""Data sets of the user's own, from the cases file to the report, and read where they are not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from normbench.results import Outcome
from normbench.storage.baseline import find_baseline
from normbench.training.data import load_dataset

from ..conftest import Project
from ..training.own_data import CLASSES, write_images

CPU = torch.device("cpu")

GRID = """
schema = 1
tier = "smoke"
dataset = "{dataset}"
network = "digits"
recipe = "digits"
epochs = 1

[[grid]]
norm = ["batch"]
regularizer = [{{}}]
batch_size = [10]

[[target]]
test_accuracy = 0
"""

# Whatever it comes to: a network that has seen 30 images may be right of none.
TRAIN = """
import pytest

@pytest.mark.cases("tiny")
def test_tiny(case, run_case):
    assert run_case(case)
"""


def train_on(project: Project, dataset: str) -> None:
    project.write("bench/cases/tiny.toml", GRID.format(dataset=dataset))
    project.write("bench/test_tiny.py", TRAIN)


# Reads a session and a baseline in a process that has neither the data nor the user's code.
ELSEWHERE = """
import sys
from pathlib import Path
from normbench.analysis.comparison import compare
from normbench.report.writer import write_all
from normbench.storage.baseline import Baseline
from normbench.storage.history import open_history
from normbench.storage.session import read_session
from normbench.analysis.trends import trends
folder, baseline = map(Path, sys.argv[1:])
session = read_session(folder)
before, now = Baseline.read(baseline), Baseline.of_session(session)
print([case.reason for case in compare(before, now).cases], write_all(session))
with open_history(folder.parent) as history:
    print(len(trends(history.cases(history.sessions()), 1)))
"""


def read_elsewhere(session: Path, baseline: Path) -> str:
    """Return what is printed by a process that reads what others have trained."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(session), str(baseline)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=session,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("workers", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "n2"])
def test_a_folder_is_trained_on_and_its_session_read_without_it(
    pytester: pytest.Pytester, modules_loaded: None, one_thread: None, workers: tuple[str, ...]
) -> None:
    project = Project(pytester, *workers)
    write_images(project.path / "data" / "my shapes")
    train_on(project, "folder:my shapes")
    options = ("--bench-data", "data", "--strict-markers", "-m", "folder_my_shapes")
    result = project.run(*options, "--bench-save-baseline", "shapes")
    result.assert_outcomes(passed=1)
    (run,), document = project.rows, project.stored.document
    content = load_dataset("folder:my shapes", project.path / "data", CPU).content
    assert run.data == content
    facts = document.datasets["folder:my shapes"]
    assert (facts.content, facts.classes, facts.test_images) == (content, CLASSES, 9)
    assert len(run.confusion) == 3
    baseline = project.results / "reference" / "shapes.json"
    assert find_baseline(str(baseline), Path()).cases[run.spec.with_seed(0)].contents == {content}
    page = (project.session / "report.html").read_text(encoding="utf-8")
    assert '"circle"' in page
    shutil.rmtree(project.path / "data")
    (project.session / "report.html").unlink()
    told = read_elsewhere(project.session, baseline)
    assert told.splitlines() == ["['1 and 1 runs are too few to tell'] []", "1"]
    again = (project.session / "report.html").read_text(encoding="utf-8")
    assert '"circle"' in again


OWN_FUNCTION = """
import torch
from normbench.training.data import ImageData

def load(root):
    labels = torch.arange(30) % 3
    levels = labels * int((root / "level.txt").read_text())
    images = levels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 8, 8)
    return ImageData("shapes", images, labels, images[:9], labels[:9], classes=("a", "b", "c"))
"""


def test_another_content_under_the_same_name_is_not_compared(alone: Project) -> None:
    alone.write("own_shapes.py", OWN_FUNCTION)
    alone.pytester.syspathinsert()
    train_on(alone, "own_shapes:load")
    for root, level in (("one", "10"), ("two", "10"), ("three", "11")):
        alone.write(f"{root}/level.txt", level)
    alone.run("--bench-data", "one", "--bench-save-baseline", "shapes").assert_outcomes(passed=1)
    for root, told in (("two", "are too few to tell"), ("three", "on other images or labels than")):
        alone.run("--bench-data", root, "--bench-baseline", "shapes").assert_outcomes(passed=1)
        comparison = alone.stored.document.comparison
        assert comparison is not None
        (case,) = comparison.cases
        assert case.outcome is Outcome.NOT_COMPARABLE
        assert told in case.reason


def test_what_is_wrong_with_a_data_set_ends_the_session_before_anything_trains(
    alone: Project,
) -> None:
    write_images(alone.path / "data" / "shapes")
    (alone.path / "data" / "shapes" / "train" / "cross" / "03.png").write_bytes(b"cut off")
    train_on(alone, "folder:shapes")
    result = alone.run("--bench-data", "data")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = "*train/cross/03.png cannot be decoded: *; expected an image that Pillow reads*"
    result.stderr.fnmatch_lines([told])
    assert not alone.results.exists()
