"""Recipes: how they are spelled, and what their optimizers and schedules do."""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.check.trace import take_case_trace
from normbench.check.trace_record import Traced, case_trace_spec
from normbench.models.networks import build_network
from normbench.models.regularizers import find_regularizers
from normbench.spec import RunSpec
from normbench.training.checks import check_recipe
from normbench.training.data import load_dataset
from normbench.training.fingerprints import fingerprint
from normbench.training.optimizers import (
    UnknownOptimizer,
    build_optimizer,
    build_schedule,
    share_of_peak,
)
from normbench.training.recipes import (
    RECIPES,
    SCHEDULES,
    Augmentation,
    Recipe,
    Selection,
    find_recipe,
    recipe_spelling,
)
from normbench.training.steps import FlatParameters, TrainingStep
from normbench.training.trainer import train

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("table", "spelled"),
    [
        ({"from": "mnist"}, "mnist"),
        ({"from": "mnist", "learning_rate": 0.1}, "mnist"),
        ({"from": "mnist", "learning_rate": 0.05}, '{"from": "mnist", "learning_rate": 0.05}'),
        (
            {"augmentation": {"flip": True, "shift": 2}, "from": "mnist"},
            '{"augmentation": {"flip": true}, "from": "mnist"}',
        ),
        (
            {"optimizer": "adamw", "learning_rate": 0.1},
            '{"learning_rate": 0.1, "optimizer": "adamw"}',
        ),
    ],
)
def test_equal_recipes_are_spelled_alike(table: dict[str, object], spelled: str) -> None:
    assert recipe_spelling(table) == spelled


def test_a_spelling_leads_back_to_its_recipe() -> None:
    table = {
        "from": "mnist",
        "momentum": 0.8,
        "augmentation": {"crop": 3},
        "selection": {"share": 0.5},
    }
    expected = Recipe(
        learning_rate=0.1,
        momentum=0.8,
        label_smoothing=0.1,
        augmentation=Augmentation(rotation=10, shift=2, scale=0.1, shear=0.1, crop=3),
        selection=Selection(share=0.5, after=1),
    )
    assert find_recipe(recipe_spelling(table)) == expected
    assert find_recipe(recipe_spelling(expected.to_dict())) == expected


def test_a_table_of_unknown_keys_is_no_recipe() -> None:
    with pytest.raises(ValueError, match=r"a recipe cannot be made of .*lerning_rate"):
        recipe_spelling({"lerning_rate": 0.1})


@pytest.mark.parametrize(
    ("scaling", "expected"), [("linear", 0.4), ("square-root", 0.2), ("none", 0.1)]
)
def test_the_learning_rate_goes_with_the_batch_size_as_its_scaling_says(
    scaling: str, expected: float
) -> None:
    assert Recipe(0.1, scaling=scaling).peak_learning_rate(256) == pytest.approx(expected)
    assert Recipe(0.1, scaling=scaling).peak_learning_rate(64) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # two steps up to the peak, which the third is at; the fifth is half of the way down
        ("cosine", [1 / 3, 2 / 3, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
    ],
)
def test_a_schedule_goes_up_over_its_warmup_and_then_as_it_is_called(
    schedule: str, expected: list[float]
) -> None:
    recipe = Recipe(0.1, warmup=1 / 3, schedule=schedule)
    assert [share_of_peak(recipe, 6, n) for n in range(6)] == pytest.approx(expected)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates, built = [], build_schedule(optimizer, recipe, 1.0, 6)
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("recipe", [Recipe(1e-3, optimizer="adamw"), Recipe(0.05, momentum=0.0)])
def test_steps_are_those_of_torchs_optimizer_on_the_parameters_one_by_one(recipe: Recipe) -> None:
    torch.manual_seed(0)
    network, plain = (build_network("digits", "batch").double() for _ in range(2))
    plain.load_state_dict(network.state_dict())
    flat = FlatParameters(network)
    optimizer = build_optimizer(recipe, flat, recipe.learning_rate, 0.0)
    both = find_regularizers({"l2": 0.01, "decoupled": 0.1})
    step = TrainingStep(network, flat, optimizer, both, 0.0, gradient_clipping=0.1)
    other: torch.optim.Optimizer = (
        torch.optim.AdamW(plain.parameters(), 1e-3, weight_decay=0.1)
        if recipe.optimizer == "adamw"
        else torch.optim.SGD(plain.parameters(), 0.05)
    )
    for _ in range(3):
        images = torch.randn(16, 1, 8, 8, dtype=torch.float64)
        labels = torch.randint(10, (16,))
        step(images, labels)
        other.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        for parameter in plain.parameters():
            assert parameter.grad is not None
            parameter.grad += 0.01 * parameter.detach()
            if recipe.optimizer == "sgd":
                parameter.data *= 1 - 0.05 * 0.1
        other.step()
    for found, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


