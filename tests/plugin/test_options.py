"""What is given with a session: bad options, cases files with mistakes, folders of no use."""

from pathlib import Path

import pytest

from ..conftest import TEST_MODULE, Project, tiny_grid


def test_the_help_lists_the_options(project: Project) -> None:
    result = project.run("--help")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*normbench: does it still train?*", "*--bench-seeds*"])
    assert not project.results.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bench-tier", "quick"], "*--bench-tier: 'quick' is no tier: expected smoke, standard*"),
        (["--bench-seeds", "0"], "*--bench-seeds: '0': expected a whole number of runs, at least*"),
        (["--bench-seeds", "5:5"], "*--bench-seeds: '5:5': expected *5:10 for 5 to 9*"),
        (["--bench-seeds", "many"], "*--bench-seeds: 'many': expected a whole number*or auto*"),
        (["--bench-seeds", "999999999999"], "*'999999999999': * at most 10000, seeds such as*"),
        (["--bench-seeds", "0:99999999999999999999"], "*: expected a whole number of runs*"),
        (["--bench-seeds", f"{2**63 - 1}:{2**63 + 1}"], "*'9223*': expected * below 2?*63, or*"),
        (["--bench-seeds", "9" * 5000], "*: expected a whole number of runs, at least 1*"),
        (["--bench-baseline", ""], "*--bench-baseline: '': expected a baseline's name or file*"),
        (["--bench-overwrite"], "*--bench-overwrite needs --bench-save-baseline*"),
        (
            ["--bench-save-baseline", "digits"],
            "*--bench-save-baseline: 'digits' is a baseline of the package, which *reference*",
        ),
        (["--bench-data", "no/such"], "*--bench-data: 'no/such' is in no folder that exists: *"),
        (["--bench-seeds", "auto"], "*--bench-seeds auto needs --bench-baseline*"),
        (["--bench-save-baseline", "a/b"], "*'a/b': expected a name of letters, digits*"),
        (["--bench-minimum-effect", "1"], "*--bench-minimum-effect needs --bench-baseline*"),
        (["--bench-minimum-effect", "-1"], "*'-1': expected percentage points*"),
        (["--bench-norm", "bach"], "*--bench-norm: unknown norm 'bach': expected one of none*"),
        (["--bench-norm", "no.such:Norm"], "*--bench-norm: unknown norm 'no.such:Norm': No mod*"),
        (["--bench-norm-only"], "*--bench-norm-only needs at least one --bench-norm*"),
        (["--bench-regularizer", "l3:1"], "*--bench-regularizer: unknown regularizer 'l3': exp*"),
        (["--bench-regularizer", "l1"], "*--bench-regularizer: unknown regularizer 'l1': *such*"),
        (["--bench-target", "101"], "*--bench-target: '101': expected an accuracy in percent*"),
        (["--bench-device", "gpu"], "*--bench-device: device 'gpu': expected auto, cpu, cuda*"),
        (["--bench-cases", "no.toml"], "*--bench-cases: 'no.toml' is no file: expected a cases*"),
        (["--bench-results", "conftest.py"], "*--bench-results: 'conftest.py' is not a folder*"),
        (["--bench-data", "conftest.py"], "*--bench-data: 'conftest.py' is not a folder*"),
        (["--bench-shard", "3/2"], "*--bench-shard: '3/2': expected a part and the number of *"),
        (
            ["--bench-shard", "1/2", "--bench-save-baseline", "mine"],
            "*--bench-save-baseline: the shard 1/2 has a part of the cases alone; expected a*",
        ),
        (["--bench-shard", "1/2", "--bench-selection-size", "9"], "*the shard 1/2 knows how many*"),
        (["--bench-table", "long"], "*--bench-table: 'long': expected auto, all, short, none*"),
        (["--bench-machine", "ray"], "*unrecognized arguments: --bench-machine*"),
    ],
)
def test_an_option_that_cannot_be_right_ends_pytest_at_once(
    project: Project, arguments: list[str], message: str
) -> None:
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    # not even workers were started
    assert not result.outlines
    assert not project.results.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--bench-norm", "group:3"],
            "ERROR: *tiny.toml: *group:3 does not fit layer 'blocks.block1.norm': its 16 channels*",
        ),
        (
            ["--bench-regularizer", "stochastic-depth:0.1"],
            "ERROR: *tiny.toml: --bench-regularizer: stochastic-depth needs a network with res*",
        ),
        (["--bench-target", "9"], "ERROR: --bench-target 9: each case has a target of its own*"),
        (["--bench-device", "cuda:999"], "ERROR: device 'cuda:999': torch * CUDA devices here*"),
        (["--bench-baseline", "yours"], "ERROR: there is no baseline 'yours': expected a file*"),
    ],
)
def test_an_option_that_does_not_fit_ends_the_session_before_anything_trains(
    alone: Project, arguments: list[str], message: str
) -> None:
    result = alone.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    result.assert_outcomes()
    assert not alone.results.exists()


