"""The page for a CI run: what failed first, a pivot, and a size that GitHub takes."""

import pandas as pd
import pytest

from normbench.analysis.comparison import compare
from normbench.report.summary import STEP_SUMMARY_BYTES, pivot, session_summary, write_summary
from normbench.report.tables import COLUMNS
from normbench.spec import RunSpec
from normbench.storage.session import Session

from ..analysis.simulation import baseline_of

ROWS = [
    ("batch", "none", 32, 99.512, "passed"),
    ("batch", "none", 64, 99.4, "marginal"),
    ("layer", "none", 32, 98.0, "failed"),
    ("layer", "none", 64, None, "crashed"),
    ("a|b", "none", 32, None, "skipped"),
]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    names = ("norm", "regularizer", "batch_size", "test_accuracy_percent", "verdict")
    rows = [{**dict.fromkeys(COLUMNS), **dict(zip(names, row, strict=True))} for row in ROWS]
    return {"mnist": pd.DataFrame(rows, columns=list(COLUMNS))}


@pytest.fixture
def session(tmp_path) -> Session:
    machine = {"processor": "Some CPU", "cores": 2, "gpus": []}
    software = dict.fromkeys(("python", "torch", "torchvision", "commit"), "1")
    return Session(tmp_path, "20260101-000000-1", environment={**machine, **software})


def test_a_pivot_has_norms_down_and_configurations_across(tables):
    lines = pivot(tables["mnist"]).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == [
        "",
        "norm",
        "none, 32",
        "none, 64",
        "",
    ]
    assert [cell.strip() for cell in lines[2].split("|")] == ["", "batch", "99.51", "99.40", ""]
    assert [cell.strip() for cell in lines[3].split("|")] == ["", "layer", "98.00", "", ""]
    assert len(lines) == 4


def test_what_failed_stands_first(tables, session):
    text = session_summary(tables, None, [], session)
    assert text.startswith(
        "## normbench: 1 passed, 1 marginal, 1 failed, 1 crashed, 1 skipped\n\n"
        "### mnist: not passed\n\n| norm"
    )
    failures = text.partition("test accuracy, last epoch (%)\n")[0]
    assert "| layer" in failures
    assert "a\\|b" not in failures
    assert "Some CPU (2 cores)" in text


def test_regressions_stand_before_the_pivot(tables, session):
    spec = RunSpec("mnist", "mnist", "batch")
    before = baseline_of({spec: [0.995, 0.996, 0.994]})
    now = baseline_of({spec: [0.98, 0.98, 0.98]})
    text = session_summary(tables, compare(before, now), [], session)
    regressed = text.index("| mnist batch-none-b64, 1 epoch |")
    assert text.index("### Beside the baseline simulated") < regressed
    assert regressed < text.index("### mnist: test accuracy")


def test_it_is_added_to_the_steps_summary(tmp_path, monkeypatch):
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    write_summary(tmp_path, "text\n")
    assert step.read_text() == "before\ntext\n"
    assert (tmp_path / "summary.md").read_text() == "text\n"


def test_a_steps_summary_is_cut_to_what_github_takes(tmp_path, monkeypatch):
    step = tmp_path / "step.md"
    step.write_text("x" * 100)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    text = "ü line\n" * 200_000
    write_summary(tmp_path, text)
    assert STEP_SUMMARY_BYTES - 100 < step.stat().st_size <= STEP_SUMMARY_BYTES
    assert step.read_text().endswith("ü line\n\n\nCut here: a step's summary holds 1024 KiB.\n")
    assert (tmp_path / "summary.md").read_text() == text
    write_summary(tmp_path, text)
    assert step.stat().st_size <= STEP_SUMMARY_BYTES


def test_without_a_step_only_the_file_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    write_summary(tmp_path, "text\n")
    assert [file.name for file in tmp_path.iterdir()] == ["summary.md"]
