"""Cases files: what they come to, and what is said of a bad one."""

import dataclasses
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol, Unpack

import pytest
from torch import nn

from normbench.cases.case import NO_TARGET, OWN, Case, GridOptions, Published
from normbench.cases.errors import CasesError
from normbench.cases.grids import cases_file_of, load_cases
from normbench.models.regularizers import REGULARIZERS
from normbench.spec import RunSpec
from normbench.training.recipes import RECIPES

from ..conftest import GridSettings, tiny_grid
from ..models import own_networks

BENCH_CASES = Path(__file__).parents[2] / "bench" / "cases"

EVERYTHING = GridOptions()


class Load(Protocol):
    """Loads the cases of a text."""

    def __call__(self, text: str, options: GridOptions = EVERYTHING) -> list[Case]: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, options: GridOptions = EVERYTHING) -> list[Case]:
        file = tmp_path / "grid.toml"
        file.write_text(text)
        return load_cases(file, options)

    return load_text


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


SECOND_GRID = """
[[grid]]
tier = "full"
norm = ["batch", "instance"]
regularizer = [{}]
batch_size = [64, 128]
"""


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


def misfits(cases: list[Case]) -> dict[str, str]:
    """Return why cases do not fit by norm and regularizer; those that do are left out."""
    return {f"{c.spec.norm} {c.spec.regularizer}": c.misfit for c in cases if c.misfit}


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epochs = 1",
            "epoch = 1",
            r"unknown key epoch; known are dataset, dropout, epochs.*; did you mean epochs\?$",
        ),
        ("epochs = 1", "", r"the key epochs is missing"),
        ("epochs = 1", "epochs = 0", r"epochs = 0; expected a whole number of at least 1"),
        ("epochs = 1", "epochs = 1.5", r"epochs = 1.5; expected a whole number"),
        ("epochs = 1", "epochs = true", r"epochs = True; expected a whole number"),
        ("schema = 1", "schema = true", r"schema = True; expected 1"),
        (
            "schema = 1",
            "schema = 2",
            r"schema = 2; this version reads 1; install a newer normbench",
        ),
        ('"smoke"', '"quick"', r"tier = 'quick'; expected one of 'smoke', 'standard', 'full'"),
        ('"smoke"', "[]", r"tier = \[\]; expected one of"),
        (
            'dataset = "digits"',
            'dataset = "emnist"',
            r"dataset: unknown data set 'emnist': expected",
        ),
        ('dataset = "digits"', "dataset = 7", r"dataset = 7; expected a data set's name in quotes"),
        (
            'dataset = "digits"',
            'dataset = "folder:not there"',
            r"dataset: .*/not there is not there: expected a folder with \{train,test\}/<class>",
        ),
        (
            'dataset = "digits"',
            'dataset = "no_such_module:load"',
            r"dataset: unknown data set 'no_such_module:load': No module named 'no_such_module'; ",
        ),
        ('"batch"', '"bach"', r"\[\[grid\]\] 1: norm: unknown norm 'bach'"),
        ('"batch"', "7", r"norm = 7; expected a norm's name in quotes"),
        (
            '"batch"',
            '"group:3"',
            r"\[\[grid\]\] 1: norm: group:3 does not fit layer 'blocks.block1.norm'",
        ),
        ("l1 = 0.001", "l3 = 0.001", r'key l3; known are "package.module:factory", decoupled, l1'),
        ("l1 = 0.001", "l1 = -1", r"l1 = -1; expected a number of at least 0"),
        ("l1 = 0.001", "l1 = inf", r"l1 = inf; expected a number of at least 0"),
        ("l1 = 0.001", "l1 = nan", r"l1 = nan; expected a number of at least 0"),
        ("[64]", '["64"]', r"batch_size = '64'; expected a whole number of at least 1"),
        ("[64]", "64", r"batch_size = 64; expected a list of values; write \[64\]$"),
        (
            '["batch", "layer"]',
            '"batch"',
            r"norm = 'batch'; expected a list .*; write \[\"batch\"\]$",
        ),
        ("[{}, { l1 = 0.001 }]", "{ l1 = 1 }", r"expected a list of values; write \[{ l1 = 1 }\]$"),
        ("{ l1 = 0.001 }", "3", r"regularizer = 3; expected a table such as { l1 = 0.001 }$"),
        ("[64]", "[64, true]", r"batch_size = True; expected a whole number of at least 1"),
        ("[64]", "[]", r"batch_size = \[\]; expected a list of values"),
        (
            'recipe = "digits"\nepochs = 1',
            'recipe = { from = "digits", selection = { share = 0.01 } }\nepochs = 2',
            r"batch_size = 64; expected .* at most 14, the images that a run trains on in the end",
        ),
        ("[[grid]]", '[[grid]]\ntier = "all"', r"tier = 'all'; expected one of 'smoke'"),
        ("schema = 1", "schema = 1\nseeds = 0", r"seeds = 0; expected a whole number"),
        ("schema = 1", "schema = 1\ntrain_images = 9999", r"at least 1 and at most 1348"),
        (
            "[64]",
            "[64, 1349]",
            r"\[\[grid\]\] 1: batch_size = 1349; expected a whole number of at least 1 and at most "
            r"1348, the images that a run trains on$",
        ),
        ("schema = 1", "schema = 1\ntrain_images = 63", r"batch_size = 64; .* at most 63, the ima"),
        (
            'network = "digits"',
            'network = "cifar10"',
            r"network = 'cifar10'; expected one of 'digits', which can take the images of "
            r"'digits', 1 x 8 x 8$",
        ),
        ('network = "digits"', 'network = "mnist"', r"network = 'mnist'; expected one of 'digits'"),
        (
            'dataset = "digits"\nnetwork = "digits"',
            'dataset = "mnist"\nnetwork = "cifar10"',
            r"network = 'cifar10'; expected one of 'digits', 'mnist', 'preact', which can take the "
            r"images of 'mnist', 1 x 28 x 28$",
        ),
        ("schema = 1", "schema = 1\ndropout = 1", r"dropout = 1; .* of at least 0 and below 1"),
        ("test_accuracy = 5.0", "test_accuracy = 101", r"at least 0 and at most 100"),
        ("test_accuracy = 5.0", "accuracy = 5", r"\[\[target\]\] 1: unknown key accuracy"),
        ("test_accuracy = 5.0", "test_accuracy = 5\nnorm = 3", r"norm = 3; expected a name"),
        (
            "test_accuracy = 5.0",
            "test_accuracy = 5\nbatch_size = []",
            r"batch_size = \[\]; expected",
        ),
        (
            "test_accuracy = 5.0",
            "test_accuracy = 5\nl1 = [0, 0.1]",
            r"\[\[target\]\] 1: l1 = 0.1 fits no case; the grids have 0, 0.001; correct it, or add",
        ),
        (
            "test_accuracy = 5.0",
            'test_accuracy = 5\nnorm = "bacth"',
            r"\[\[target\]\] 1: norm: unknown norm 'bacth': expected one of none, batch",
        ),
        (
            "test_accuracy = 5.0",
            'test_accuracy = 5\nnorm = ["batch", "group:8"]',
            r"norm = 'group:8' fits no case; the grids have 'batch', 'layer'; correct it, give it",
        ),
        (
            "test_accuracy = 5.0",
            "test_accuracy = 5\nl2 = 0.001\nbatch_size = [64]",
            r"1: l2 = 0.001 fits no case; the grids have 0; correct it, or add it to a \[\[grid",
        ),
        ("[64]", "[64, 32, 64]", r"1: batch_size: 64 stands in the list twice; leave one out$"),
        ('"layer"]', '"batch"]', r"1: norm: 'batch' stands in the list twice; leave one out$"),
        ("[{}, { l1 = 0.001 }]", "[{}, { l1 = 0 }]", r"1: regularizer: none stands in the list"),
        (
            "{ l1 = 0.001 }",
            '{ "no.such:thing" = 1 }',
            r"regularizer: unknown regularizer 'no.such:thing': No module named 'no'; expected",
        ),
        ("[[target]]", "[target]", r"expected target as \[\[target\]\] tables"),
        ("schema = 1", "schema = ", r"is not TOML"),
        ("schema = 1", 'schema = 1\npublished = "no.csv"', r"cannot read the published figures no"),
        (
            "[[target]]",
            '[[target]]\ntest_accuracy = 10\n[[target]]\nnorm = "batch"',
            r"\[\[target\]\] 2.*\[\[target\]\] 1 fits all that this one does; put this one before",
        ),
    ],
)
def test_a_bad_file_is_refused_naming_the_key_the_value_and_the_remedy(
    load: Load, old: str, new: str, message: str
) -> None:
    text = tiny_grid()
    assert old in text
    with pytest.raises(CasesError, match=message) as caught:
        load(text.replace(old, new))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CasesError, match=r"cannot read the cases file .*none.toml"):
        load_cases(tmp_path / "none.toml", GridOptions())