def test_what_does_not_fit_a_grid_may_be_run_on_others(project: Project) -> None:
    # the digits' network has 16 channels, and no residual block
    project.run("--bench-norm", "group:3", "-k", "batch").assert_outcomes(passed=2)
    added = ("--bench-regularizer", "stochastic-depth:0.1")
    project.run(*added, "-k", "not depth").assert_outcomes(passed=4)


def test_without_a_session_to_resume_nothing_trains(alone: Project) -> None:
    result = alone.run("--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --bench-resume: there is no session to resume in *results*"]
    )
    result.assert_outcomes()
    assert not alone.results.exists()


def test_a_cases_file_with_a_mistake_ends_the_session_before_anything_trains(
    project: Project,
) -> None:
    project.edit("bench/cases/tiny.toml", "epochs", "epoch")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (told,) = (line for line in result.errlines if line.startswith("ERROR: "))
    assert "tiny.toml" in told
    assert "epoch" in told
    result.assert_outcomes()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert not project.results.exists()


def test_tests_without_their_cases_are_not_listed_before_the_mistakes_of_all_folders(
    alone: Project,
) -> None:
    alone.edit("bench/cases/tiny.toml", "epochs", "epoch")
    alone.write("bench/other/cases/other.toml", tiny_grid().replace("epochs = 1", "epochs = 0"))
    alone.write("bench/other/test_other.py", TEST_MODULE.replace("tiny", "other"))
    result = alone.run("--collect-only", "-q")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "NOTSET" not in result.stdout.str()
    result.stderr.fnmatch_lines_random(
        ["*tiny.toml: unknown key epoch;*", "*other.toml: epochs = 0; expected a whole number*"]
    )


def test_a_mistake_in_a_cases_file_is_told_beside_what_needs_no_cases(alone: Project) -> None:
    alone.edit("bench/cases/tiny.toml", "epochs", "epoch")
    alone.write("bench/test_other.py", "def test_other(): pass\n")
    result = alone.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.assert_outcomes()
    alone.pytester.runpytest_inprocess(*alone.workers, "bench/test_other.py").assert_outcomes(
        passed=1
    )


def test_a_results_folder_that_cannot_be_made_ends_the_session(project: Project) -> None:
    project.write("file", "")
    result = project.run("--bench-results", "file/results")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: cannot write results to *; expected a folder to write to, name another one with*"]
    )
    result.assert_outcomes()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


# One that even the superuser, which CI often is, may not write to.
READ_ONLY = Path("/sys/kernel")


@pytest.mark.skipif(not READ_ONLY.is_dir(), reason="needs Linux' sysfs")
def test_a_read_only_results_folder_ends_the_session(alone: Project) -> None:
    result = alone.run("--bench-results", str(READ_ONLY))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: cannot write results to {READ_ONLY}: * not permitted: *; expected a folder*"]
    )
    result.assert_outcomes()


def test_a_baseline_that_cannot_be_written_ends_the_session(alone: Project) -> None:
    alone.write("results/reference", "a file in its place")
    result = alone.run("--bench-save-baseline", "mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bench-save-baseline: cannot write to *reference*"])
    assert not (alone.results / "runs").exists()
