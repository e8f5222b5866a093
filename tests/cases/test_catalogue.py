"""The catalogue: where grids come from, which of them there are, and under which names."""

import dataclasses
import re
from pathlib import Path

import pytest

from normbench.cases.case import OWN, GridOptions
from normbench.cases.catalogue import (
    SUITE,
    Catalogue,
    cases_folder,
    find_case,
    grid_id,
    traced_runs,
)
from normbench.cases.errors import CasesError
from normbench.cases.grids import load_cases
from normbench.training.recipes import RECIPES

from ..conftest import tiny_grid

CLAIM = """
schema = 1

[[claim]]
name = "batch-is-better"
statement = "Batch beats layer normalization."
source = "nobody"
tier = "smoke"
grid = "tiny"
seeds = 3

[[claim.contrast]]
at = { batch_size = 64 }
first = { norm = "batch" }
second = { norm = "layer" }
"""

SMOKE = GridOptions("smoke")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of cases files with a grid of four cases, ``tiny``."""
    return write(tmp_path / "cases" / "tiny.toml", tiny_grid()).parent


def test_a_test_files_grids_are_in_the_folder_beside_it_else_in_the_suite(
    folder: Path, tmp_path: Path
) -> None:
    assert cases_folder(tmp_path / "test_mine.py") == folder
    (tmp_path / "elsewhere").mkdir()
    suite = cases_folder(tmp_path / "elsewhere" / "test_mine.py")
    assert (suite.parent.name, suite.name) == ("bench", "cases")
    catalogue = Catalogue(SMOKE)
    catalogue.add(suite)
    # every norm by every regularizer at two batch sizes
    assert len(catalogue.grids("digits")) == 7 * 5 * 2


def test_a_norm_of_the_command_line_need_fit_the_cases_of_the_tier_alone(tmp_path: Path) -> None:
    # CIFAR-10's blocks do not have 16 channels each, and claims of a larger tier take its cases
    suite = cases_folder(tmp_path / "test_mine.py")
    catalogue = Catalogue(GridOptions("smoke", norms=("group:16",)))
    catalogue.add(suite)
    assert len(catalogue.grids("digits")) == 8 * 5 * 2
    standard = Catalogue(GridOptions("standard", norms=("group:16",)))
    standard.add(suite)
    misfits = {case.grid: case.misfit for case in standard.cases if case.spec.norm == "group:16"}
    assert "cifar10.toml: --bench-norm: group:16 does not fit" in misfits["cifar10"]
    assert misfits["digits"] == ""


def test_a_link_to_a_test_file_leads_to_the_grids_beside_the_file(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(folder.parent, target_is_directory=True)
    assert cases_folder(tmp_path / "link" / "test_mine.py") == folder


def test_a_folder_is_read_once(folder: Path) -> None:
    catalogue = Catalogue(SMOKE)
    catalogue.add(folder)
    catalogue.add(folder)
    assert [case.id for case in catalogue.cases] == [
        *("tiny-batch-none-b64", "tiny-batch-l1:0.001-b64"),
        *("tiny-layer-none-b64", "tiny-layer-l1:0.001-b64"),
    ]


def test_grids_are_known_by_name_and_the_users_own_without_one(
    folder: Path, tmp_path: Path
) -> None:
    mine = write(tmp_path / "mine.toml", tiny_grid(norms=["group:4"]))
    write(folder / "other.toml", tiny_grid(norms=["none"]))
    catalogue = Catalogue(SMOKE, [mine])
    catalogue.add(folder)
    assert {case.spec.norm for case in catalogue.grids("other")} == {"none"}
    assert {case.grid for case in catalogue.grids("other", "tiny")} == {"other", "tiny"}
    assert {case.grid for case in catalogue.grids()} == {"mine"}
    assert catalogue.grids("unknown") == []
    assert len(catalogue.cases) == 2 + 4 + 2


def test_the_users_own_files_are_read_once_however_many_folders_there_are(
    folder: Path, tmp_path: Path
) -> None:
    mine = write(tmp_path / "mine.toml", tiny_grid(norms=["group:4"]))
    other = write(tmp_path / "more" / "cases" / "other.toml", tiny_grid(norms=["none"])).parent
    catalogue = Catalogue(SMOKE, [mine])
    catalogue.add(folder)
    catalogue.add(other)
    assert [case.grid for case in catalogue.cases] == ["tiny"] * 4 + ["mine"] * 2 + ["other"] * 2


def test_without_files_of_their_own_a_user_has_no_grid(folder: Path) -> None:
    catalogue = Catalogue(SMOKE)
    catalogue.add(folder)
    assert catalogue.grids() == []


def test_the_own_tier_is_the_users_files_alone_whatever_tier_they_say(
    folder: Path, tmp_path: Path
) -> None:
    text = tiny_grid(norms=["group:4"]).replace('"smoke"', '"full"')
    mine = write(tmp_path / "mine.toml", text)
    catalogue = Catalogue(GridOptions(OWN), [mine])
    catalogue.add(folder)
    assert [(case.grid, case.tier) for case in catalogue.cases] == [("mine", "full")] * 2


def test_two_files_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "tiny.toml", tiny_grid())
    with pytest.raises(
        CasesError, match=rf"^{re.escape(str(mine))}: .*tiny\.toml is called 'tiny' already"
    ):
        Catalogue(SMOKE, [mine]).add(folder)
    other = write(tmp_path / "more" / "cases" / "tiny.toml", tiny_grid()).parent
    catalogue = Catalogue(SMOKE)
    catalogue.add(folder)
    with pytest.raises(CasesError, match=r"is called 'tiny' already.*; rename one of the two"):
        catalogue.add(other)


@pytest.mark.parametrize("name", ["comparison", "claims", "claims-tiny"])
def test_a_grid_is_not_called_as_tables_of_another_kind_are(folder: Path, name: str) -> None:
    write(folder / f"{name}.toml", tiny_grid())
    with pytest.raises(CasesError, match=rf"a grid cannot be called '{name}'.*; rename the cases"):
        Catalogue(SMOKE).add(folder)


def test_claims_take_their_configurations_from_the_grids_beside_them(folder: Path) -> None:
    write(folder / "claims.toml", CLAIM)
    catalogue = Catalogue(SMOKE)
    catalogue.add(folder)
    (claim,) = catalogue.claims
    assert catalogue.claimed_cases == claim.cases
    assert [(case.id, case.seeds) for case in catalogue.claimed_cases] == [
        ("claims-tiny-batch-none-b64", 3),
        ("claims-tiny-layer-none-b64", 3),
    ]
    # they are cases of the session too, after those of the grids
    assert catalogue.cases[-2:] == catalogue.claimed_cases
    assert len(catalogue.cases) == 4 + 2


def test_claims_of_the_users_own_may_be_about_a_grid_of_the_suite(
    folder: Path, tmp_path: Path
) -> None:
    mine = write(tmp_path / "mine.toml", CLAIM)
    catalogue = Catalogue(GridOptions(OWN), [mine])
    catalogue.add(folder)
    assert [claim.name for claim in catalogue.claims] == ["batch-is-better"]
    assert catalogue.cases == catalogue.claimed_cases


def test_norms_that_stand_alone_leave_no_claims(folder: Path) -> None:
    write(folder / "claims.toml", CLAIM)
    catalogue = Catalogue(GridOptions("smoke", norms=("group:2",), norms_only=True))
    catalogue.add(folder)
    assert catalogue.claims == []
    assert {case.spec.norm for case in catalogue.cases} == {"group:2"}


def test_a_file_with_a_mistake_is_named(folder: Path) -> None:
    file = write(folder / "wrong.toml", tiny_grid().replace("epochs", "epoch"))
    with pytest.raises(CasesError, match=rf"{re.escape(str(file))}: .*epoch"):
        Catalogue(SMOKE).add(folder)


def test_the_mistakes_of_all_files_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    first = write(folder / "first.toml", tiny_grid().replace("epochs = 1", "epochs = 0"))
    second = write(folder / "second.toml", "schema = ")
    claims = write(folder / "claims.toml", CLAIM.replace("seeds = 3", "seeds = 1"))
    of_first = CLAIM.replace("batch-is-better", "other").replace('"tiny"', '"first"')
    mine = write(tmp_path / "mine.toml", of_first)
    with pytest.raises(CasesError, match=r"epochs = 0") as caught:
        Catalogue(SMOKE, [mine]).add(folder)
    lines = str(caught.value).splitlines()
    # what is wrong with the grid of a claim is told once
    assert [line.partition(":")[0] for line in lines] == [
        str(first),
        f"{second} is not TOML",
        str(claims),
    ]


def test_a_file_that_is_given_twice_is_one_file(folder: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", tiny_grid(norms=["group:4"]))
    catalogue = Catalogue(SMOKE, [mine, tmp_path / "cases" / ".." / "mine.toml"])
    catalogue.add(folder)
    assert [case.grid for case in catalogue.grids()] == ["mine"] * 2


@pytest.mark.parametrize("tier", ["smoke", OWN])
def test_a_file_of_the_folder_may_be_given_as_ones_own(folder: Path, tier: str) -> None:
    full = write(folder / "full.toml", tiny_grid(norms=["group:4"]).replace('"smoke"', '"full"'))
    catalogue = Catalogue(GridOptions(tier), [full])
    catalogue.add(folder)
    assert [case.id for case in catalogue.grids()] == [
        *("full-group:4-none-b64", "full-group:4-l1:0.001-b64")
    ]
    assert catalogue.grids("full") == catalogue.grids()
    others = set() if tier == OWN else {"tiny"}
    assert {case.grid for case in catalogue.cases} == {"full", *others}


def test_an_empty_file_is_told_in_one_line(folder: Path) -> None:
    file = write(folder / "empty.toml", "# nothing yet")
    with pytest.raises(
        CasesError,
        match=rf"^{re.escape(str(file))}: expected the keys schema, tier, .*, came an empty file; "
        r"`normbench schema` prints what is allowed$",
    ):
        Catalogue(SMOKE).add(folder)


def test_a_test_of_a_whole_grid_is_called_as_no_case_is() -> None:
    assert grid_id("tiny") == "tiny-grid"


def test_two_claims_of_one_name_in_two_files_are_refused(folder: Path) -> None:
    write(folder / "one.toml", CLAIM)
    write(folder / "two.toml", CLAIM)
    with pytest.raises(CasesError, match=r"different files are called 'batch-is-better'; rename"):
        Catalogue(SMOKE).add(folder)


def test_a_grid_that_there_is_no_file_of_is_refused(folder: Path) -> None:
    catalogue = Catalogue(SMOKE)
    catalogue.add(folder)
    catalogue.require("tiny")
    with pytest.raises(CasesError, match=r"there is no grid 'tinny'; expected one of tiny, or"):
        catalogue.require("tiny", "tinny")


def test_a_file_of_ones_own_is_run_whatever_tier_it_says(folder: Path, tmp_path: Path) -> None:
    full = tiny_grid().replace('"smoke"', '"full"')
    own = write(tmp_path / "mine.toml", full)
    catalogue = Catalogue(SMOKE, [own])
    catalogue.add(folder)
    assert {case.grid for case in catalogue.cases} == {"tiny", "mine"}
    write(folder / "larger.toml", full)
    again = Catalogue(SMOKE, [own])
    again.add(folder)
    assert {case.grid for case in again.cases} == {"tiny", "mine"}


def test_each_recipe_that_no_grid_of_the_smoke_tier_trains_is_traced() -> None:
    digits = load_cases(SUITE / "cases" / "digits.toml", SMOKE)
    runs = traced_runs(SMOKE, digits)
    assert {run.spec.recipe for run in runs} == RECIPES.keys()
    assert len(runs) == 7 * 5 + 10
    # the longest first
    assert [run.name for run in runs[:2]] == ["cifar10-group:4", "fashion-mnist-none"]
    assert [run.name for run in runs[10:12]] == ["digits-none-none", "digits-none-l1:0.001"]
    assert {run.spec.batch_size for run in runs} == {4, 8}
    # of the norms that the digits have, each but that with the largest traces
    others = {run.spec.norm for run in runs[:10]}
    assert others == {run.spec.norm for run in runs[10:]} - {"batch"}


def test_own_files_alone_are_traced_alone() -> None:
    assert traced_runs(GridOptions(OWN), []) == []


def test_what_has_no_reference_is_not_traced() -> None:
    (case, *_) = load_cases(SUITE / "cases" / "digits.toml", SMOKE)
    own = dataclasses.replace(case, spec=dataclasses.replace(case.spec, network="mypkg.nets:Net"))
    assert traced_runs(GridOptions(OWN), [own]) == []


def found(case_id: str, folder: Path) -> tuple[str, str, int]:
    """Return the norm, the regularizer and the batch size of the case of that id."""
    spec = find_case(case_id, sorted(folder.glob("*.toml")), folder).spec
    return spec.norm, spec.regularizer, spec.batch_size


def test_a_case_is_found_by_its_id_in_any_tier(folder: Path) -> None:
    write(folder / "tiny_full.toml", tiny_grid().replace("smoke", "full"))
    write(folder / "claims.toml", CLAIM)
    assert found("tiny-batch-l1:0.001-b64", folder) == ("batch", "l1:0.001", 64)
    assert found("tiny_full-layer-none-b64", folder) == ("layer", "none", 64)


def test_a_case_is_found_with_another_norm_than_those_of_its_grid(folder: Path) -> None:
    assert found("tiny-group:2-none-b64", folder) == ("group:2", "none", 64)
    # which is not imported
    assert found("tiny-no.such.package:MyNorm-none-b64", folder)[0] == "no.such.package:MyNorm"


def test_a_case_of_a_regularizer_of_the_command_line_is_found_as_well(folder: Path) -> None:
    own = "mypkg.reg:lasso:0.01"
    assert found(f"tiny-batch-{own}-b64", folder) == ("batch", own, 64)
    both = "l2-weights:5e-05+stochastic-depth:0.1"
    assert found(f"tiny-mypkg.norms:Mine-{both}-b64", folder) == ("mypkg.norms:Mine", both, 64)


@pytest.mark.parametrize(
    ("case_id", "message"),
    [
        ("tiny-batch-l3:1-b64", r"is no case: expected an id such as tiny-batch-l1:0.001-b64, "),
        ("small-batch-none-b64", r"'small-batch-none-b64' is no case: .* begins with one of tiny$"),
        ("tiny-batch-none-b32", r"is no case: expected an id such as tiny-batch-none-b64, "),
        ("tiny-bach-none-b64", r"is no case: expected an id such as tiny-batch-none-b64, "),
        ("tiny-", r"'tiny-' is no case: expected an id such as tiny-"),
    ],
)
def test_what_is_no_id_of_a_case_is_told_with_those_like_it(
    case_id: str, message: str, folder: Path
) -> None:
    with pytest.raises(CasesError, match=message):
        found(case_id, folder)