def test_all_that_is_wrong_is_told_at_once_as_it_stands_in_the_file(
    load: Load, tmp_path: Path
) -> None:
    text = (
        tiny_grid(norms=("bach",))
        .replace("epochs", "epoch")
        .replace('tier = "smoke"', 'tier = "quick"\npublished = "no.csv"')
        .replace("[64]", "64")
        .replace("l1 = 0.001", "l3 = 0.001, l2 = -1")
        .replace("5.0", "101")
    )
    with pytest.raises(CasesError, match=r"tier = 'quick'") as caught:
        load(text)
    file = tmp_path / "grid.toml"
    keys = (
        "dataset, dropout, epochs, grid, network, published, published_room, recipe, schema, "
        "seeds, target, tier, train_images"
    )
    norms = (
        "none, batch, layer, layer_chw, group:G, instance, rms, frn, grn, batch_renorm, ghost:S, "
        "ws+group:G, evonorm_s0:G, dynamic_tanh (such as group:4)"
    )
    assert str(caught.value).splitlines() == [
        f"{file}: tier = 'quick'; expected one of 'smoke', 'standard', 'full'",
        f"{file}: published: cannot read the published figures no.csv: "
        f"[Errno 2] No such file or directory: '{tmp_path / 'no.csv'}'",
        f"{file}: unknown key epoch; known are {keys}; did you mean epochs?",
        f"{file}: [[grid]] 1: norm: unknown norm 'bach': expected one of {norms}, "
        "or package.module:factory for one of your own",
        f"{file}: [[grid]] 1: regularizer 2: unknown key l3; known are "
        '"package.module:factory", '
        f"{', '.join(sorted(REGULARIZERS))}",
        f"{file}: [[grid]] 1: regularizer 2: l2 = -1; expected a number of at least 0",
        f"{file}: [[grid]] 1: batch_size = 64; expected a list of values; write [64]",
        f"{file}: [[target]] 1: test_accuracy = 101; expected a number of at least 0 and "
        "at most 100",
    ]


