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
    assert document["schema"] == 3
    assert document["environment"]["torch"]
    assert [len(case["runs"]) for case in document["cases"]] == [3] * 4
    # a single epoch comes to what it may
    wide = ["--bench-minimum-effect", "99"]
    result = alone.run("--bench-baseline", "mine", "--bench-seeds", "3", *wide)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*beside the baseline mine*", "4 no regression; at * speed*"])
    comparison = alone.stored.document.comparison
    assert comparison is not None
    assert [case.outcome for case in comparison.cases] == ["no regression"] * 4
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


def test_a_case_that_looks_worse_is_confirmed_by_further_seeds_in_its_own_test(
    alone: Project, project: Project
) -> None:
    saved(alone, batch=POOR, layer=GOOD)
    result = project.run("--bench-baseline", "mine", "--junitxml", "junit.xml")
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["digits layer-none-b64, 1 epoch *99.10* 3 * 5 *regression*"])
    result.stdout.fnmatch_lines(["2 regressions, 2 no regression*"])
    result.stdout.fnmatch_lines(["normbench: no pass, 2 cases worse than in mine: digits layer-*"])
    seeds = {(run.spec.norm, run.spec.seed) for run in project.rows}
    assert seeds == {("batch", 0), *(("layer", seed) for seed in range(5))}
    # the mean, the target and the tables are of all its runs
    for case in project.stored.document.cases:
        layer = case.spec.norm == "layer"
        assert (case.runs, case.seeds, case.confirming) == ((5, 5, 4) if layer else (1, 1, 0))
    junit = (project.path / "junit.xml").read_text(encoding="utf-8")
    assert junit.count('name="beside_baseline" value="regression"') == 2
    assert junit.count('name="beside_baseline" value="no regression"') == 2
    assert '<property name="normbench: regression" value="2"' in junit


def test_a_suspicion_that_further_seeds_do_not_bear_out_is_dropped(alone: Project) -> None:
    document = saved(alone)
    # as if the first seed, and it alone, had come out far worse than its case does
    for case in document["cases"]:
        for run in case["runs"]:
            run["test_accuracy"] = 0.5 + run["seed"] / 1000
    alone.write("results/reference/mine.json", json.dumps(document))
    alone.write("bench/conftest.py", COLLAPSING)
    result = alone.run("--bench-baseline", "mine", "-k", "batch-none")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert [run.spec.seed for run in alone.rows] == [0, 1, 2]
    result.stdout.fnmatch_lines(["1 no regression, 3 only in the baseline*"])


# Stands in for the trainer: the first seed comes to chance, all others to more than the baseline.
COLLAPSING = """
import dataclasses
import pytest

@pytest.fixture(autouse=True)
def collapsing(monkeypatch):
    from normbench.engine import runner

    def train(spec, *arguments):
        result = runner.train(spec, *arguments)
        last = dataclasses.replace(result.epochs[-1], test_accuracy=0.6 if spec.seed else 0.3)
        return dataclasses.replace(result, epochs=(last,))

    monkeypatch.setitem(runner.Runner.__init__.__kwdefaults__, "train", train)
"""


def test_without_confirming_seeds_a_case_that_looks_worse_stays_suspected(alone: Project) -> None:
    saved(alone, layer=GOOD)
    result = alone.run("--bench-baseline", "mine", "--bench-confirm", "0")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["2 suspected, 2 *"])
    assert len(alone.rows) == 4


def test_a_baseline_keeps_the_planned_seeds_alone(alone: Project) -> None:
    saved(alone, layer=GOOD)
    alone.run("--bench-baseline", "mine", "--bench-save-baseline", "next")
    assert len(alone.rows) > 4
    kept = find_baseline("next", alone.results / "reference")
    assert [[run.seed for run in case.runs] for case in kept.cases.values()] == [[0]] * 4
    # compared, it has them all
    compared = find_baseline(str(alone.session), alone.results, confirming=True)
    assert sorted(len(case.runs) for case in compared.cases.values()) == [1, 1, 5, 5]


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]])
def test_the_latest_session_is_a_baseline(alone: Project, workers: list[str]) -> None:
    alone.run("--bench-seeds", "3").assert_outcomes(passed=4)
    alone.workers = tuple(workers)
    options = ("--bench-baseline", "results/latest", "--bench-seeds", "3")
    result = alone.run(*options, "--bench-minimum-effect", "99")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["4 no regression*"])
    assert len(alone.rows) == 12


