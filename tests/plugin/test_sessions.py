"""What a session leaves behind: rows, verdicts, tables and a page, whatever came of its runs."""

import json
from xml.etree import ElementTree

import pandas as pd
import pytest

from ..conftest import Project

WHOLE_GRID = """
import pytest

@pytest.mark.cases("tiny")
def test_a_whole_grid(cases, run):
    assert [case.spec.norm for case in cases] == ["batch", "batch", "layer", "layer"]
    assert {run(case.spec).status for case in cases} == {"ok"}
"""

# Runs after the cases, while the session is open, and leaves no room for what is drawn.
IN_THE_WAY = """
from pathlib import Path

def test_something_stands_in_the_way():
    session = Path("results", "latest")
    (session / "tables").write_text("a file in place of a folder")
    for name in ("summary.md", "report.html"):
        (session / name / "folder").mkdir(parents=True)
"""


def test_a_session_leaves_rows_verdicts_and_tables(project: Project) -> None:
    result = project.run()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*normbench: tiny*", "norm *test %*", "batch *none *passed*"])
    assert [run.status for run in project.rows] == ["ok"] * 4
    document = project.stored.document
    assert document.status == "finished"
    # a worker for each process of pytest that trains
    assert document.workers == (2 if project.spread else 1)
    assert list(project.verdicts) == [
        f"tiny-{norm}-{regularizer}-b64"
        for norm in ("batch", "layer")
        for regularizer in ("none", "l1:0.001")
    ]
    assert set(project.verdicts.values()) == {"passed"}
    assert document.environment["torch"]
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    assert table["seeds"].tolist() == [1] * 4
    assert table["verdict"].tolist() == ["passed"] * 4
    by_label = {(run.spec.norm, run.spec.regularizer): run.test_accuracy for run in project.rows}
    assert table["test_accuracy_percent"].tolist() == pytest.approx(
        [100 * by_label[n, r] for n in ("batch", "layer") for r in ("none", "l1:0.001")]
    )
    markdown = (project.session / "tables" / "tiny.md").read_text(encoding="utf-8")
    assert "| batch  | none" in markdown
    assert document.environment["processor"] in markdown
    assert sorted(file.name for file in project.session.iterdir()) == [
        *("pictures", "report.html", "runs.jsonl", "session.json", "summary.md", "tables")
    ]


def test_a_session_long_enough_for_it_draws_its_figures(alone: Project) -> None:
    alone.grid(norms=["batch"])
    alone.run().assert_outcomes(passed=2)
    assert not (alone.session / "figures").exists()
    # it was interrupted after more than the five minutes
    file = alone.session / "session.json"
    earlier = {"status": "interrupted", "seconds": 301.0}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | earlier))
    alone.run("--bench-resume").assert_outcomes(passed=2)
    drawn = sorted(file.name for file in (alone.session / "figures").iterdir())
    assert "curves-digits-1-epoch-none.png" in drawn
    assert "accuracy-tiny.svg" in drawn


def test_an_accuracy_below_its_target_fails_and_the_table_says_so(project: Project) -> None:
    project.grid(target=99.9)
    result = project.run()
    result.assert_outcomes(failed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*assert 0.* > 0.999*", "*(RunResult(digits batch-none-b64, seed 0: ??.?? %),)*"]
    )
    assert list(project.verdicts.values()) == ["failed"] * 4
    assert project.stored.document.status == "finished"


def test_seeds_are_independent_runs_and_the_table_counts_them(alone: Project) -> None:
    alone.grid(norms=["batch"])
    alone.run("--bench-seeds", "3").assert_outcomes(passed=2)
    assert sorted(run.spec.seed for run in alone.rows) == [0, 0, 1, 1, 2, 2]
    table = pd.read_csv(alone.session / "tables" / "tiny.csv")
    assert table["seeds"].tolist() == [3, 3]
    plain = [run.test_accuracy for run in alone.rows if not run.spec.strengths]
    assert len(set(plain)) > 1
    assert table["test_accuracy_percent"][0] == pytest.approx(100 * sum(plain) / 3)
    assert table["test_accuracy_std_percent"][0] == pytest.approx(100 * pd.Series(plain).std())


def test_a_norm_of_ones_own_gets_its_rows_beside_the_known_ones(alone: Project) -> None:
    result = alone.run("--bench-norm", "torch.nn:BatchNorm2d", "--bench-target", "5")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["torch.nn:BatchNorm2d *none *passed*"])


def test_a_norm_of_ones_own_may_run_alone(alone: Project) -> None:
    result = alone.run("--bench-norm", "group:8", "--bench-norm-only")
    result.stdout.fnmatch_lines(["* 2 measured in *"])
    assert {run.spec.norm for run in alone.rows} == {"group:8"}