def test_nothing_else_is_said_of_a_file_from_the_future(load: Load) -> None:
    with pytest.raises(CasesError, match=r"^\S+: schema = 2; this version reads 1[^\n]+$"):
        load(tiny_grid().replace("schema = 1", "schema = 2").replace("epochs", "passes"))


def test_missing_keys_are_told_with_an_example(load: Load) -> None:
    with pytest.raises(CasesError, match=r"the key schema is missing") as caught:
        load("grid = [{}]")
    told = [line.partition(": ")[2] for line in str(caught.value).splitlines()]
    assert told == [
        "the key schema is missing; add it, such as schema = 1",
        'the key tier is missing; add it, such as tier = "standard"',
        'the key dataset is missing; add it, such as dataset = "mnist"',
        'the key network is missing; add it, such as network = "mnist"',
        'the key recipe is missing; add it, such as recipe = "mnist"',
        "the key epochs is missing; add it, such as epochs = 8",
        '[[grid]] 1: the key norm is missing; add it, such as norm = ["batch", "group:4"]',
        "[[grid]] 1: the key regularizer is missing; add it, such as "
        "regularizer = [{}, { l1 = 0.001 }]",
        "[[grid]] 1: the key batch_size is missing; add it, such as batch_size = [32, 64]",
    ]


@pytest.mark.parametrize("wrong", ["3", "1.5", "true", '"x"', "[]", "[[]]", "{}", "{ a = 1 }"])
def test_whatever_stands_for_a_key_is_told_in_our_words(load: Load, wrong: str) -> None:
    lines = tiny_grid().splitlines()
    for number, line in enumerate(lines):
        if "=" in line:
            key = line.partition(" = ")[0]
            changed = [*lines[:number], f"{key} = {wrong}", *lines[number + 1 :]]
            if (key, wrong) in {("epochs", "3"), ("test_accuracy", "3"), ("test_accuracy", "1.5")}:
                assert load("\n".join(changed))
                continue
            with pytest.raises(
                CasesError, match=rf"{key}\b[^\n]* (expected|known are)|{key} = 3; this"
            ) as caught:
                load("\n".join(changed))
            assert "nput" not in str(caught.value)


