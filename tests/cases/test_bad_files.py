"""What is said of a cases file that is wrong."""

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from normbench.cases.case import OWN, GridOptions
from normbench.cases.errors import CasesError
from normbench.cases.grids import load_cases
from normbench.models.regularizers import REGULARIZERS

from ..conftest import tiny_grid
from .conftest import SECOND_GRID, Load, misfits


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
