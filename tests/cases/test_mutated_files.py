"""Cases and claims files in which something is changed: read, or every mistake told in its line."""

import copy
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from normbench.cases.case import GridOptions
from normbench.cases.claims import is_claims_file, load_claims
from normbench.cases.errors import CasesError, toml_value
from normbench.cases.grids import load_cases

from ..mutated import cut, mutate, mutated_often

# Each key of a cases file and of a claims file, some of them several times.
GRID = """
schema = 1
tier = "smoke"
dataset = "digits"
network = "digits"
recipe = { from = "digits", learning_rate = 0.05, augmentation = { crop = 1 } }
epochs = 2
dropout = 0.1
seeds = 2
train_images = 600

[[grid]]
norm = ["batch", "group:2"]
regularizer = [{}, { l1 = 0.001 }, { l1 = 0.001, l2 = 0.01 }]
batch_size = [32, 64]

[[grid]]
tier = "standard"
norm = ["layer"]
regularizer = [{}]
batch_size = [16]

[[target]]
norm = "batch"
l1 = 0.001
test_accuracy = 90

[[target]]
test_accuracy = 80
"""
CLAIMS = """
schema = 1

[[claim]]
name = "batch-beats-group"
statement = "Batch beats group normalization."
source = "nowhere"
tier = "smoke"
grid = "tiny"
seeds = 2
expected = "holds"

[[claim.contrast]]
at = { batch_size = [32, 64] }
first = { norm = "batch" }
second = { norm = "group:2" }
more_than = 1

[[claim]]
name = "means"
statement = "Batch normalization computes as many means as there are channels."
source = "nowhere"
tier = "smoke"
images = 4
channels = 6
means = { batch = 6, layer = 4 }
"""


def as_toml(document: dict[str, Any]) -> str:
    """Spell a document as TOML: its tables within lists and tables, all on one line a key."""
    return "".join(f"{toml_value(key)} = {toml_value(value)}\n" for key, value in document.items())


def told_or_read(folder: Path, load: Callable[[], object]) -> None:
    try:
        load()
    except CasesError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(str(folder) in line for line in lines)


def written(document: dict[str, Any]) -> str:
    """Return it as TOML, where it can be: that has no null, and no text that is not in Unicode."""
    text = as_toml(document)
    try:
        text.encode()
        tomllib.loads(text)
    except ValueError:
        assume(False)
    return text


def load(folder: Path, grid: str, claims: str) -> list[object]:
    files = {"tiny": folder / "tiny.toml"}
    files["tiny"].write_text(grid)
    claims_file = folder / "claims.toml"
    claims_file.write_text(claims)
    found: list[object] = [*load_cases(files["tiny"], GridOptions(data=folder))]
    if is_claims_file(claims_file):
        found += load_claims(claims_file, files, GridOptions(data=folder))
    return found


def test_the_files_that_are_mutated_are_right_themselves(tmp_path: Path) -> None:
    grid, claims = (as_toml(tomllib.loads(text)) for text in (GRID, CLAIMS))
    assert load(tmp_path, grid, claims) == load(tmp_path, GRID, CLAIMS)
    assert len(load(tmp_path, grid, claims)) > 10


@given(data=st.data())
@mutated_often
def test_mutated_cases_are_read_or_their_mistakes_told(data: st.DataObject) -> None:
    grid = written(mutate(data, copy.deepcopy(tomllib.loads(GRID))))
    with tempfile.TemporaryDirectory() as folder:
        told_or_read(Path(folder), lambda: load(Path(folder), grid, ""))


@given(data=st.data())
@mutated_often
def test_mutated_claims_are_read_or_their_mistakes_told(data: st.DataObject) -> None:
    claims = written(mutate(data, copy.deepcopy(tomllib.loads(CLAIMS))))
    with tempfile.TemporaryDirectory() as folder:
        told_or_read(Path(folder), lambda: load(Path(folder), GRID, claims))


@given(data=st.data())
@mutated_often
def test_files_with_bytes_changed_are_read_or_their_mistakes_told(data: st.DataObject) -> None:
    content = cut(data, GRID.encode())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tiny.toml"
        file.write_bytes(content)
        told_or_read(Path(folder), lambda: load_cases(file, GridOptions(data=Path(folder))))
