"""Fixtures that the tests share: a small project with a grid of its own."""

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TypedDict, Unpack

import pytest
import torch
import torchvision

from normbench.results import CaseVerdict, ClaimVerdict, RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunningRun, RunStore
from normbench.storage.session import StoredSession, latest_session, read_session
from normbench.training.data import load_dataset
from normbench.training.trainer import train

pytest_plugins = ["pytester"]

TINY_GRID = """
schema = 1
tier = "smoke"
dataset = "digits"
network = "digits"
recipe = "digits"
epochs = {epochs}

[[grid]]
norm = {norms}
regularizer = [{{}}, {{ l1 = 0.001 }}]
batch_size = [64]

[[target]]
test_accuracy = {target}
"""

TEST_MODULE = """
import pytest

@pytest.mark.cases("tiny")
def test_tiny(case, run_case):
    assert run_case(case).test_accuracy > case.target
"""


class GridSettings(TypedDict, total=False):
    """The arguments of ``tiny_grid``."""

    norms: Sequence[str]
    epochs: int
    target: float


def tiny_grid(
    norms: Sequence[str] = ("batch", "layer"), epochs: int = 1, target: float = 5.0
) -> str:
    listed = "[" + ", ".join(f'"{norm}"' for norm in norms) + "]"
    return TINY_GRID.format(norms=listed, epochs=epochs, target=target)


# Plugins that tests bring along, and users lack: each pytest that a test starts would take a second
# to load them.
WITHOUT = "-p no:hypothesispytest -p no:anyio"


class Project:
    """A folder with a plugin-loading conftest, one grid and its test; ``run`` runs pytest in it.

    ``workers`` are the arguments of pytest that say which processes run the tests.
    """

    def __init__(self, pytester: pytest.Pytester, *workers: str) -> None:
        self.pytester = pytester
        self.workers = workers
        self.path: Path = pytester.path
        pytester.makeconftest('pytest_plugins = ["normbench.plugin"]')
        pytester.makepyprojecttoml(f'[tool.pytest.ini_options]\naddopts = "{WITHOUT}"\n')
        self.write("bench/test_tiny.py", TEST_MODULE)
        self.grid()

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def edit(self, name: str, before: str, after: str) -> None:
        """Replace a text that stands in a file."""
        text = (self.path / name).read_text(encoding="utf-8")
        assert before in text
        self.write(name, text.replace(before, after))

    def grid(self, name: str = "tiny", **settings: Unpack[GridSettings]) -> None:
        self.write(f"bench/cases/{name}.toml", tiny_grid(**settings))

    def norm(self, name: str, forward: str) -> None:
        """Write a norm ``own_norms:name`` whose forward pass is the given lines."""
        lines = "".join(f"        {line}\n" for line in forward.splitlines())
        self.write(
            "own_norms.py",
            f"from torch import nn\nclass {name}(nn.Identity):\n"
            f"    def __init__(self, channels):\n        super().__init__()\n"
            f"    def forward(self, x):\n{lines}",
        )
        self.pytester.syspathinsert()

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in this process, which is xdist's controller where there are workers."""
        return self.pytester.runpytest_inprocess(*self.workers, "bench", *arguments)

    def run_apart(self, *arguments: str) -> pytest.RunResult:
        """Run pytest as a user does, in a process of its own."""
        command = (*self.workers, "bench", *arguments)
        return self.pytester.runpytest_subprocess(*command, timeout=240)

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin what run_apart runs, and do not wait for it."""
        command = [sys.executable, "-m", "pytest", *self.workers, "bench", *arguments]
        return subprocess.Popen(command, cwd=self.path, stdout=subprocess.DEVNULL, text=True)

    @property
    def running(self) -> list[RunningRun]:
        """What goes on in the last session, if it has begun."""
        if not (self.results / "latest").exists():
            return []
        return RunStore(self.session).running()

    @property
    def spread(self) -> bool:
        """Whether workers run the tests: pytest then does not tell how many were deselected."""
        return "2" in self.workers

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def session(self) -> Path:
        """The folder of the last session."""
        return latest_session(self.results)

    @property
    def stored(self) -> StoredSession:
        """The last session, as it is stored."""
        return read_session(self.session)

    @property
    def rows(self) -> list[RunResult]:
        """The runs of the last session, in the order in which they ended."""
        return list(RunStore(self.session).results().values())

    @property
    def verdicts(self) -> dict[str, CaseVerdict | None]:
        """The verdicts of the last session by the ids of their cases."""
        return {stored.case.id: stored.verdict for stored in self.stored.judged_cases}

    @property
    def claim_verdicts(self) -> dict[str, ClaimVerdict | None]:
        """The verdicts of the last session by the names of their claims."""
        return {claim.name: stored.verdict for claim, stored in self.stored.claims}


@pytest.fixture(scope="session")
def modules_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what a run imports as it goes: pytester forgets modules that an inner session brought.

    torch and its parts cannot be imported a second time.
    """
    assert torchvision.datasets
    cpu = torch.device("cpu")
    digits = load_dataset("digits", tmp_path_factory.getbasetemp(), cpu)
    train(RunSpec("digits", "digits", "batch", recipe="digits", batch_size=512), digits, cpu)
    for module in ("plugin.collection", "plugin.session", "plugin.workers", "engine.xdist"):
        import_module(f"normbench.{module}")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each process that the test starts one thread: more slow each other down many times."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