def test_a_long_value_is_cut_short_in_a_message(load: Load) -> None:
    with pytest.raises(CasesError, match=r"tier = 'x{79}\.\.\.; expected one of 'smoke'"):
        load(tiny_grid().replace("smoke", "x" * 1000))


def test_norms_of_the_command_line_that_do_not_fit_are_all_told(load: Load) -> None:
    found = misfits(load(tiny_grid(), GridOptions(norms=("group:3", "group:2", "group:5"))))
    assert [name.split()[0] for name in found] == ["group:3"] * 2 + ["group:5"] * 2
    assert "--bench-norm: group:3 does not fit" in found["group:3 none"]
    assert "--bench-norm: group:5 does not fit" in found["group:5 l1:0.001"]


def test_all_that_does_not_fit_is_told_at_once(load: Load, tmp_path: Path) -> None:
    text = tiny_grid(norms=("group:3",)) + SECOND_GRID.replace("128", "4096, 2048")
    with pytest.raises(CasesError, match=r"norm: group:3 does not fit") as caught:
        load(text.replace('network = "digits"', 'network = "mnist"'))
    file = tmp_path / "grid.toml"
    expected = "expected a whole number of at least 1 and at most 1348, the images that a run"
    assert str(caught.value).splitlines() == [
        f"{file}: network = 'mnist'; expected one of 'digits', which can take the images of "
        "'digits', 1 x 8 x 8",
        f"{file}: [[grid]] 1: norm: group:3 does not fit layer 'blocks.block1.norm': its 16 "
        "channels cannot be split into 3 equal groups; use one of group:1, group:2, group:4, "
        "group:8, group:16",
        f"{file}: [[grid]] 2: batch_size = 4096; {expected} trains on",
        f"{file}: [[grid]] 2: batch_size = 2048; {expected} trains on",
    ]


def test_a_norm_need_fit_only_where_its_grid_is_run(load: Load) -> None:
    smoke = GridOptions(tier="smoke", norms=("group:32",))
    of_sixteen_channels = tiny_grid().replace('"smoke"', '"standard"')
    assert load(of_sixteen_channels, smoke) == []
    for tier in ("standard", OWN):
        told = misfits(load(of_sixteen_channels, dataclasses.replace(smoke, tier=tier)))
        assert "--bench-norm: group:32 does not fit layer 'blocks.bl" in told["group:32 none"]
    full = tiny_grid() + SECOND_GRID.replace('"instance"', '"group:32"')
    assert len(load(full, GridOptions(tier="smoke"))) == 4
    with pytest.raises(CasesError, match=r"\[\[grid\]\] 2: norm: group:32 does not fit"):
        load(full, GridOptions(tier="full"))


def test_a_norm_that_is_not_selected_need_not_fit(load: Load) -> None:
    alone = GridOptions(norms=("batch",), norms_only=True)
    assert {c.spec.norm for c in load(tiny_grid(norms=("group:3",)), alone)} == {"batch"}
    with pytest.raises(CasesError, match=r"norm: unknown norm 'bach'"):
        load(tiny_grid(norms=("bach",)), alone)


def test_a_norm_is_tried_in_a_network_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def counting(channels: int) -> nn.Module:
        built.append(channels)
        return nn.BatchNorm2d(channels)

    module = ModuleType("counting_norms")
    module.__dict__["counting"] = counting
    monkeypatch.setitem(sys.modules, "counting_norms", module)
    text = tiny_grid(norms=("counting_norms:counting",))
    assert load(text) == load(text)
    assert built == [16, 32, 32]  # the blocks of the network for the digits


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
    ("grid", "tier", "more"), [("mnist", "standard", 0), ("mnist_plain", "full", 2)]
)
def test_both_mnist_grids_are_the_product_and_have_every_published_row(
    grid: str, tier: str, more: int
) -> None:
    cases = load_cases(BENCH_CASES / f"{grid}.toml", GridOptions(tier=tier))
    assert len(cases) == 6 * 5 * 3 + more
    assert sum(case.published is not None for case in cases) == 17
    best = next(case for case in cases if case.id == f"{grid}-batch-none-b64")
    assert best.published is not None
    assert best.published.test_accuracy == pytest.approx(0.9958)
    assert best.published.floor == pytest.approx(0.9948)


