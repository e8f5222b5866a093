"""The plugin as its users meet it: options, selection, tables, workers, crashes."""

import json
from xml.etree import ElementTree

import pandas as pd
import pytest

from ..conftest import Project


def rows(project: Project) -> list[dict]:
    lines = (project.session / "runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def verdicts(project: Project) -> dict[str, str]:
    return json.loads((project.session / "session.json").read_text())["verdicts"]


def test_a_session_leaves_rows_verdicts_and_tables(project):
    result = project.run()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*normbench: tiny*", "norm *test %*", "batch *none *passed*"])
    assert [row["status"] for row in rows(project)] == ["ok"] * 4
    document = json.loads((project.session / "session.json").read_text())
    assert document["status"] == "finished"
    assert set(document["verdicts"].values()) == {"passed"}
    assert document["environment"]["torch"]
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    assert table["seeds"].tolist() == [1] * 4
    assert table["verdict"].tolist() == ["passed"] * 4
    by_label = {(r["spec"]["norm"], r["spec"]["l1"]): r["test_accuracy"] for r in rows(project)}
    assert table["test_accuracy_percent"].tolist() == pytest.approx(
        [100 * by_label[n, l1] for n in ("batch", "layer") for l1 in (0.0, 0.001)]
    )
    markdown = (project.session / "tables" / "tiny.md").read_text()
    assert "| batch  | none" in markdown
    assert document["environment"]["processor"] in markdown
    assert sorted(file.name for file in project.session.iterdir()) == [
        "report.html",
        "runs.jsonl",
        "session.json",
        "summary.md",
        "tables",
    ]


def test_a_session_long_enough_for_it_draws_its_figures(project, monkeypatch):
    monkeypatch.setattr("normbench.engine.benchmark.FIGURES_AFTER_SECONDS", 0.0)
    project.grid(norms=["batch"])
    project.run().assert_outcomes(passed=2)
    drawn = sorted(file.name for file in (project.session / "figures").iterdir())
    assert "curves-digits-1-epoch-none.png" in drawn
    assert "accuracy-tiny.svg" in drawn


def test_an_accuracy_below_its_target_fails_and_the_table_says_so(project):
    project.grid(target=99.9)
    result = project.run()
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        ["*assert 0.* > 0.999*", "*(RunResult(digits batch-none-b64, seed 0: ??.?? %),)*"]
    )
    assert set(verdicts(project).values()) == {"failed"}


def test_seeds_are_independent_runs_and_the_table_counts_them(project):
    project.grid(norms=["batch"])
    project.run("--bench-seeds", "3").assert_outcomes(passed=2)
    assert sorted(row["spec"]["seed"] for row in rows(project)) == [0, 0, 1, 1, 2, 2]
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    assert table["seeds"].tolist() == [3, 3]
    plain = [r["test_accuracy"] for r in rows(project) if not r["spec"]["l1"]]
    assert len(set(plain)) > 1
    assert table["test_accuracy_percent"][0] == pytest.approx(100 * sum(plain) / 3)
    assert table["test_accuracy_std_percent"][0] == pytest.approx(100 * pd.Series(plain).std())


def test_a_norm_of_ones_own_gets_its_rows_beside_the_known_ones(project):
    result = project.run("--bench-norm", "torch.nn:BatchNorm2d")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["torch.nn:BatchNorm2d *none *passed*"])
    project.run("--bench-norm", "group:8", "--bench-norm-only").assert_outcomes(passed=2)
    assert {row["spec"]["norm"] for row in rows(project)} == {"group:8"}


def test_a_junit_report_carries_each_cases_figures(project):
    project.grid(norms=["batch"])
    project.run("--bench-seeds", "2", "--junitxml", "report.xml").assert_outcomes(passed=2)
    cases = ElementTree.parse(project.path / "report.xml").getroot().iter("testcase")
    figures = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    accuracies = sorted(100 * float(figure["test_accuracy"]) for figure in figures)
    assert accuracies == pytest.approx(sorted(table["test_accuracy_percent"]))
    assert {figure["runs"] for figure in figures} == {"2"}


def test_pytests_own_selection_works(project):
    project.run("-k", "batch and none").assert_outcomes(passed=1, deselected=3)
    project.run("-m", "digits", "-k", "layer").assert_outcomes(passed=2, deselected=2)
    project.run("-m", "not digits").assert_outcomes(deselected=4)


