"""--bench-baseline, --bench-save-baseline, --bench-minimum-effect and --bench-seeds auto."""

import json
from typing import Any

import pandas as pd
import pytest

from normbench.commands.main import main
from normbench.storage.baseline import find_baseline

from ..conftest import Project

# Accuracies of three seeds, far below and far above what an epoch comes to.
POOR, GOOD = [0.10, 0.101, 0.102], [0.990, 0.991, 0.992]


def saved(project: Project, name: str = "mine", **accuracies: list[float]) -> dict[str, Any]:
    """Save a baseline of three seeds; ``accuracies`` replace those of a norm's cases."""
    project.run("--bench-seeds", "3", "--bench-save-baseline", name).assert_outcomes(passed=4)
    file = project.results / "reference" / f"{name}.json"
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for case in document["cases"]:
        replaced = accuracies.get(case["spec"]["norm"], [])
        for run, accuracy in zip(case["runs"], replaced, strict=False):
            run["test_accuracy"] = accuracy
    file.write_text(json.dumps(document), encoding="utf-8")
    return document


def test_a_session_is_saved_and_does_not_differ_from_itself(alone: Project) -> None:
    document = saved(alone)
    assert document["schema"] == 1
    assert document["environment"]["torch"]
    assert [len(case["runs"]) for case in document["cases"]] == [3] * 4
    result = alone.run("--bench-baseline", "mine", "--bench-seeds", "3")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*beside the baseline mine*", "4 no difference; at * speed*"])
    assert not [line for line in result.outlines if "regression" in line]
    comparison = alone.stored.document.comparison
    assert comparison is not None
    assert [case.outcome for case in comparison.cases] == ["no difference"] * 4
    table = pd.read_csv(alone.session / "tables" / "comparison.csv")
    assert table["difference_points"].tolist() == [0.0] * 4
    markdown = (alone.session / "tables" / "comparison.md").read_text(encoding="utf-8")
    assert "| digits batch-none-b64" in markdown


def test_a_baseline_is_replaced_only_where_that_is_asked_for(alone: Project) -> None:
    file = alone.write("results/reference/mine.json", "{}")
    one = ("-k", "batch-none", "--bench-save-baseline", "mine")
    result = alone.run(*one)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--bench-save-baseline: there is a baseline 'mine' already, *mine.json: *--bench-overw*"]
    )
    assert file.read_text(encoding="utf-8") == "{}"
    assert not (alone.results / "runs").exists()
    alone.run(*one, "--bench-overwrite").assert_outcomes(passed=1, deselected=3)
    assert len(find_baseline("mine", file.parent).cases) == 1


def test_a_regression_fails_the_session_though_every_target_is_met(
    alone: Project, project: Project
) -> None:
    saved(alone, batch=POOR, layer=GOOD)
    result = project.run("--bench-baseline", "mine")
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["digits layer-none-b64, 1 epoch *99.10* 3 * 1 *regression*"])
    result.stdout.fnmatch_lines(["2 regressions, 2 improvements; *"])


def test_the_minimum_effect_is_the_users(alone: Project) -> None:
    saved(alone, batch=POOR, layer=GOOD)
    options = ["--bench-baseline", "mine", "--bench-minimum-effect", "99"]
    assert alone.run(*options).ret == pytest.ExitCode.OK


def test_a_later_session_adds_seeds_to_a_baseline(alone: Project) -> None:
    saved(alone)
    alone.run("--bench-seeds", "3:5").assert_outcomes(passed=4)
    assert {run.spec.seed for run in alone.rows} == {3, 4}
    session, results = str(alone.session), str(alone.results)
    assert main(["baseline", "mine", "mine", session, "--results", results]) == 0
    merged = find_baseline("mine", alone.results / "reference")
    assert [[run.seed for run in case.runs] for case in merged.cases.values()] == [[*range(5)]] * 4


def test_a_session_with_a_failed_run_is_no_baseline(alone: Project) -> None:
    alone.norm("Exploding", "return x * 1e30 * 1e30")
    norm = ["--bench-norm", "own_norms:Exploding"]
    result = alone.run(*norm, "--bench-save-baseline", "mine")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["normbench: the session is no baseline, as a run of 2 of its *"])
    assert not list((alone.results / "reference").iterdir())


def test_runs_are_added_only_while_a_case_is_undecided(alone: Project) -> None:
    saved(alone, batch=POOR, layer=GOOD)
    result = alone.run("--bench-baseline", "mine", "--bench-seeds", "auto")
    # batch is far above its baseline, which one run tells; layer far below, which takes three
    seeds = {(run.spec.norm, run.spec.seed) for run in alone.rows}
    assert seeds == {("batch", 0), ("layer", 0), ("layer", 1), ("layer", 2)}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # a target within two standard errors keeps a case open
    reached = min(run.test_accuracy for run in alone.rows if run.spec.norm == "batch")
    alone.grid(norms=["batch"], target=100 * reached - 0.02)
    alone.run("--bench-baseline", "mine", "--bench-seeds", "auto", "-k", "batch")
    assert max(run.spec.seed for run in alone.rows) > 0


def test_auto_needs_a_baseline_whose_spread_is_known(alone: Project) -> None:
    alone.run("--bench-save-baseline", "single").assert_outcomes(passed=4)
    before = len(list((alone.results / "runs").iterdir()))
    result = alone.run("--bench-baseline", "single", "--bench-seeds", "auto")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*single has no two runs of one case on digits with the recipe*"])
    assert len(list((alone.results / "runs").iterdir())) == before