def test_batch_layer_and_group_without_l1_are_held_against_the_customers_target() -> None:
    cases = load_cases(BENCH_CASES / "mnist.toml", GridOptions(tier="standard"))
    held = [
        c
        for c in cases
        if c.spec.norm.startswith(("batch", "layer", "group")) and not c.spec.strengths.get("l1")
    ]
    assert len(held) == 4 * 2 * 3
    assert {round(case.target, 6) for case in held} == {0.994}


def test_the_cifar10_grid_has_its_standard_and_its_full_tier() -> None:
    standard = load_cases(BENCH_CASES / "cifar10.toml", GridOptions(tier="standard"))
    assert len(standard) == 3 * 4 + 3
    assert {c.spec.batch_size for c in standard if c.published} == {64}
    assert [c.published.test_accuracy for c in standard if c.published] == pytest.approx(
        [0.7939, 0.7279, 0.7484]
    )
    full = load_cases(BENCH_CASES / "cifar10.toml", GridOptions(tier="full"))
    assert len(full) == 6 * 4 * 3
    assert {c.spec.epochs for c in full} <= set(range(1, 21))
    held = {c.target for c in full if c.spec.norm != "none" and not c.spec.strengths.get("l1")}
    assert min(held) >= 0.70


def test_the_batch_size_sweep_has_five_sizes_of_mnist_in_the_standard_tier() -> None:
    file = BENCH_CASES / "batch_size_mnist.toml"
    standard = load_cases(file, GridOptions(tier="standard"))
    assert {case.spec.batch_size for case in standard} == {2, 4, 16, 64, 256}
    assert len(standard) == 5 * 5


def test_a_norm_of_the_users_own_is_held_to_the_lowest_target_at_256_images() -> None:
    options = GridOptions(tier="standard", norms=("group:8",))
    cases = load_cases(BENCH_CASES / "batch_size_mnist.toml", options)
    at_256 = {c.spec.norm: c.target for c in cases if c.spec.batch_size == 256}
    assert at_256["group:8"] == min(at_256.values()) < at_256["layer"] < at_256["batch"]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_full_sweep_has_eleven_sizes_at_equal_epochs_and_a_linear_learning_rate(
    dataset: str,
) -> None:
    full = load_cases(BENCH_CASES / f"batch_size_{dataset}.toml", GridOptions(tier="full"))
    assert {case.spec.batch_size for case in full} == {2**n for n in range(11)}
    assert len(full) == 5 * 11
    assert len({(case.spec.epochs, case.spec.train_images) for case in full}) == 1
    peaks = {
        c.spec.batch_size: RECIPES[c.spec.recipe].peak_learning_rate(c.spec.batch_size)
        for c in full
    }
    assert peaks[1024] == pytest.approx(512 * peaks[2])


def test_the_smoke_tier_is_every_norm_by_every_regularizer_at_two_batch_sizes() -> None:
    cases = load_cases(BENCH_CASES / "digits.toml", GridOptions(tier="smoke"))
    assert len({case.spec.norm for case in cases}) == 7
    assert len({case.spec.regularizer for case in cases}) == 5
    assert {case.spec.batch_size for case in cases} == {32, 64}
    assert len(cases) == 70


def test_the_readmes_example_is_a_cases_file(load: Load) -> None:
    readme = (BENCH_CASES.parent.parent / "README.md").read_text()
    example = readme.partition("```toml\n")[2].partition("```")[0]
    cases = load(example.replace("mypkg.norms:RMSNorm2d", "torch.nn:BatchNorm2d"))
    assert len(cases) == 3 * 3 * 2
    assert {case.seeds for case in cases} == {3}
    assert {case.spec.train_images for case in cases} == {6000}
    assert {(c.spec.norm, c.target) for c in cases if not c.spec.strengths.get("l1")} == {
        ("batch", 0.98),
        ("group:2", 0.95),
        ("torch.nn:BatchNorm2d", 0.95),
    }


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