def test_the_help_lists_the_options(project):
    result = project.run("--help")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*normbench: does it still train?*", "*--bench-seeds*"])
    assert not (project.path / "results").exists()


def test_collecting_alone_leaves_nothing_behind(project):
    result = project.run("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_tiny*tiny-batch-none-b64*"])
    assert not (project.path / "results").exists()


@pytest.mark.parametrize("option", ["--fixtures", "--setup-plan"])
def test_what_runs_nothing_leaves_nothing_behind(project, option):
    assert project.run(option).ret == 0
    assert not (project.path / "results").exists()


def test_an_error_in_collection_leaves_no_session_to_resume(project):
    project.write("bench/test_broken.py", "import nothing_of_this_name\n")
    project.run().assert_outcomes(errors=1)
    assert not (project.path / "results").exists()


def test_the_longest_cases_come_first(project):
    project.grid(norms=["none", "instance", "batch"])
    result = project.run("--collect-only", "-q")
    order = [line for line in result.outlines if "test_tiny[" in line]
    assert [line.partition("tiny-")[2].partition("-")[0] for line in order] == [
        *("instance", "instance", "batch", "batch", "none", "none")
    ]


def test_a_larger_tier_is_left_out_without_a_word(project):
    file = project.path / "bench" / "cases" / "tiny.toml"
    file.write_text(file.read_text().replace("smoke", "full"))
    project.run("--bench-tier", "standard").assert_outcomes(deselected=1)


def test_a_grid_of_ones_own_is_run_from_its_file(project):
    project.write(
        "bench/test_own_cases.py",
        "import pytest\n@pytest.mark.cases()\n"
        "def test_own(case, run):\n    assert run(case.spec).test_accuracy > case.target\n",
    )
    text = (project.path / "bench" / "cases" / "tiny.toml").read_text()
    own = project.write("mine.toml", text.replace('"batch", "layer"', '"group:4"'))
    result = project.run("--bench-cases", str(own), "-k", "mine")
    result.assert_outcomes(passed=2, deselected=4)
    assert set(verdicts(project)) == {"mine-group:4-none-b64", "mine-group:4-l1:0.001-b64"}
    project.run("-k", "own").assert_outcomes(deselected=5)


def test_a_data_set_that_is_not_to_be_had_skips_with_reason_and_remedy(project, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"], raising=True)
    file = project.path / "bench" / "cases" / "tiny.toml"
    file.write_text(file.read_text().replace('"digits"', '"mnist"'))
    result = project.run("--bench-data", "nowhere", "-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(
        ["*normbench: skipping mnist: MNIST is not in *", "*SKIPPED*name its folder with*"]
    )
    assert set(verdicts(project).values()) == {"skipped"}


def test_a_run_that_raises_is_stored_as_an_error(project):
    project.norm("Broken", "if len(x) > 2:\n    raise RuntimeError('too many images')\nreturn x")
    result = project.run("--bench-norm", "own_norms:Broken", "--bench-norm-only")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*RuntimeError: too many images*"])
    assert [row["status"] for row in rows(project)] == ["error", "error"]
    assert set(verdicts(project).values()) == {"error"}


def test_a_run_that_diverges_fails_without_a_number(project):
    project.norm("Exploding", "return x * 1e30 * 1e30")
    result = project.run("--bench-norm", "own_norms:Exploding", "--bench-norm-only")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*RunFailed: *diverged: the loss was no longer finite in epoch 1"])
    assert set(verdicts(project).values()) == {"diverged"}
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    assert table["test_accuracy_percent"].isna().all()
    assert table["seeds"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bench-tier", "quick"], "*--bench-tier: 'quick' is no tier: expected smoke, standard*"),
        (["--bench-seeds", "0"], "*--bench-seeds: '0': expected a whole number of runs, at least*"),
        (["--bench-seeds", "5:5"], "*--bench-seeds: '5:5': expected *5:10 for 5 to 9*"),
        (["--bench-seeds", "many"], "*--bench-seeds: 'many': expected a whole number*"),
        (["--bench-norm", "bach"], "*--bench-norm: unknown norm 'bach': expected one of none*"),
        (["--bench-norm", "no.such:Norm"], "*--bench-norm: unknown norm 'no.such:Norm': No mod*"),
        (
            ["--bench-norm", "group:3"],
            "*group:3 does not fit layer 'block1.norm': its 16 channels*",
        ),
        (["--bench-norm-only"], "*--bench-norm-only needs at least one --bench-norm*"),
        (["--bench-device", "gpu"], "*--bench-device: device 'gpu': expected auto, cpu, cuda*"),
        (["--bench-device", "cuda:999"], "*device 'cuda:999': torch * sees * CUDA devices*"),
        (["--bench-cases", "no.toml"], "*--bench-cases: 'no.toml' is no file: expected a cases*"),
        (["--bench-results", "conftest.py"], "*--bench-results: 'conftest.py' is not a folder*"),
        (["--bench-data", "conftest.py"], "*--bench-data: 'conftest.py' is not a folder*"),
        (["--bench-resume"], "*--bench-resume: there is no session to resume in *results*"),
        (["--bench-engine", "ray"], "*unrecognized arguments: --bench-engine*"),
    ],
)
def test_a_bad_option_ends_the_session_before_anything_trains(project, arguments, message):
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (project.path / "results").exists()


