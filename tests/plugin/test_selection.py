"""Which tests run: pytest's own selection, tiers, the user's own files; and what runs nothing."""

import pandas as pd
import pytest

from ..conftest import Project, tiny_grid
from .test_sessions import WHOLE_GRID

OWN_CASES = """
import pytest

@pytest.mark.cases()
def test_own(case, run):
    assert run(case.spec).test_accuracy > case.target
"""


def test_pytests_own_selection_works(alone: Project) -> None:
    alone.run("-k", "batch and none").assert_outcomes(passed=1, deselected=3)
    alone.run("-m", "digits", "-k", "layer").assert_outcomes(passed=2, deselected=2)
    alone.run("-m", "not digits").assert_outcomes(deselected=4)


def test_cases_are_selected_by_their_data_set(alone: Project) -> None:
    alone.run("-m", "digits", "--strict-markers").assert_outcomes(passed=4)
    alone.run("-m", "not digits", "--strict-markers").assert_outcomes(deselected=4)


def test_a_case_is_selected_by_its_name_in_any_script(alone: Project) -> None:
    alone.grid("größe", norms=["batch"])
    alone.edit("bench/test_tiny.py", '"tiny"', '"tiny", "größe"')
    result = alone.run("-k", "größe and l1", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*gr\\xf6\\xdfe-batch-l1*", "1/6 tests collected (5 deselected)*"])
    # in brackets, it is this one, and none whose name it is a part of
    alone.grid("tiny-größe", norms=["batch"])
    alone.edit("bench/test_tiny.py", '"größe"', '"größe", "tiny-größe"')
    result = alone.run("-k", "[größe-batch-none-b64]", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["1/8 tests collected (7 deselected)*"])
    alone.run("-k", "not größe", "--collect-only").assert_outcomes(deselected=4)


def test_the_data_set_of_a_larger_tier_may_be_named(alone: Project) -> None:
    alone.run("-m", "mnist or cifar10", "--strict-markers").assert_outcomes(deselected=4)
    listed = alone.run("--markers")
    for family in ("cifar10", "digits", "mnist"):
        listed.stdout.fnmatch_lines([f"@pytest.mark.{family}: cases that train on {family}"])


def test_what_the_command_line_adds_is_measured_where_no_target_is_said(project: Project) -> None:
    added = ("--bench-norm", "group:8", "--bench-regularizer", "decoupled:0.01")
    result = project.run(*added, "-k", "group:8-none or batch-none or batch-decoupled")
    result.stdout.fnmatch_lines(["*1 passed*2 measured*"])
    verdicts = {case_id.removeprefix("tiny-"): v for case_id, v in project.verdicts.items()}
    assert verdicts == {
        "batch-none-b64": "passed",
        "batch-decoupled:0.01-b64": "measured",
        "group:8-none-b64": "measured",
    }
    table = pd.read_csv(project.session / "tables" / "tiny.csv")
    unsaid = table[table["verdict"] == "measured"]
    assert unsaid["target_percent"].isna().tolist() == [True, True]


def test_a_target_may_be_given_for_what_the_command_line_adds(alone: Project) -> None:
    result = alone.run("--bench-norm", "group:8", "-k", "none", "--bench-target", "99.9")
    result.assert_outcomes(passed=2, failed=1)
    assert alone.verdicts["tiny-group:8-none-b64"] == "failed"


def test_what_is_not_selected_is_no_part_of_the_session(project: Project) -> None:
    project.run("-k", "layer").assert_outcomes(passed=2, deselected=0 if project.spread else 2)
    assert list(project.stored.cases) == ["tiny-layer-none-b64", "tiny-layer-l1:0.001-b64"]
    assert list(project.verdicts.values()) == ["passed"] * 2


def test_collecting_alone_leaves_nothing_behind(project: Project) -> None:
    result = project.run("--collect-only", "-q")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*test_tiny*tiny-batch-none-b64*"])
    assert not project.results.exists()


def test_listing_fixtures_leaves_nothing_behind(alone: Project) -> None:
    assert alone.run("--fixtures").ret == pytest.ExitCode.OK
    assert not alone.results.exists()


def test_a_plan_of_setups_leaves_nothing_behind(project: Project) -> None:
    assert project.run("--setup-plan").ret == pytest.ExitCode.OK
    assert not project.results.exists()


def test_an_error_in_collection_leaves_no_session_to_resume(alone: Project) -> None:
    alone.write("bench/test_broken.py", "import nothing_of_this_name\n")
    alone.run().assert_outcomes(errors=1)
    assert not alone.results.exists()
    alone.run("--continue-on-collection-errors").assert_outcomes(errors=1, passed=4)
    assert list(alone.verdicts.values()) == ["passed"] * 4


def test_the_longest_cases_come_first(alone: Project) -> None:
    alone.grid(norms=["none", "instance", "batch"])
    result = alone.run("--collect-only", "-q")
    order = [line for line in result.outlines if "test_tiny[" in line]
    assert [line.partition("tiny-")[2].partition("-")[0] for line in order] == [
        *("instance", "instance", "batch", "batch", "none", "none")
    ]


def test_a_larger_tier_is_left_out_without_a_word(alone: Project) -> None:
    alone.edit("bench/cases/tiny.toml", "smoke", "full")
    alone.run("--bench-tier", "standard").assert_outcomes(deselected=1)
    alone.run("--bench-tier", "full", "-k", "batch-none").assert_outcomes(passed=1, deselected=3)


def test_a_test_of_a_whole_grid_is_left_out_where_the_tier_has_no_case(alone: Project) -> None:
    alone.write("bench/test_a_whole.py", WHOLE_GRID)
    alone.edit("bench/cases/tiny.toml", '"smoke"', '"full"')
    alone.run().assert_outcomes(deselected=2)
    assert not alone.results.exists()


def write_own_cases(project: Project) -> None:
    """Write a grid of the user's own, ``mine.toml``, and the test that runs it."""
    project.write("bench/test_own_cases.py", OWN_CASES)
    project.write("mine.toml", tiny_grid(norms=["group:4"]))


def test_a_grid_of_ones_own_is_run_from_its_file(alone: Project) -> None:
    write_own_cases(alone)
    alone.run("--bench-cases", "mine.toml").assert_outcomes(passed=6)
    assert list(alone.verdicts) == [
        *("tiny-batch-none-b64", "tiny-batch-l1:0.001-b64"),
        *("tiny-layer-none-b64", "tiny-layer-l1:0.001-b64"),
        *("mine-group:4-none-b64", "mine-group:4-l1:0.001-b64"),
    ]


def test_the_own_tier_is_the_users_files_alone_whatever_tier_they_say(alone: Project) -> None:
    write_own_cases(alone)
    alone.edit("mine.toml", '"smoke"', '"full"')
    result = alone.run("--bench-tier", "own", "--bench-cases", "mine.toml")
    result.assert_outcomes(passed=2, deselected=1)
    assert list(alone.verdicts) == ["mine-group:4-none-b64", "mine-group:4-l1:0.001-b64"]
    assert {stored.tier for stored in alone.stored.document.cases} == {"full"}


def test_without_a_file_of_ones_own_its_test_is_left_out(alone: Project) -> None:
    alone.write("bench/test_own_cases.py", OWN_CASES)
    alone.run("-k", "own").assert_outcomes(deselected=5)
