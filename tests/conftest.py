"""Fixtures that the tests share: a small project with a grid of its own."""

from pathlib import Path

import pytest
import torch
import torchvision

from normbench.spec import RunSpec
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


def tiny_grid(norms=("batch", "layer"), epochs=1, target=5.0) -> str:
    listed = "[" + ", ".join(f'"{norm}"' for norm in norms) + "]"
    return TINY_GRID.format(norms=listed, epochs=epochs, target=target)


class Project:
    """A folder with a plugin-loading conftest, one grid and its test; ``run`` runs pytest in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path: Path = pytester.path
        pytester.makeconftest('pytest_plugins = ["normbench.plugin"]')
        pytester.makepyprojecttoml("[tool.pytest.ini_options]\n")
        self.write("bench/test_tiny.py", TEST_MODULE)
        self.grid()

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def grid(self, **settings) -> None:
        self.write("bench/cases/tiny.toml", tiny_grid(**settings))

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
        """Run pytest in this process: without xdist, and fast."""
        return self.pytester.runpytest_inprocess("-p", "no:xdist", "bench", *arguments)

    def run_apart(self, *arguments: str) -> pytest.RunResult:
        """Run pytest as a user does, in a process of its own."""
        return self.pytester.runpytest_subprocess("bench", *arguments, timeout=240)

    @property
    def session(self) -> Path:
        return (self.path / "results" / "latest").resolve()


@pytest.fixture(scope="session")
def modules_loaded(tmp_path_factory) -> None:
    """Import what a run imports as it goes: pytester forgets modules that an inner session brought.

    torch and its parts cannot be imported a second time.
    """
    assert torchvision.datasets
    cpu = torch.device("cpu")
    digits = load_dataset("digits", tmp_path_factory.getbasetemp(), cpu)
    train(RunSpec("digits", "digits", "batch", recipe="digits", batch_size=512), digits, cpu)


@pytest.fixture
def one_thread(monkeypatch) -> None:
    """Give each process that the test starts one thread: more slow each other down many times."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def project(modules_loaded: None, pytester: pytest.Pytester) -> Project:
    return Project(pytester)
