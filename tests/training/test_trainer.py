"""The trainer: against the textbook's loop, and what it promises of seeds, state and failures."""

import dataclasses
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from normbench.models.networks import build_network
from normbench.models.regularizers import find_regularizers
from normbench.results import RunFailed, RunResult
from normbench.spec import RunSpec
from normbench.training import trainer
from normbench.training.data import ImageData, load_dataset
from normbench.training.optimizers import one_cycle
from normbench.training.recipes import RECIPES, Recipe, recipe_spelling
from normbench.training.steps import FlatParameters, TrainingStep
from normbench.training.trainer import (
    Evaluation,
    Training,
    drawn_order,
    evaluate,
    on_device,
    prepare_images,
    train,
    train_epoch,
    training_batches,
)

from .own_norms import own_norm

CPU = torch.device("cpu")
Batch = tuple[torch.Tensor, torch.Tensor]
SPEC = RunSpec("digits", "digits", "batch", batch_size=64, epochs=2, recipe="digits")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load_dataset("digits", tmp_path_factory.getbasetemp(), CPU)


def epoch_of(digits: ImageData, spec: RunSpec, generator: torch.Generator) -> Iterator[Batch]:
    """Return the batches of an epoch of all images."""
    order = drawn_order(torch.arange(1348), spec.batch_size, generator)
    return training_batches(digits, spec, RECIPES["digits"], 8, generator, order)


def without_times(result: RunResult) -> RunResult:
    epochs = tuple(
        dataclasses.replace(e, train_seconds=0.0, test_seconds=0.0) for e in result.epochs
    )
    return dataclasses.replace(result, epochs=epochs, cpu_seconds=0.0, started="", ended="")


def textbook_losses(spec: RunSpec, batches: list[Batch], smoothing: float) -> list[float]:
    """Train as a textbook does: a parameter at a time, the penalties in the loss, contiguous."""
    torch.manual_seed(spec.seed)
    network = build_network(spec.network, spec.norm).double().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images.contiguous()), labels, label_smoothing=smoothing)
        losses.append(loss.item())
        l1, l2 = (spec.strengths.get(name, 0.0) for name in ("l1", "l2"))
        for parameter in network.parameters():
            loss = loss + l1 * parameter.abs().sum() + l2 / 2 * parameter.square().sum()
        loss.backward()
        optimizer.step()
    return losses


def engine_losses(spec: RunSpec, batches: list[Batch], smoothing: float) -> list[float]:
    """Take the same steps with the engine's own loop, one epoch of one batch each."""
    torch.manual_seed(spec.seed)
    network = build_network(spec.network, spec.norm).double()
    flat = FlatParameters(network)
    l2, others = spec.strengths.get("l2", 0.0), {"l1": spec.strengths.get("l1", 0.0)}
    optimizer = torch.optim.SGD(
        [flat.values], 0.05, 0.9, weight_decay=l2, nesterov=True, fused=True
    )
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    step = TrainingStep(network, flat, optimizer, find_regularizers(others), smoothing)
    losses = []
    for batch in batches:
        trained = train_epoch(network, iter([batch]), step, schedule)
        losses.append(F.cross_entropy(trained.logits, batch[1], label_smoothing=smoothing).item())
    return losses


@pytest.mark.parametrize(
    ("norm", "regularizer"),
    [
        ("none", "l2:0.001"),
        ("batch", "none"),
        ("batch", "l1:0.001"),
        ("layer", "l2:0.001"),
        ("layer_chw", "none"),
        ("group:4", "l1:0.001+l2:0.001"),
        ("instance", "l1:0.001"),
    ],
)
def test_fifty_steps_have_the_losses_of_the_textbook_loop(
    digits: ImageData, norm: str, regularizer: str
) -> None:
    spec = dataclasses.replace(SPEC, norm=norm, regularizer=regularizer)
    generator = torch.Generator().manual_seed(0)
    batches: list[Batch] = []
    while len(batches) < 50:
        epoch = epoch_of(digits, spec, generator)
        # in float64, as rounding in float32 grows to 2 % of the loss within the fifty steps
        batches += [(images.double(), labels) for images, labels in epoch]
    expected = textbook_losses(spec, batches[:50], smoothing=0.1)
    assert engine_losses(spec, batches[:50], smoothing=0.1) == pytest.approx(expected, rel=1e-6)
    assert expected[-1] < 0.8 * expected[0]


