"""What normbench new lays, and what it refuses. That it is green: docs/tutorial.md is run."""

import json
import tomllib
from pathlib import Path

import pytest

from normbench.cases.schema import cases_schema
from normbench.commands.main import main

LAID = {
    "README.md",
    ".github/workflows/nightly.yml",
    "cases.schema.json",
    "cases.toml",
    "mypkg/__init__.py",
    "mypkg/norms.py",
    "mypkg/regularizers.py",
    "pyproject.toml",
    "tests/test_norms.py",
}


def laid(folder: Path) -> set[str]:
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


def test_a_project_is_laid_in_a_new_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", str(tmp_path / "mine")]) == 0
    assert laid(tmp_path / "mine") == LAID
    assert json.loads((tmp_path / "mine" / "cases.schema.json").read_text()) == cases_schema()
    assert "normbench run --bench-cases cases.toml" in capsys.readouterr().out


def test_its_package_may_be_called_otherwise(tmp_path: Path) -> None:
    assert main(["new", str(tmp_path), "--package", "our_norms"]) == 0
    assert laid(tmp_path) == {name.replace("mypkg", "our_norms") for name in LAID}
    (grid,) = tomllib.loads((tmp_path / "cases.toml").read_text())["grid"]
    assert grid["norm"][-1] == "our_norms.norms:RMSNorm2d"
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and "mypkg" in f.read_text()]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["."], ". is not empty: expected a new or an empty folder; name another one"),
        (["there.txt"], "there.txt is not empty: expected a new or an empty folder"),
        (["new", "--package", "my-norms"], "'my-norms': expected a name as Python's are, such as"),
        (["new", "--package", "class"], "'class': expected a name as Python's are, such as my_n"),
        (["new", "--package", "tests"], "'tests': expected another name, as the project has tes"),
        (["new", "--package", "torch"], "'torch': Python has a package of that name already"),
    ],
)
def test_what_it_cannot_lay_is_told_and_nothing_is_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.txt").write_text("mine")
    assert main(["new", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert laid(tmp_path) == {"there.txt"}