OWN = """
import torch

def signs(named_parameters, learning_rate):
    kernels = [p for name, p in named_parameters if "convolution" in name]
    others = [p for name, p in named_parameters if "convolution" not in name]
    groups = [{"params": kernels, "lr": learning_rate}, {"params": others, "lr": learning_rate}]
    return torch.optim.SGD(groups, momentum=0.5)

def slow_biases(named_parameters, learning_rate):
    biases = [p for name, p in named_parameters if p.ndim == 1]
    others = [p for name, p in named_parameters if p.ndim > 1]
    groups = [{"params": biases, "lr": learning_rate / 10}, {"params": others, "lr": learning_rate}]
    return torch.optim.SGD(groups, lr=learning_rate)

def part(named_parameters, learning_rate):
    return torch.optim.SGD([named_parameters[0][1]], learning_rate)

def number(named_parameters, learning_rate): return learning_rate
def raising(named_parameters, learning_rate): raise KeyError("momentum")
def alone(parameters): ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    (tmp_path / "own_optimizers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_optimizers", raising=False)
    return "own_optimizers:{}".format


def test_an_optimizer_of_ones_own_trains_and_its_row_has_the_whole_recipe(
    own: Callable[[str], str], tmp_path: Path
) -> None:
    table = {"from": "digits", "optimizer": own("signs"), "schedule": "cosine"}
    spec = RunSpec("digits", "digits", "batch", "l2:0.001", 64, recipe=recipe_spelling(table))
    result = train(spec, load_dataset("digits", tmp_path, CPU), CPU)
    assert result.test_accuracy > 0.5
    changed = {"optimizer": own("signs"), "schedule": "cosine"}
    assert result.recipe == {**RECIPES["digits"].to_dict(), **changed}
    assert result.fingerprint != fingerprint(dataclasses.replace(spec, recipe="digits"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_groups_of_an_optimizer_of_ones_own_keep_the_ratio_of_their_rates(
    own: Callable[[str], str], schedule: str
) -> None:
    recipe = Recipe(0.1, optimizer=own("slow_biases"), schedule=schedule)
    flat = FlatParameters(build_network("digits", "none"))
    optimizer = build_optimizer(recipe, flat, 0.1, 0.0)
    built = build_schedule(optimizer, recipe, 0.1, 10)
    for _ in range(10):
        slow, fast = (group["lr"] for group in optimizer.param_groups)
        assert slow == pytest.approx(fast / 10)
        optimizer.step()
        built.step()


def test_a_run_with_an_optimizer_of_ones_own_can_be_traced(own: Callable[[str], str]) -> None:
    recipe = recipe_spelling({"from": "digits", "optimizer": own("slow_biases")})
    spec = case_trace_spec(RunSpec("digits", "digits", "batch", recipe=recipe))
    data = load_dataset("digits", Path(), CPU)
    first, again = (take_case_trace(Traced("own", spec), "", data) for _ in range(2))
    assert first.digests == again.digests


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "lion",
            r"unknown optimizer 'lion': expected one of sgd, muon, adamw, or package.module:fact",
        ),
        ("no.such:thing", r"unknown optimizer 'no.such:thing': No module named 'no'; expected"),
        ("part", r"holds 1 of the network's 8 trained parameters: expected all of them"),
        ("number", r"returned a float: expected a torch.optim.Optimizer"),
        ("raising", r"could not be built: KeyError: 'momentum'; expected a factory that takes"),
        ("alone", r"cannot be called with parameters and a learning rate: too many positional"),
    ],
)
def test_what_is_no_optimizer_is_told_before_anything_trains(
    own: Callable[[str], str], name: str, told: str
) -> None:
    spelled = name if name in ("lion", "no.such:thing") else own(name)
    recipe = dataclasses.replace(RECIPES["digits"], optimizer=spelled)
    with pytest.raises(UnknownOptimizer, match=told):
        check_recipe(recipe_spelling(recipe.to_dict()), "digits", (1, 8, 8), 10)