def test_a_junit_report_carries_each_cases_figures(project: Project) -> None:
    project.grid(norms=["batch"])
    project.run("--bench-seeds", "2", "--junitxml", "report.xml").assert_outcomes(passed=2)
    cases = list(ElementTree.parse(project.path / "report.xml").getroot().iter("testcase"))
    figures = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    accuracies = sorted(100 * float(figure["test_accuracy"] or "") for figure in figures)
    assert accuracies == pytest.approx(sorted(table["test_accuracy_percent"]))
    assert {figure["runs"] for figure in figures} == {"2"}


def test_sessions_go_to_the_projects_results_from_any_folder(
    alone: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(alone.path / "bench")
    alone.pytester.runpytest_inprocess(*alone.workers, "-k", "batch").assert_outcomes(passed=2)
    assert len(alone.rows) == 2
    assert not (alone.path / "bench" / "results").exists()


def test_a_data_set_that_is_not_to_be_had_skips_with_reason_and_remedy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody answers there
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    project.edit("bench/cases/tiny.toml", '"digits"', '"mnist"')
    result = project.run("--bench-data", "nowhere", "-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(
        ["*normbench: skipping mnist: MNIST is not in *", "*SKIPPED*name its folder with*"]
    )
    assert list(project.verdicts.values()) == ["skipped"] * 4


def test_truncated_data_ends_the_session(alone: Project) -> None:
    raw = alone.path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\x00" * 99)
    alone.edit("bench/cases/tiny.toml", '"digits"', '"mnist"')
    result = alone.run("--bench-data", "data")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *raw lacks train-labels-idx1-ubyte*"])


def test_a_run_that_raises_is_stored_as_an_error(alone: Project) -> None:
    alone.norm("Broken", "if len(x) > 2:\n    raise RuntimeError('too many images')\nreturn x")
    result = alone.run("--bench-norm", "own_norms:Broken", "--bench-norm-only")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*RuntimeError: too many images*"])
    assert [run.status for run in alone.rows] == ["error", "error"]
    assert list(alone.verdicts.values()) == ["error", "error"]


def test_a_run_that_diverges_fails_without_a_number(alone: Project) -> None:
    alone.norm("Exploding", "return x * 1e30 * 1e30")
    result = alone.run("--bench-norm", "own_norms:Exploding", "--bench-norm-only")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*RunFailed: *diverged: the loss was no longer finite in epoch 1"])
    assert list(alone.verdicts.values()) == ["diverged", "diverged"]
    table = pd.read_csv(alone.session / "tables" / "tiny.csv")
    assert table["test_accuracy_percent"].isna().all()
    assert table["seeds"].tolist() == [0, 0]


def test_a_test_of_a_whole_grid_comes_last(alone: Project) -> None:
    alone.write("bench/test_a_whole.py", WHOLE_GRID)
    result = alone.run("-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*test_tiny?tiny-*", "*test_a_whole_grid?tiny-grid?*"])


def test_a_test_of_a_whole_grid_trains_nothing_again(alone: Project) -> None:
    alone.write("bench/test_a_whole.py", WHOLE_GRID)
    alone.run().assert_outcomes(passed=5)
    assert len(alone.rows) == 4
    assert list(alone.verdicts.values()) == ["passed"] * 4


def test_a_test_of_a_whole_grid_may_run_alone(project: Project) -> None:
    project.write("bench/test_a_whole.py", WHOLE_GRID)
    project.run("-k", "whole").assert_outcomes(passed=1, deselected=0 if project.spread else 4)
    assert len(project.rows) == 4
    # the session was prepared before the first run, and closed after the last
    assert project.stored.document.environment["torch"]
    assert project.stored.document.status == "finished"
    assert len(project.stored.cases) == 4
    assert sorted(file.name for file in project.session.iterdir()) == ["runs.jsonl", "session.json"]


def test_what_cannot_be_drawn_costs_nothing_that_was_measured(project: Project) -> None:
    project.write("bench/test_way.py", IN_THE_WAY)
    result = project.run("--bench-save-baseline", "mine")
    result.assert_outcomes(passed=5)
    assert result.ret == pytest.ExitCode.OK
    folder = project.session
    result.stdout.fnmatch_lines(
        [
            f"normbench: baseline mine written to {project.results}/reference/mine.json",
            f"normbench: the tables could not be drawn: *; all runs and verdicts are in {folder}",
            f"normbench: the summary could not be drawn: *; all runs and verdicts are in {folder}",
            f"normbench: the report could not be drawn: *; all runs and verdicts are in {folder}",
        ]
    )
    assert [run.status for run in project.rows] == ["ok"] * 4
    assert list(project.verdicts.values()) == ["passed"] * 4
    assert project.stored.document.status == "finished"
    assert (project.results / "reference" / "mine.json").is_file()


def test_a_session_that_failed_and_cannot_be_drawn_ends_as_its_tests_did(alone: Project) -> None:
    alone.write("bench/test_way.py", IN_THE_WAY)
    alone.grid(target=99.9)
    result = alone.run()
    result.assert_outcomes(passed=1, failed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert list(alone.verdicts.values()) == ["failed"] * 4
