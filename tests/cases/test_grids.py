"""Cases files: what they come to, and what is said of a bad one."""

import dataclasses
from pathlib import Path

import pytest

from normbench.cases.case import GridOptions
from normbench.cases.checked_toml import CasesError
from normbench.cases.grids import load_cases
from normbench.spec import RunSpec
from normbench.training.recipes import RECIPES

from ..conftest import tiny_grid

BENCH_CASES = Path(__file__).parents[2] / "bench" / "cases"


EVERYTHING = GridOptions()


@pytest.fixture
def load(tmp_path):
    def load_text(text: str, options: GridOptions = EVERYTHING):
        file = tmp_path / "grid.toml"
        file.write_text(text)
        return load_cases(file, options)

    return load_text


def test_a_grid_is_the_product_of_its_axes(load):
    cases = load(tiny_grid())
    assert [case.id for case in cases] == [
        "grid-batch-none-b64",
        "grid-batch-l1:0.001-b64",
        "grid-layer-none-b64",
        "grid-layer-l1:0.001-b64",
    ]
    assert cases[1].spec == RunSpec(
        "digits", "digits", "batch", l1=0.001, batch_size=64, epochs=1, recipe="digits"
    )
    assert cases[1].target == pytest.approx(0.05)


def test_each_seed_is_a_run_of_the_case(load):
    case = load(tiny_grid(), GridOptions(seeds=3))[0]
    assert [spec.seed for spec in case.specs] == [0, 1, 2]
    assert {dataclasses.replace(spec, seed=0) for spec in case.specs} == {case.spec}


def test_norms_of_the_command_line_are_added_or_stand_alone(load):
    added = load(tiny_grid(), GridOptions(norms=("group:4", "batch")))
    assert [case.spec.norm for case in added][::2] == ["batch", "layer", "group:4"]
    alone = load(tiny_grid(), GridOptions(norms=("group:4",), norms_only=True))
    assert {case.spec.norm for case in alone} == {"group:4"}


def test_a_tier_takes_in_the_smaller_ones(load):
    standard = tiny_grid().replace('"smoke"', '"standard"')
    assert not load(standard, GridOptions(tier="smoke"))
    assert load(standard, GridOptions(tier="standard"))
    assert load(tiny_grid(), GridOptions(tier="full"))


def test_the_first_target_that_fits_is_the_cases(load):
    special = '\n[[target]]\nnorm = "batch"\nl1 = [0.001, 0.01]\ntest_accuracy = 90\n'
    head, tail = tiny_grid().split("[[target]]")
    cases = load(f"{head}{special}[[target]]{tail}")
    assert [case.target for case in cases] == pytest.approx([0.05, 0.9, 0.05, 0.05])


SECOND_GRID = """
[[grid]]
tier = "full"
recipe = "mnist"
norm = ["batch", "instance"]
regularizer = [{}]
batch_size = [64, 128]
"""


def test_a_configuration_of_several_grids_is_a_case_of_the_first(load):
    cases = {case.spec.label: case for case in load(tiny_grid() + SECOND_GRID)}
    assert cases["batch-none-b64"].spec.recipe == "digits"
    assert cases["batch-none-b128"].spec.recipe == "mnist"
    assert len(cases) == 4 + 3
    added = load(tiny_grid() + SECOND_GRID, GridOptions(norms=("group:4",)))
    assert [c.spec.label for c in added].count("group:4-none-b64") == 1


def test_a_grid_may_have_a_tier_of_its_own(load):
    text = tiny_grid() + SECOND_GRID
    assert len(load(text, GridOptions(tier="standard"))) == 4
    assert {case.tier for case in load(text)} == {"smoke", "full"}


def test_seeds_may_begin_anywhere(load):
    case = load(tiny_grid(), GridOptions(seeds=2, first_seed=5))[0]
    assert [spec.seed for spec in case.specs] == [5, 6]


def test_a_file_may_ask_for_several_seeds_and_for_a_part_of_the_images(load):
    text = "seeds = 3\ntrain_images = 500\n" + tiny_grid()
    case = load(text)[0]
    assert [spec.seed for spec in case.specs] == [0, 1, 2]
    assert case.spec.train_images == 500
    assert load(text, GridOptions(seeds=2))[0].seeds == 3
    assert load(text, GridOptions(seeds=5))[0].seeds == 5


