"""--bench-baseline, --bench-save-baseline, --bench-minimum-effect and --bench-seeds auto."""

import json

import pandas as pd
import pytest

from normbench.commands.main import main
from normbench.storage.baseline import find_baseline

from ..conftest import Project
from .test_sessions import rows


def saved(project: Project, name: str = "mine", **accuracies: list[float]) -> dict:
    """Save a baseline of three seeds; ``accuracies`` replace those of a norm's cases."""
    project.run("--bench-seeds", "3", "--bench-save-baseline", name).assert_outcomes(passed=4)
    file = project.path / "results" / "reference" / f"{name}.json"
    document = json.loads(file.read_text())
    for case in document["cases"]:
        for run, accuracy in zip(
            case["runs"], accuracies.get(case["spec"]["norm"], []), strict=False
        ):
            run["test_accuracy"] = accuracy
    file.write_text(json.dumps(document))
    return document


def test_a_session_is_saved_and_does_not_differ_from_itself(project):
    document = saved(project)
    assert document["schema"] == 1
    assert document["environment"]["torch"]
    assert [len(case["runs"]) for case in document["cases"]] == [3] * 4
    result = project.run("--bench-baseline", "mine", "--bench-seeds", "3")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*beside the baseline mine*", "4 no difference; at * speed*"])
    assert not [line for line in result.outlines if "regression" in line]
    stored = json.loads((project.session / "session.json").read_text())["comparison"]
    assert {case["outcome"] for case in stored["cases"]} == {"no difference"}
    table = pd.read_csv(project.session / "tables" / "comparison.csv")
    assert table["difference_points"].tolist() == [0.0] * 4
    assert "| digits batch-none-b64" in (project.session / "tables" / "comparison.md").read_text()


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]])
def test_a_regression_fails_the_session_though_every_target_is_met(project, workers):
    saved(project, batch=[0.10, 0.101, 0.102], layer=[0.990, 0.991, 0.992])
    result = project.pytester.runpytest_inprocess("bench", "--bench-baseline", "mine", *workers)
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["digits layer-none-b64, 1 epoch *99.10* 3 * 1 *regression*"])
    result.stdout.fnmatch_lines(["2 regressions, 2 improvements; *"])


def test_the_minimum_effect_is_the_users(project):
    saved(project, batch=[0.10, 0.101, 0.102], layer=[0.990, 0.991, 0.992])
    options = ["--bench-baseline", "mine", "--bench-minimum-effect", "99"]
    assert project.run(*options).ret == pytest.ExitCode.OK


def test_a_later_session_adds_seeds_to_a_baseline(project):
    saved(project)
    project.run("--bench-seeds", "3:5").assert_outcomes(passed=4)
    assert {row["spec"]["seed"] for row in rows(project)} == {3, 4}
    session, results = str(project.session), str(project.path / "results")
    assert main(["baseline", "mine", "mine", session, "--results", results]) == 0
    merged = find_baseline("mine", project.path / "results" / "reference")
    assert [[run.seed for run in case.runs] for case in merged.cases.values()] == [[*range(5)]] * 4


def test_a_session_with_a_failed_run_is_no_baseline(project):
    project.norm("Exploding", "return x * 1e30 * 1e30")
    norm = ["--bench-norm", "own_norms:Exploding"]
    result = project.run(*norm, "--bench-save-baseline", "mine")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["normbench: the session is no baseline, as a run of 2 of its *"])
    assert not list((project.path / "results" / "reference").iterdir())


def test_runs_are_added_only_while_a_case_is_undecided(project):
    saved(project, batch=[0.10, 0.101, 0.102], layer=[0.990, 0.991, 0.992])
    result = project.run("--bench-baseline", "mine", "--bench-seeds", "auto")
    # batch is far above its baseline, which one run tells; layer far below, which takes three
    seeds = {(row["spec"]["norm"], row["spec"]["seed"]) for row in rows(project)}
    assert seeds == {("batch", 0), ("layer", 0), ("layer", 1), ("layer", 2)}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # a target within two standard errors keeps a case open
    reached = min(row["test_accuracy"] for row in rows(project) if row["spec"]["norm"] == "batch")
    project.grid(norms=["batch"], target=100 * reached - 0.02)
    project.run("--bench-baseline", "mine", "--bench-seeds", "auto", "-k", "batch")
    assert max(row["spec"]["seed"] for row in rows(project)) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bench-baseline", "yours"], "*there is no baseline 'yours': expected a file*"),
        (["--bench-save-baseline", "a/b"], "*'a/b': expected a name of letters, digits*"),
        (["--bench-seeds", "auto"], "*--bench-seeds auto needs --bench-baseline*"),
        (["--bench-seeds", "some"], "*'some': expected a whole number of runs*or auto*"),
        (["--bench-minimum-effect", "1"], "*--bench-minimum-effect needs --bench-baseline*"),
        (["--bench-minimum-effect", "-1"], "*'-1': expected percentage points*"),
    ],
)
def test_bad_options_end_the_session_before_anything_trains(project, options, message):
    result = project.run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (project.path / "results").exists()


def test_a_folder_that_cannot_be_written_to_ends_the_session(project):
    project.write("results/reference", "a file in its place")
    result = project.run("--bench-save-baseline", "mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bench-save-baseline: cannot write to *reference*"])
    assert not (project.path / "results" / "runs").exists()


def test_auto_needs_a_baseline_whose_spread_is_known(project):
    project.run("--bench-save-baseline", "single").assert_outcomes(passed=4)
    before = len(list((project.path / "results" / "runs").iterdir()))
    result = project.run("--bench-baseline", "single", "--bench-seeds", "auto")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*single has no two runs of one case on digits with the recipe*"])
    assert len(list((project.path / "results" / "runs").iterdir())) == before
