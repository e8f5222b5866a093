"""Cases files that are written as text, as the tests of what they come to and of bad ones share."""

from pathlib import Path
from typing import Protocol

import pytest

from normbench.cases.case import Case, GridOptions
from normbench.cases.grids import load_cases

EVERYTHING = GridOptions()


class Load(Protocol):
    """Loads the cases of a text."""

    def __call__(self, text: str, options: GridOptions = EVERYTHING) -> list[Case]: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, options: GridOptions = EVERYTHING) -> list[Case]:
        file = tmp_path / "grid.toml"
        file.write_text(text)
        return load_cases(file, options)

    return load_text


SECOND_GRID = """
[[grid]]
tier = "full"
norm = ["batch", "instance"]
regularizer = [{}]
batch_size = [64, 128]
"""


def misfits(cases: list[Case]) -> dict[str, str]:
    """Return why cases do not fit by norm and regularizer; those that do are left out."""
    return {f"{c.spec.norm} {c.spec.regularizer}": c.misfit for c in cases if c.misfit}