def test_equal_specs_give_equal_runs_and_other_seeds_others(digits: ImageData) -> None:
    first, again = train(SPEC, digits, CPU), train(SPEC, digits, CPU)
    assert without_times(first) == without_times(again)
    other = train(SPEC.with_seed(1), digits, CPU)
    assert other.epochs[0].train_loss != first.epochs[0].train_loss


def test_what_draws_from_python_and_numpy_is_drawn_from_the_seed_as_well(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawing(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            values = [random.random() + np.random.rand() for _ in range(channels)]
            self.weight = nn.Parameter(torch.tensor(values).view(-1, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    spec = dataclasses.replace(SPEC, norm=own_norm(monkeypatch, Drawing), epochs=1)
    before = trainer.other_random_numbers()
    first, again = train(spec, digits, CPU), train(spec, digits, CPU)
    assert without_times(first) == without_times(again)
    assert trainer.other_random_numbers() == before


def test_dropout_is_drawn_from_the_seed_as_well(digits: ImageData) -> None:
    spec = dataclasses.replace(SPEC, dropout=0.2)
    first, again = train(spec, digits, CPU), train(spec, digits, CPU)
    assert without_times(first) == without_times(again)
    assert first.epochs[-1].train_loss > train(SPEC, digits, CPU).epochs[-1].train_loss


def test_a_run_leaves_global_random_numbers_and_the_data_alone(digits: ImageData) -> None:
    before = digits.train_images.clone()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(SPEC, digits, CPU)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(digits.train_images, before)


def test_a_run_describes_itself(digits: ImageData) -> None:
    result = train(SPEC, digits, CPU)
    assert result.status == "ok"
    assert [epoch.epoch for epoch in result.epochs] == [1, 2]
    assert sum(map(sum, result.confusion)) == 449
    assert result.incorrect == round((1 - result.test_accuracy) * 449)
    assert len(result.mistakes) == min(result.incorrect, 32)
    assert [m.confidence for m in result.mistakes] == sorted(
        (m.confidence for m in result.mistakes), reverse=True
    )
    for mistake in result.mistakes:
        assert digits.test_labels[mistake.index] == mistake.true != mistake.predicted
    assert result.parameters == 14_458
    assert result.cpu_seconds > 0
    # the cycle has come down to where OneCycleLR ends: 1 / 25 / 10,000 of its peak
    assert result.epochs[-1].learning_rate == pytest.approx(0.05 / 250_000, rel=0.2)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPES["digits"], learning_rate=1e9)
    monkeypatch.setitem(RECIPES, "digits", recipe)
    result = train(dataclasses.replace(SPEC, norm="none", epochs=5), digits, CPU)
    assert result.status == "diverged"
    assert result.message == f"the loss was no longer finite in epoch {len(result.epochs) + 1}"
    assert all(math.isfinite(epoch.train_loss) for epoch in result.epochs)
    row = result.to_row()
    assert row["test_accuracy"] is None
    assert row["confusion"] == ()
    with pytest.raises(RunFailed, match=r"digits none-none-b64, seed 0 diverged: the loss was no"):
        _ = result.test_accuracy


def test_an_incomplete_last_batch_is_left_out(digits: ImageData) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [len(labels) for _, labels in epoch_of(digits, SPEC, generator)]
    assert sizes == [64] * 21  # 1348 = 21 * 64 + 4
    assert RECIPES["digits"].steps(1348, 64, 3) == 3 * 21


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_each_number_of_steps_has_a_schedule_torchs_own_where_there_is_one(recipe: Recipe) -> None:
    peak, without = 0.1, []
    for steps in range(1, 41):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
        rates = learning_rates(optimizer, one_cycle(optimizer, peak, steps, recipe.warmup), steps)
        assert all(0 < rate <= peak for rate in rates)
        try:
            own = OneCycleLR(
                optimizer,
                peak,
                total_steps=steps + 1,
                pct_start=recipe.warmup,
                cycle_momentum=False,
            )
        except ZeroDivisionError:
            without.append(steps)
            # from the peak down: half a cosine from it to its 250,000th part
            down = [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
            assert rates == pytest.approx([peak * (x + (1 - x) / 250_000) for x in down])
        else:
            assert rates == learning_rates(optimizer, own, steps)
    assert without == {0.1: [9], 0.2: [4]}.get(recipe.warmup, [])


def learning_rates(
    optimizer: torch.optim.Optimizer, schedule: OneCycleLR, steps: int
) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("recipe", "steps"), [("mnist-l1", 9), ("cifar10", 4)])
def test_a_run_without_a_step_to_warm_up_in_trains(
    digits: ImageData, recipe: str, steps: int
) -> None:
    spec = dataclasses.replace(SPEC, recipe=recipe, train_images=20 * steps, batch_size=20)
    assert train(dataclasses.replace(spec, epochs=1), digits, CPU).status == "ok"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 1349}, r"^batch_size = 1349: expected at most 1348, the images that the r"),
        ({"batch_size": 65, "train_images": 64}, r"^batch_size = 65: expected at most 64, the im"),
        ({"train_images": 1349}, r"^train_images = 1349: expected at most 1348, the training"),
        ({"recipe": "quick"}, r"^unknown recipe 'quick': expected one of digits, mnist, mnist-l1"),
        ({"network": "resnet"}, r"^unknown network 'resnet': expected one of digits, mnist, cif"),
        ({"norm": "bach"}, r"^unknown norm 'bach': expected one of none, batch, layer"),
        ({"norm": "group:3"}, r"^group:3 does not fit layer 'blocks.block1.norm': its 16 channels"),
        (
            {"norm": "torch.nn:BatchNorm1d"},
            r"^torch.nn:BatchNorm1d cannot take the features of layer 'blocks.block1.norm'",
        ),
        (
            {"network": "mnist"},
            r"^the network 'mnist' cannot take the images of 'digits': expected 1 x 24 x 24 or "
            r"larger, not 1 x 8 x 8; choose a network for this data set$",
        ),
        ({"network": "cifar10"}, r"expected 3 x 32 x 32 or larger, not 1 x 8 x 8"),
    ],
)
def test_what_cannot_be_trained_as_the_spec_says_is_refused(
    digits: ImageData, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(SPEC, **change), digits, CPU)