def test_a_session_cannot_be_its_own_baseline(alone: Project) -> None:
    alone.grid(target=99.9)
    alone.run("-x")
    result = alone.run("--bench-resume", "--bench-baseline", "results/latest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--bench-resume: the session to go on with, *, cannot be its own*"]
    )


def test_a_comparison_of_nothing_is_no_pass(alone: Project) -> None:
    saved(alone)
    alone.grid(norms=["instance"])
    result = alone.run("--bench-baseline", "mine")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "normbench: no pass, nothing was compared with the baseline mine (4 only in the "
            "baseline, 2 not in the baseline): expected a case that both have, *"
        ]
    )
    for page in ("report.html", "summary.md"):
        assert "nothing was compared" in (alone.session / page).read_text(encoding="utf-8")


def test_several_baselines_are_one_comparison(alone: Project) -> None:
    saved(alone, "first")
    alone.grid(norms=["instance"])
    alone.run("--bench-seeds", "3", "--bench-save-baseline", "second").assert_outcomes(passed=2)
    alone.grid(norms=["batch", "layer", "instance"])
    options = ["--bench-baseline", "first", "--bench-baseline", "second", "--bench-seeds", "3"]
    result = alone.run(*options, "--bench-strict", "--bench-max-undecided", "100")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*beside the baseline first, second*"])
    comparison = alone.stored.document.comparison
    assert comparison is not None
    assert len(comparison.cases) == 6
    assert {len(case.before) for case in comparison.cases} == {3}


def test_strict_fails_for_what_was_left_open(alone: Project) -> None:
    saved(alone)
    alone.grid(norms=["batch", "instance"])
    options = ["--bench-baseline", "mine", "--bench-minimum-effect", "0.001"]
    assert alone.run(*options).ret == pytest.ExitCode.OK
    result = alone.run(*options, "--bench-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "normbench: no pass, --bench-strict: 2 cases not in the baseline: digits instance-*",
            "normbench: no pass, --bench-strict: 2 of 2 compared cases undecided or suspected, "
            "more than 25 %*",
        ]
    )
    loose = ["--bench-strict", "--bench-max-undecided", "100", "-k", "batch"]
    assert alone.run(*options, *loose).ret == pytest.ExitCode.OK


def test_a_session_that_ran_nothing_is_no_pass(alone: Project) -> None:
    for name in ("dataset", "network"):
        alone.edit("bench/cases/tiny.toml", f'{name} = "digits"', f'{name} = "mnist"')
    result = alone.run("--bench-data", str(alone.path))
    result.assert_outcomes(skipped=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["normbench: no pass, nothing was run: 4 cases skipped, *"])
    assert "MNIST is not in" in (alone.session / "summary.md").read_text(encoding="utf-8")
    for case in alone.stored.document.cases:
        assert case.reason.startswith(f"MNIST is not in {alone.path}")


def test_strict_fails_for_what_was_skipped(alone: Project) -> None:
    text = (alone.path / "bench/cases/tiny.toml").read_text(encoding="utf-8")
    alone.write("bench/cases/other.toml", text.replace('"digits"', '"mnist"'))
    alone.edit("bench/test_tiny.py", '"tiny"', '"tiny", "other"')
    options = ["--bench-data", str(alone.path), "-k", "none"]
    assert alone.run(*options).ret == pytest.ExitCode.OK
    result = alone.run(*options, "--bench-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["normbench: no pass, --bench-strict: 2 cases skipped: other-batch-none-b64, other-layer-*"]
    )


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
    # batch is far above its baseline, which one run tells; layer far below, which takes five
    seeds = {(run.spec.norm, run.spec.seed) for run in alone.rows}
    assert seeds == {("batch", 0), *(("layer", seed) for seed in range(5))}
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