def test_a_bad_cases_file_ends_the_session_before_anything_trains(project):
    file = project.path / "bench" / "cases" / "tiny.toml"
    file.write_text(file.read_text().replace("epochs", "epoch"))
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *tiny.toml: unknown key epoch; known are*"])


def test_sessions_go_to_the_projects_results_from_any_folder(project, monkeypatch):
    monkeypatch.chdir(project.path / "bench")
    project.pytester.runpytest_inprocess("-p", "no:xdist", "-k", "batch").assert_outcomes(passed=2)
    assert len(rows(project)) == 2
    assert not (project.path / "bench" / "results").exists()


def test_a_results_folder_that_cannot_be_written_to_ends_the_session(project):
    (project.path / "file").write_text("")
    result = project.run("--bench-results", "file/results")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: cannot write results to *; expected a folder to write to, name another one with*"]
    )


def test_a_read_only_results_folder_ends_the_session(project, monkeypatch):
    # refused by hand, as permissions do not bind the superuser that CI often is
    def refuse(file, text):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("normbench.storage.session.write_atomic", refuse)
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cannot write results to *Permission denied*"])
    result.assert_outcomes()


def test_a_truncated_data_file_ends_the_session(project):
    raw = project.path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\x00" * 99)
    file = project.path / "bench" / "cases" / "tiny.toml"
    file.write_text(file.read_text().replace('"digits"', '"mnist"'))
    result = project.run("--bench-data", "data")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *raw lacks train-labels-idx1-ubyte*"])


WHOLE_GRID = """
import pytest

@pytest.mark.cases("tiny")
def test_a_whole_grid(cases, run):
    assert [case.spec.norm for case in cases] == ["batch", "batch", "layer", "layer"]
    assert {run(case.spec).status for case in cases} == {"ok"}
"""


def test_a_test_of_a_whole_grid_comes_last_and_trains_nothing_again(project):
    project.write("bench/test_a_whole.py", WHOLE_GRID)
    result = project.run("-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*test_tiny*PASSED*", "*test_a_whole_grid?tiny-grid?*PASSED*"])
    assert len(rows(project)) == 4


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]])
def test_a_test_of_a_whole_grid_may_run_alone(project, workers):
    project.write("bench/test_a_whole.py", WHOLE_GRID)
    result = project.pytester.runpytest_inprocess("bench", "-k", "whole", *workers)
    result.assert_outcomes(passed=1)
    assert len(rows(project)) == 4
    # the session was prepared before the first run
    assert json.loads((project.session / "session.json").read_text())["environment"]["torch"]


def test_a_test_of_a_whole_grid_is_left_out_where_the_tier_has_no_case(project):
    project.write("bench/test_a_whole.py", WHOLE_GRID)
    grid = project.path / "bench" / "cases" / "tiny.toml"
    grid.write_text(grid.read_text().replace('"smoke"', '"full"'))
    project.run().assert_outcomes(deselected=2)


def test_cases_are_selected_by_their_data_set(project):
    project.run("-m", "digits").assert_outcomes(passed=4)
    project.run("-m", "not digits").assert_outcomes(deselected=4)