def test_a_training_of_ones_own_network_is_held_to_its_images(digits: ImageData) -> None:
    spec = dataclasses.replace(SPEC, batch_size=1349)
    with pytest.raises(ValueError, match=r"^batch_size = 1349: expected at most 1348"):
        Training(build_network("digits", "batch"), spec, RECIPES["digits"], digits, CPU)


SELECTING = recipe_spelling({"from": "digits", "selection": {"share": 0.25, "after": 2}})


def test_a_recipe_that_selects_trains_on_the_images_that_were_known_least(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training.begin(dataclasses.replace(SPEC, recipe=SELECTING, epochs=3), digits, CPU)
    draw, orders, losses = training.order, [], []

    def watched() -> torch.Tensor:
        losses.append(training.losses.clone())
        orders.append(draw())
        return orders[-1]

    monkeypatch.setattr(training, "order", watched)
    training.run(lambda _: None)
    # a quarter of 1348 images is 337, which fill five batches of 64
    assert [len(order.unique()) for order in orders] == [21 * 64, 21 * 64, 5 * 64]
    before, chosen = losses[2], torch.zeros(1348, dtype=torch.bool)
    chosen[orders[2]] = True
    assert before[chosen].min() >= before.sort(descending=True).values[336]
    assert torch.equal(training.losses[~chosen], before[~chosen])
    assert not torch.any(training.losses[chosen] == before[chosen])
    # and the schedule ends with its last step
    assert training.epochs[-1].learning_rate < 1e-6 < training.epochs[-2].learning_rate


def test_a_batch_that_the_selected_images_do_not_fill_is_refused(digits: ImageData) -> None:
    spec = dataclasses.replace(SPEC, recipe=SELECTING, batch_size=400)
    assert train(spec, digits, CPU).status == "ok"
    with pytest.raises(ValueError, match=r"= 400: expected at most 337, .* in the end"):
        train(dataclasses.replace(spec, epochs=3), digits, CPU)


def test_an_epoch_shows_each_image_once_in_a_new_order(digits: ImageData) -> None:
    spec = dataclasses.replace(SPEC, batch_size=1348)
    generator = torch.Generator().manual_seed(0)
    epochs = [torch.cat([y for _, y in epoch_of(digits, spec, generator)]) for _ in range(2)]
    assert not torch.equal(*epochs)
    for labels in epochs:
        assert torch.equal(labels.sort().values, digits.train_labels.sort().values)


def test_an_evaluation_counts_what_a_hand_counts() -> None:
    logits = torch.tensor([[4.0, 0, 0], [0, 3, 0], [0, 2, 0], [1, 0, 0]])
    evaluation = Evaluation(logits, torch.tensor([0, 1, 2, 2]))
    assert evaluation.accuracy == 0.5
    assert evaluation.confusion() == ((1, 0, 0), (0, 1, 0), (1, 1, 0))
    first, second = evaluation.mistakes()
    assert (first.index, first.true, first.predicted) == (2, 2, 1)
    assert first.confidence == pytest.approx(math.exp(2) / (math.exp(2) + 2))
    assert (second.index, second.true, second.predicted) == (3, 2, 0)
    assert evaluation.mistakes(limit=1) == (first,)


def test_evaluation_uses_running_statistics_and_counts_every_image(digits: ImageData) -> None:
    network = build_network("digits", "batch").train()
    images = prepare_images(digits.test_images, digits, 8)
    evaluation = evaluate(network, images, digits.test_labels)
    assert evaluation.logits.shape == (449, 10)
    assert not network.training
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 0 for norm in norms)


