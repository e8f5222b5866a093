"""Cases files: what they come to."""

import dataclasses
import re
from pathlib import Path
from typing import Unpack

import pytest

from normbench.cases.case import NO_TARGET, GridOptions, Published
from normbench.cases.errors import CasesError
from normbench.cases.grids import cases_file_of
from normbench.spec import RunSpec

from ..conftest import GridSettings, tiny_grid
from ..models import own_networks
from .conftest import SECOND_GRID, Load, misfits


def test_a_grid_is_the_product_of_its_axes(load: Load) -> None:
    cases = load(tiny_grid())
    assert [case.id for case in cases] == [
        "grid-batch-none-b64",
        "grid-batch-l1:0.001-b64",
        "grid-layer-none-b64",
        "grid-layer-l1:0.001-b64",
    ]
    assert cases[1].spec == RunSpec(
        "digits", "digits", "batch", "l1:0.001", batch_size=64, epochs=1, recipe="digits"
    )
    assert cases[1].target == pytest.approx(0.05)


def test_each_seed_is_a_run_of_the_case(load: Load) -> None:
    case = load(tiny_grid(), GridOptions(seeds=3))[0]
    assert [spec.seed for spec in case.specs] == [0, 1, 2]
    assert {dataclasses.replace(spec, seed=0) for spec in case.specs} == {case.spec}


def test_norms_of_the_command_line_are_added_or_stand_alone(load: Load) -> None:
    added = load(tiny_grid(), GridOptions(norms=("group:4", "batch")))
    assert [case.spec.norm for case in added][::2] == ["batch", "layer", "group:4"]
    alone = load(tiny_grid(), GridOptions(norms=("group:4",), norms_only=True))
    assert {case.spec.norm for case in alone} == {"group:4"}


def test_a_tier_takes_in_the_smaller_ones(load: Load) -> None:
    standard = tiny_grid().replace('"smoke"', '"standard"')
    assert not load(standard, GridOptions(tier="smoke"))
    assert load(standard, GridOptions(tier="standard"))
    assert load(tiny_grid(), GridOptions(tier="full"))


def test_the_first_target_that_fits_is_the_cases(load: Load) -> None:
    special = '\n[[target]]\nnorm = "batch"\nl1 = [0.001]\ntest_accuracy = 90\n'
    head, tail = tiny_grid().split("[[target]]")
    cases = load(f"{head}{special}[[target]]{tail}")
    assert [case.target for case in cases] == pytest.approx([0.05, 0.9, 0.05, 0.05])


def test_a_configuration_of_several_grids_is_a_case_of_the_first(load: Load) -> None:
    cases = {case.spec.label: case for case in load(tiny_grid() + SECOND_GRID)}
    assert cases["batch-none-b64"].tier == "smoke"
    assert cases["batch-none-b128"].tier == "full"
    assert len(cases) == 4 + 3
    added = load(tiny_grid() + SECOND_GRID, GridOptions(norms=("group:4",)))
    assert [c.spec.label for c in added].count("group:4-none-b64") == 1


def test_one_configuration_by_two_recipes_is_refused(load: Load) -> None:
    second = SECOND_GRID.replace("norm =", 'recipe = "mnist"\nnorm =')
    with pytest.raises(CasesError, match=r"\[\[grid\]\] 2: batch-none-b64 has another recipe in"):
        load(tiny_grid() + second)
    # what the command line adds to both is trained as the first one says
    added = GridOptions(norms=("group:4",))
    cases = load(tiny_grid() + second.replace('"batch", ', ""), added)
    assert {c.spec.recipe for c in cases if c.spec.norm == "group:4"} == {"digits", "mnist"}
    assert len([c for c in cases if c.spec.label == "group:4-none-b64"]) == 1


def test_a_grid_may_have_a_tier_of_its_own(load: Load) -> None:
    text = tiny_grid() + SECOND_GRID
    assert len(load(text, GridOptions(tier="standard"))) == 4
    assert {case.tier for case in load(text)} == {"smoke", "full"}