def test_the_copy_on_disk_stands_in_for_cifar10_and_is_named(load, tmp_path):
    text = tiny_grid().replace('dataset = "digits"', 'dataset = "cifar10"')
    assert load(text, GridOptions(data=tmp_path))[0].spec.dataset == "cifar10"
    (tmp_path / "cifar10-jpeg").mkdir()
    assert load(text, GridOptions(data=tmp_path))[0].spec.dataset == "cifar10-jpeg"


def test_a_grid_may_have_a_recipe_of_its_own(load):
    text = tiny_grid().replace("[[grid]]", '[[grid]]\nrecipe = "mnist"')
    assert {case.spec.recipe for case in load(text)} == {"mnist"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 1", "epoch = 1", r"unknown key epoch; known are dataset, dropout, epochs"),
        ("epochs = 1", "", r"the key epochs is missing"),
        ("epochs = 1", "epochs = 0", r"epochs = 0; expected a whole number of at least 1"),
        ("epochs = 1", "epochs = 1.5", r"epochs = 1.5; expected a whole number"),
        ("epochs = 1", "epochs = true", r"epochs = True; expected a whole number"),
        ("schema = 1", "schema = 2", r"schema = 2; expected one of 1"),
        ('"smoke"', '"quick"', r"tier = 'quick'; expected one of 'smoke', 'standard', 'full'"),
        ('"smoke"', "[]", r"tier = \[\]; expected one of"),
        ('dataset = "digits"', 'dataset = "svhn"', r"dataset = 'svhn'; expected one of 'digits'"),
        ('"batch"', '"bach"', r"\[\[grid\]\] 1: norm: unknown norm 'bach'"),
        ('"batch"', "7", r"norm = 7; expected a norm's name in quotes"),
        ('"batch"', '"group:3"', r"\[\[grid\]\] 1: group:3 does not fit layer 'block1.norm'"),
        ("l1 = 0.001", "l3 = 0.001", r"unknown key l3; known are l1, l2"),
        ("l1 = 0.001", "l1 = -1", r"l1 = -1; expected a number of at least 0"),
        ("l1 = 0.001", "l1 = inf", r"l1 = inf; expected a number of at least 0"),
        ("l1 = 0.001", "l1 = nan", r"l1 = nan; expected a number of at least 0"),
        ("[64]", '["64"]', r"a size = '64'; expected a whole number of at least 1"),
        ("[64]", "64", r"batch_size = 64; expected a list of values"),
        ("[64]", "[]", r"batch_size = \[\]; expected a list of values"),
        ("[[grid]]", '[[grid]]\ntier = "all"', r"tier = 'all'; expected one of 'smoke'"),
        ("schema = 1", "schema = 1\nseeds = 0", r"seeds = 0; expected a whole number"),
        ("schema = 1", "schema = 1\ntrain_images = 9999", r"at least 1 and at most 1348"),
        ("test_accuracy = 5.0", "test_accuracy = 101", r"at least 0 and at most 100"),
        ("test_accuracy = 5.0", "accuracy = 5", r"\[\[target\]\] 1: unknown key accuracy"),
        ("test_accuracy = 5.0", "test_accuracy = 5\nnorm = 3", r"norm = 3; expected a name"),
        ("test_accuracy = 5.0", "test_accuracy = 5\nl1 = 1", r"no \[\[target\]\] fits batch-none"),
        ("[[target]]", "[target]", r"expected target as \[\[target\]\] tables"),
        ("schema = 1", "schema = ", r"is not TOML"),
        ("schema = 1", 'schema = 1\npublished = "no.csv"', r"cannot read the published figures no"),
    ],
)
def test_a_bad_file_is_refused_naming_the_key_the_value_and_the_remedy(load, old, new, message):
    text = tiny_grid()
    assert old in text
    with pytest.raises(CasesError, match=message):
        load(text.replace(old, new))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CasesError, match=r"cannot read the cases file .*none.toml"):
        load_cases(tmp_path / "none.toml", GridOptions())