def test_a_test_image_is_classified_with_its_mirror_image(digits: ImageData) -> None:
    flipping = recipe_spelling({"from": "digits", "test_time_flip": True})
    training = Training.begin(dataclasses.replace(SPEC, recipe=flipping, epochs=1), digits, CPU)
    found = training.run(lambda _: None)
    with torch.no_grad():
        images = training.test_images
        plain, mirrored = training.network(images), training.network(images.flip(3))
    torch.testing.assert_close(found.logits, (plain + mirrored) / 2)
    assert not torch.allclose(plain, mirrored, atol=0.1)


def test_a_part_of_the_training_images_is_trained_on(digits: ImageData) -> None:
    spec = dataclasses.replace(SPEC, train_images=100, batch_size=50)
    first, again = train(spec, digits, CPU), train(spec, digits, CPU)
    assert without_times(first) == without_times(again)
    # accuracies are hundredths, of two batches of 50 an epoch
    hundredths = [100 * epoch.train_accuracy for epoch in first.epochs]
    assert hundredths == pytest.approx([round(value) for value in hundredths])
    whole = train(dataclasses.replace(spec, train_images=None), digits, CPU)
    assert whole.test_accuracy > first.test_accuracy


class Frozen(nn.BatchNorm2d):
    """Batch normalization whose scale is not trained, nor a count of another type."""

    made: list["Frozen"]

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight.requires_grad_(False)
        self.count = nn.Parameter(torch.tensor(3), requires_grad=False)
        self.made.append(self)


def test_frozen_parameters_are_neither_changed_nor_counted(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    Frozen.made = []
    regularizer = "l1:0.001+l2:0.1"
    spec = dataclasses.replace(SPEC, norm=own_norm(monkeypatch, Frozen), regularizer=regularizer)
    result = train(spec, digits, CPU)
    assert result.parameters == 14_458 - (16 + 32 + 32)
    assert sum(result.weights) == result.parameters
    for layer in Frozen.made[-3:]:
        assert layer.num_batches_tracked == 42
        assert layer.weight.eq(1).all()
        assert layer.count == 3
        assert layer.bias.ne(0).all()


class Caching(nn.Module):
    """Scales features by a tensor that it keeps, made for the largest batch that it has seen."""

    kept = torch.ones(0, 1, 1, 1)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > len(self.kept):
            type(self).kept = x.new_full((len(x), 1, 1, 1), 0.5)
        return (x + self.bias) * self.kept[: len(x)]


def test_a_tensor_that_a_norm_keeps_from_an_evaluation_is_trained_with(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    Caching.kept = torch.ones(0, 1, 1, 1)
    result = train(dataclasses.replace(SPEC, norm=own_norm(monkeypatch, Caching)), digits, CPU)
    assert len(Caching.kept) == 250  # the images that are evaluated at once
    assert result.status == "ok"


def float32_settings() -> tuple[bool, bool, bool, str]:
    cudnn = torch.backends.cudnn
    precision = torch.get_float32_matmul_precision()
    return cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, precision


def test_a_run_has_its_gpu_current_and_float32_without_tf32_and_leaves_both_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = ["cuda:0"]

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        current.append(str(chosen))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    before = float32_settings()
    with on_device(torch.device("cuda:1")):
        assert current == ["cuda:0", "cuda:1"]
        assert float32_settings() == (False, False, True, "highest")
    assert current == ["cuda:0"]
    assert float32_settings() == before


def test_a_run_on_the_cpu_asks_nothing_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cuda, "device")
    before = float32_settings()
    with on_device(CPU):
        assert float32_settings() == before


def test_a_run_is_on_its_device_before_its_network_is_built(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = []

    @contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield

    def begin(*_: object) -> Training:
        assert entered == [CPU]
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "on_device", noted)
    monkeypatch.setattr(Training, "begin", begin)
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU)