CROSSED = """
[[grid]]
norm = ["group:4"]
regularizer = [{ l2 = 0.001 }]
batch_size = [32]
"""


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (
            'norm = "group:4"\nbatch_size = 64',
            "no case of the grids has norm = 'group:4', batch_size = 64; correct one of these, or "
            "add a [[grid]]",
        ),
        (
            'norm = "group:4"\nbatch_size = [32, 64]',
            "batch_size = 64 fits no case that has the other keys' values; leave it out",
        ),
    ],
)
def test_a_target_for_what_no_grid_has_together_is_refused(
    load: Load, target: str, told: str
) -> None:
    text = f"{tiny_grid()}\n[[target]]\n{target}\ntest_accuracy = 99\n{CROSSED}"
    with pytest.raises(CasesError, match=rf": \[\[target\]\] 2: {re.escape(told)}$"):
        load(text)


def test_a_target_may_be_for_a_norm_of_the_command_line_or_one_that_is_left_out(
    load: Load,
) -> None:
    head, tail = tiny_grid().split("[[target]]")
    text = f'{head}[[target]]\nnorm = "group:8"\ntest_accuracy = 90\n[[target]]{tail}'
    cases = load(text, GridOptions(norms=("group:8",)))
    assert {c.spec.norm for c in cases if c.target == 0.9} == {"group:8"}
    left_out = text.replace("group:8", "batch")
    alone = load(left_out, GridOptions(norms=("group:8",), norms_only=True))
    # the target for any norm was set for those that the file has
    assert {(c.spec.norm, c.target) for c in alone} == {("group:8", NO_TARGET)}
    # a grid of a larger tier has it
    larger = f'{text}\n[[grid]]\ntier = "full"\nnorm = ["group:8"]\nregularizer = [{{}}]\n'
    assert len(load(f"{larger}batch_size = [64]", GridOptions(tier="smoke"))) == 4


def test_a_case_that_no_target_fits_has_none_but_that_of_the_command_line(load: Load) -> None:
    some = tiny_grid().replace("test_accuracy = 5.0", "test_accuracy = 5\nl1 = 0.001")
    for text, unsaid in ((some, {"none"}), (some.partition("[[target]]")[0], {"none", "l1:0.001"})):
        cases = load(text)
        assert {c.spec.regularizer for c in cases if not c.has_target} == unsaid
        given = load(text, GridOptions(target=0.5))
        assert {c.spec.regularizer for c in given if c.target == 0.5} == unsaid


def test_a_regularizer_of_the_command_line_stands_in_every_grid(load: Load) -> None:
    options = GridOptions(regularizers=("l1:0.001", "decoupled:0.1"))
    cases = load(tiny_grid(), options)
    assert [c.spec.regularizer for c in cases[:3]] == ["none", "l1:0.001", "decoupled:0.1"]
    assert {c.spec.regularizer for c in cases if not c.has_target} == {"decoupled:0.1"}
    named = f"{tiny_grid().replace('[[target]]', '[[target]]#')}\ndecoupled = [0, 0.1]"
    assert all(c.has_target for c in load(named.replace("]]#", "]]"), options))


def test_a_regularizer_of_the_command_line_that_does_not_fit_is_told_with_its_cases(
    load: Load,
) -> None:
    cases = load(tiny_grid(), GridOptions(regularizers=("stochastic-depth:0.1",)))
    found = misfits(cases)
    assert set(found) == {"batch stochastic-depth:0.1", "layer stochastic-depth:0.1"}
    assert "--bench-regularizer: stochastic-depth needs a network" in found.popitem()[1]


RECIPE = '{ from = "digits", learning_rate = 0.1, augmentation = { flip = true } }'


