"""The package as others install it: what the wheel holds, and that it works on its own."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from normbench.storage.session import latest_session, read_session

from .conftest import WITHOUT

ROOT = Path(__file__).parents[1]
SOURCES = ("bench", "examples", "models", "normbench", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources: setuptools leaves its work among them."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "results" / "reference", copy / "results" / "reference")
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(built), str(copy)], check=True)
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel into a folder, which stands before the checkout on the path."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def normbench(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": WITHOUT}
    environment = {**os.environ, **ours}
    command = [sys.executable, "-m", "normbench", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_wheel_holds_the_package_and_nothing_else_at_the_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"normbench"}
    for needed in (
        "normbench/py.typed",
        "normbench/models/norms.py",
        "normbench/bench/test_digits.py",
        "normbench/bench/cases/digits.toml",
        "normbench/bench/cases/published/mnist.csv",
        "normbench/reference/digits.json",
        "normbench/report/assets/report.html",
        "normbench/report/assets/script/start.js",
        "normbench/report/assets/vendor/echarts.min.js",
        "normbench/report/assets/vendor/LICENSE",
        "normbench/project/mypkg/norms.py",
        "normbench/project/.github/workflows/nightly.yml",
    ):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_a_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        said = Parser().parsestr(archive.read(metadata).decode())
        (licence,) = (n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE"))
        assert b"MIT License" in archive.read(licence)
    assert said["License-Expression"] == "MIT"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Requires-Python"] == ">=3.11"


def test_the_suite_runs_from_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    one = ("-k", "digits-batch-none-b64", "-p", "no:xdist", "-q")
    done = normbench(installed, tmp_path, "run", "--bench-tier", "smoke", *one)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file.name for file in tmp_path.iterdir()} <= {"results", ".pytest_cache"}
    session = read_session(latest_session(tmp_path / "results"))
    assert [stored.case.id for stored in session.judged_cases] == ["digits-batch-none-b64"]
    # from the wheel, with the digits' baseline that it holds
    compared = normbench(installed, tmp_path, "compare", "digits", "results/latest")
    assert "69 only in the baseline" in compared.stdout
    where = normbench(installed, tmp_path, "report")
    assert Path(where.stdout.strip()) == session.folder / "report.html"


def test_the_wheel_lays_a_project_whose_norm_trains(installed: Path, tmp_path: Path) -> None:
    laid = normbench(installed, tmp_path, "new", ".")
    assert laid.returncode == 0, laid.stdout + laid.stderr
    one = ("-k", "RMSNorm2d-none", "-p", "no:xdist", "-q")
    done = normbench(installed, tmp_path, "run", "--bench-cases", "cases.toml", *one)
    assert done.returncode == 0, done.stdout + done.stderr
    (stored,) = read_session(latest_session(tmp_path / "results")).judged_cases
    assert stored.test_accuracy is not None
    assert stored.test_accuracy > 0.9


def test_the_wheel_is_what_was_run(installed: Path, tmp_path: Path) -> None:
    program = "import normbench, normbench.models.norms as norms; print(norms.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)