def test_the_mnist_grid_is_the_product_and_has_every_published_row():
    cases = load_cases(BENCH_CASES / "mnist.toml", GridOptions(tier="standard"))
    assert len(cases) == 6 * 5 * 3
    assert sum(case.published is not None for case in cases) == 17
    best = next(case for case in cases if case.id == "mnist-batch-none-b64")
    assert best.published.test_accuracy == pytest.approx(0.9958)
    assert best.published.floor == pytest.approx(0.9948)


def test_batch_layer_and_group_without_l1_are_held_against_the_customers_target():
    cases = load_cases(BENCH_CASES / "mnist.toml", GridOptions(tier="standard"))
    held = [
        c for c in cases if c.spec.norm.startswith(("batch", "layer", "group")) and not c.spec.l1
    ]
    assert len(held) == 4 * 2 * 3
    assert {round(case.target, 6) for case in held} == {0.994}


def test_the_cifar10_grid_has_its_standard_and_its_full_tier():
    standard = load_cases(BENCH_CASES / "cifar10.toml", GridOptions(tier="standard"))
    assert len(standard) == 3 * 4 + 3
    assert {c.spec.batch_size for c in standard if c.published} == {64}
    assert [c.published.test_accuracy for c in standard if c.published] == pytest.approx(
        [0.7939, 0.7279, 0.7484]
    )
    full = load_cases(BENCH_CASES / "cifar10.toml", GridOptions(tier="full"))
    assert len(full) == 6 * 4 * 3
    assert {c.spec.epochs for c in full} <= set(range(1, 21))
    held = {c.target for c in full if c.spec.norm != "none" and not c.spec.l1}
    assert min(held) >= 0.70


def test_the_batch_size_sweep_has_five_sizes_of_mnist_in_the_standard_tier():
    file = BENCH_CASES / "batch_size_mnist.toml"
    standard = load_cases(file, GridOptions(tier="standard"))
    assert {case.spec.batch_size for case in standard} == {2, 4, 16, 64, 256}
    assert len(standard) == 5 * 5


def test_a_norm_of_the_users_own_is_held_to_the_lowest_target_at_256_images():
    options = GridOptions(tier="standard", norms=("group:8",))
    cases = load_cases(BENCH_CASES / "batch_size_mnist.toml", options)
    at_256 = {c.spec.norm: c.target for c in cases if c.spec.batch_size == 256}
    assert at_256["group:8"] == min(at_256.values()) < at_256["layer"] < at_256["batch"]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_full_sweep_has_eleven_sizes_at_equal_epochs_and_a_linear_learning_rate(dataset):
    full = load_cases(BENCH_CASES / f"batch_size_{dataset}.toml", GridOptions(tier="full"))
    assert {case.spec.batch_size for case in full} == {2**n for n in range(11)}
    assert len(full) == 5 * 11
    assert len({(case.spec.epochs, case.spec.train_images) for case in full}) == 1
    peaks = {
        c.spec.batch_size: RECIPES[c.spec.recipe].peak_learning_rate(c.spec.batch_size)
        for c in full
    }
    assert peaks[1024] == pytest.approx(512 * peaks[2])


def test_the_smoke_tier_is_every_norm_by_every_regularizer_at_two_batch_sizes():
    cases = load_cases(BENCH_CASES / "digits.toml", GridOptions(tier="smoke"))
    assert len({case.spec.norm for case in cases}) == 7
    assert len({case.spec.regularizer for case in cases}) == 5
    assert {case.spec.batch_size for case in cases} == {32, 64}
    assert len(cases) == 70


def test_the_readmes_example_is_a_cases_file(load):
    readme = (BENCH_CASES.parent.parent / "README.md").read_text()
    example = readme.partition("```toml\n")[2].partition("```")[0]
    cases = load(example.replace("mypkg.norms:RMSNorm2d", "torch.nn:BatchNorm2d"))
    assert len(cases) == 3 * 3 * 2
    assert {case.seeds for case in cases} == {3}
    assert {case.spec.train_images for case in cases} == {6000}
    assert {(c.spec.norm, c.target) for c in cases if not c.spec.l1} == {
        ("batch", 0.98),
        ("group:2", 0.95),
        ("torch.nn:BatchNorm2d", 0.95),
    }