def test_a_recipe_may_be_a_table(load: Load) -> None:
    spelled = '{"augmentation": {"flip": true}, "from": "digits", "learning_rate": 0.1}'
    whole = load(tiny_grid().replace('recipe = "digits"', f"recipe = {RECIPE}"))
    assert {case.spec.recipe for case in whole} == {spelled}
    of_grid = load(tiny_grid().replace("[[grid]]", f"[[grid]]\nrecipe = {RECIPE}"))
    assert {case.spec.recipe for case in of_grid} == {spelled}
    assert load(cases_file_of(whole[0].spec))[0].spec == whole[0].spec


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.1,", "0,", r"recipe: learning_rate = 0; expected a number of at least 1e-12"),
        ('"digits"', '"digit"', r"recipe: from = 'digit'; expected one of 'digits', 'mnist'"),
        ("true", "1", r"recipe: augmentation: flip = 1; expected true or false"),
        (
            "0.1,",
            "0.1, selection = { share = 0, after = 0 },",
            r"(?s)recipe: selection: share = 0; expected a number of at least 0.01 and at most 1\n"
            r".*recipe: selection: after = 0; expected a whole number of at least 1",
        ),
        ("flip", "flop", r"recipe: augmentation: unknown key flop; .*; did you mean flip\?"),
        (
            "learning_rate",
            "lerning_rate",
            r"recipe: unknown key lerning_rate; .*; did you mean",
        ),
        (
            "0.1,",
            '0.1, schedule = "steps",',
            r"schedule = 'steps'; expected one of 'one-cycle'",
        ),
        ("0.1,", '0.1, optimizer = "lion",', r"optimizer: unknown optimizer 'lion': expected one"),
        (
            "0.1,",
            "0.1, warmup = 1,",
            r"recipe: warmup = 1; expected a number of at least 0 and",
        ),
        (RECIPE, "{ momentum = 0.9 }", r"recipe: expected the key learning_rate, or from with the"),
        (RECIPE, '"quick"', r"recipe = 'quick'; expected one of 'digits', .*, or a table of a"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_with_its_place(
    load: Load, old: str, new: str, told: str
) -> None:
    text = tiny_grid().replace('recipe = "digits"', f"recipe = {RECIPE}")
    assert old in text
    with pytest.raises(CasesError, match=told):
        load(text.replace(f"recipe = {RECIPE}", f"recipe = {RECIPE.replace(old, new, 1)}"))


def test_the_seeds_of_a_file_are_the_least_of_an_undecided_case(load: Load) -> None:
    auto = GridOptions(seeds=8, sequential=True)
    assert {(case.least, case.seeds) for case in load(tiny_grid(), auto)} == {(1, 8)}
    assert {(c.least, c.seeds) for c in load("seeds = 3\n" + tiny_grid(), auto)} == {(3, 8)}
    assert {(c.least, c.seeds) for c in load("seeds = 9\n" + tiny_grid(), auto)} == {(9, 9)}


def test_seeds_may_begin_anywhere(load: Load) -> None:
    case = load(tiny_grid(), GridOptions(seeds=2, first_seed=5))[0]
    assert [spec.seed for spec in case.specs] == [5, 6]


def test_a_file_may_ask_for_several_seeds_and_for_a_part_of_the_images(load: Load) -> None:
    text = "seeds = 3\ntrain_images = 500\n" + tiny_grid()
    case = load(text)[0]
    assert [spec.seed for spec in case.specs] == [0, 1, 2]
    assert case.spec.train_images == 500
    assert load(text, GridOptions(seeds=2))[0].seeds == 3
    assert load(text, GridOptions(seeds=5))[0].seeds == 5


def test_the_copy_on_disk_stands_in_for_cifar10_and_is_named(load: Load, tmp_path: Path) -> None:
    text = tiny_grid().replace('"digits"', '"cifar10"')
    assert load(text, GridOptions(data=tmp_path))[0].spec.dataset == "cifar10"
    (tmp_path / "cifar10-jpeg").mkdir()
    assert load(text, GridOptions(data=tmp_path))[0].spec.dataset == "cifar10-jpeg"


def test_a_grid_may_have_a_recipe_of_its_own(load: Load) -> None:
    text = tiny_grid().replace("[[grid]]", '[[grid]]\nrecipe = "mnist"')
    assert {case.spec.recipe for case in load(text)} == {"mnist"}


def with_network(network: str, **settings: Unpack[GridSettings]) -> str:
    """Return the small grid with a network of tests.models.own_networks."""
    name = f"{own_networks.__name__}:{network}"
    return tiny_grid(**settings).replace('network = "digits"', f'network = "{name}"')


def test_a_grid_trains_a_network_of_ones_own(load: Load) -> None:
    cases = load(with_network("TinyResNet", norms=("none", "group:4")))
    assert {case.spec.network for case in cases} == {f"{own_networks.__name__}:TinyResNet"}
    # what trains is told by the grid, as for all networks
    assert cases[0].id == "grid-none-none-b64"
    assert load(cases_file_of(cases[0].spec))[0].spec == cases[0].spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            with_network("Missing"),
            r"network: unknown network '.*:Missing': module .* has no attribute 'Missing'.*; "
            r"expected package.module:factory with .*, or one of digits, mnist, cifar10, .*preact$",
        ),
        (
            with_network("FewClasses"),
            r"network: .*:FewClasses returned float32 of shape \(2, 3\) for 2 images of 1 x 8 x 8: "
            r"expected float32 of shape \(2, 10\), a logit for each class$",
        ),
        (
            with_network("WithoutNorm"),
            r"\[\[grid\]\] 1: norm: .*:WithoutNorm never calls norm\(channels\), so .* batch .*",
        ),
        (
            with_network("TinyResNet", norms=("group:3",)),
            r"\[\[grid\]\] 1: norm: group:3 does not fit layer 'first': its 8 channels .*",
        ),
        (
            with_network("TinyResNet").replace("epochs", "dropout = 0.5\nepochs"),
            r"network: dropout = 0.5: .*:TinyResNet has no parameter dropout; leave the key .*",
        ),
        (
            tiny_grid().replace('network = "digits"', 'network = "preact"'),
            r"network = 'preact'; expected one of 'digits', which can take the images of 'digits', "
            r"1 x 8 x 8",
        ),
    ],
)
def test_a_network_that_cannot_be_trained_is_told_with_its_place(
    load: Load, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(CasesError) as refused:
        load(text)
    first, *_ = str(refused.value).splitlines()
    assert re.fullmatch(f"{re.escape(str(tmp_path / 'grid.toml'))}: {message.rstrip('$')}", first)


def test_a_network_need_fit_only_where_a_grid_is_run(load: Load) -> None:
    of_a_larger_tier = with_network("FewClasses").replace('"smoke"', '"full"')
    assert load(of_a_larger_tier, GridOptions(tier="smoke")) == []
    with pytest.raises(CasesError, match=r"network: .*:FewClasses returned float32"):
        load(of_a_larger_tier)


PUBLISHED = """# a comment
table,norm,l1,l2,batch_size,test_accuracy
first,batch,0,0,64,97.5
second,batch,0,0,64,98.5
first,layer,0.001,0,64,96
"""


def test_a_column_of_published_figures_may_be_any_regularizer(load: Load, tmp_path: Path) -> None:
    table = "table,norm,l2-weights,batch_size,test_accuracy\nfirst,batch,0,64,97\n"
    (tmp_path / "figures.csv").write_text(f"{table}first,batch,0.01,64,98\n")
    text = tiny_grid().replace("{ l1 = 0.001 }", "{ l2-weights = 0.01 }")
    cases = load('published = "figures.csv"\n' + text)
    assert {c.spec.regularizer: c.published.test_accuracy for c in cases if c.published} == {
        "none": 0.97,
        "l2-weights:0.01": 0.98,
    }


def test_of_two_published_figures_the_better_one_counts(load: Load, tmp_path: Path) -> None:
    (tmp_path / "figures.csv").write_text(PUBLISHED)
    cases = load('published = "figures.csv"\npublished_room = 0.5\n' + tiny_grid())
    assert {case.spec.label: case.published for case in cases} == {
        "batch-none-b64": Published(0.985, 0.005, "second"),
        "batch-l1:0.001-b64": None,
        "layer-none-b64": None,
        "layer-l1:0.001-b64": Published(0.96, 0.005, "first"),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size", "size", r"figures.csv: no column batch_size; expected the columns norm, b"),
        ("97.5", "best", r"figures.csv: row 1 has l1 = '0', .* test_accuracy = 'best'; expected a"),
        ("first,layer,0.001,0,64,96", "first,layer", r"row 3 has l1 = '', .*; expected a number"),
    ],
)
def test_bad_published_figures_are_told(
    load: Load, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PUBLISHED
    (tmp_path / "figures.csv").write_text(PUBLISHED.replace(old, new))
    with pytest.raises(CasesError, match=rf"published: cannot read the published .*{message}"):
        load('published = "figures.csv"\n' + tiny_grid())


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec("digits", "digits", "batch", epochs=8, recipe="digits"),
        RunSpec(
            "cifar10-jpeg",
            "cifar10",
            "torch.nn:BatchNorm2d",
            f"l1:1e-7+l2:{0.1 + 0.2!r}+l2-weights:0.5",
            batch_size=1,
            epochs=2,
            dropout=0.03,
            recipe="cifar10-batch-size",
            train_images=11,
        ),
    ],
    ids=["defaults", "everything"],
)
def test_the_cases_file_of_a_run_has_that_run_alone(load: Load, spec: RunSpec) -> None:
    (case,) = load(cases_file_of(spec))
    assert (case.spec, case.target, case.tier) == (spec, 0.0, "smoke")
