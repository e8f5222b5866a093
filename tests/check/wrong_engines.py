"""Engines that train wrongly, each in one way, by its name."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from normbench.check.recording import RecordedTraining
from normbench.check.trace_record import STEPS
from normbench.models.regularizers import L1
from normbench.training.optimizers import one_cycle
from normbench.training.steps import Step, TrainingStep

Change = Callable[[RecordedTraining], None]
Forward = Callable[[Tensor], Tensor]


def engine(change: Change) -> type[RecordedTraining]:
    """Return an engine that is changed so before its first step."""

    class Changed(RecordedTraining):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            change(self)

    return Changed


def _plain(training: RecordedTraining) -> TrainingStep:
    return cast("TrainingStep", training.untold)


def _optimizer(**settings: float) -> Change:
    return lambda training: training.optimizer.param_groups[0].update(settings)


def _length(factor: float) -> Change:
    def change(training: RecordedTraining) -> None:
        steps = int(STEPS * factor)
        recipe = training.recipe
        peak = recipe.peak_learning_rate(training.spec.batch_size)
        training.schedule = one_cycle(training.optimizer, peak, steps, recipe.warmup)

    return change


def _never_stepped(training: RecordedTraining) -> None:
    class Still:
        def step(self) -> None:
            pass

        def get_last_lr(self) -> list[float]:
            return [0.0]

    # it stands in for a schedule, which it is not
    training.schedule = Still()  # type: ignore[assignment]


def _regularizer(l1: float, l2: float) -> Change:
    def change(training: RecordedTraining) -> None:
        _plain(training).regularizers = [L1(l1)]
        training.optimizer.param_groups[0]["weight_decay"] = l2

    return change


def _label_smoothing(training: RecordedTraining) -> None:
    _plain(training).label_smoothing = 0.001


def _parameter(layer: str, factor: float) -> Change:
    def change(training: RecordedTraining) -> None:
        parameter = dict(training.network.named_parameters())[layer]
        parameter.register_hook(lambda gradient: gradient * factor)

    return change


def _layer(name: str, wrap: Callable[[Forward], Forward]) -> Change:
    def change(training: RecordedTraining) -> None:
        layer: nn.Module = training.network.get_submodule(name)
        layer.forward = wrap(layer.forward)

    return change


def _in_bfloat16(forward: Forward) -> Forward:
    def rounded(features: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(features).float()

    return rounded


def _leaking(_: Forward) -> Forward:
    return lambda features: nn.functional.leaky_relu(features, 0.01)


def _stepping(wrap: Callable[[RecordedTraining, Step], Step]) -> Change:
    """Return what puts something around the step as it is told to the trace."""

    def change(training: RecordedTraining) -> None:
        training.step = wrap(training, training.step)

    return change


def _last_batch_twice(training: RecordedTraining, step: Step) -> Step:
    count = 0
    before: list[tuple[Tensor, Tensor]] = []

    def take(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count % 10 == 0:
            images, labels = before[-1]
        before.append((images, labels))
        return step(images, labels)

    return take


def _labels(wrong: Callable[[Tensor], Tensor]) -> Callable[[RecordedTraining, Step], Step]:
    return lambda _, step: lambda images, labels: step(images, wrong(labels))


def _same_order(training: RecordedTraining, step: Step) -> Step:
    count = 0
    state = training.generator.get_state()

    def take(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count % 10 == 0:
            training.generator.set_state(state)
        return step(images, labels)

    return take


def _in_training_mode(layer: nn.BatchNorm2d) -> Forward:
    forward = type(layer).forward
    return lambda features: forward(layer.train(), features)


def _evaluates_in_training_mode(training: RecordedTraining) -> None:
    for layer in training.network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # mypy does not let a method be replaced
            layer.forward = _in_training_mode(layer)  # type: ignore[assignment]


def _all_but_one_test_image(training: RecordedTraining) -> None:
    training.test_images = training.test_images[:-1]
    labels = training.data.test_labels[:-1]
    training.data = dataclasses.replace(training.data, test_labels=labels)


def _first_label_wrong(labels: Tensor) -> Tensor:
    return torch.cat([(labels[:1] + 1) % 10, labels[1:]])


# By name: the fault, and a part of what is to be told of it.
WRONG_ENGINES: dict[str, tuple[Change, str]] = {
    "dampening 0.5": (_optimizer(dampening=0.5), "momentum of"),
    "momentum 0.899": (_optimizer(momentum=0.899), "momentum of"),
    "no Nesterov": (_optimizer(nesterov=False), "parameter"),
    "weight decay a tenth more": (_optimizer(weight_decay=0.0011), "momentum of"),
    "schedule of twice the steps": (_length(2), "parameter"),
    "schedule of two steps more": (_length(1.04), "parameter"),
    "schedule not stepped": (_never_stepped, "parameter"),
    "L1 for L2": (_regularizer(1e-3, 0), "momentum of"),
    "label smoothing 0.001": (_label_smoothing, "momentum of"),
    "one weight's gradient 1.001 times": (
        _parameter("blocks.block2.norm.weight", 1.001),
        "momentum of blocks.block2.norm.weight",
    ),
    "a convolution's gradient 1.0005 times": (
        _parameter("blocks.block1.convolution.weight", 1.0005),
        "momentum of blocks.block1.convolution.weight",
    ),
    "a convolution in bfloat16": (_layer("blocks.block2.convolution", _in_bfloat16), "logits"),
    "a leaking ReLU": (_layer("blocks.block1.activation", _leaking), "logits"),
    "last batch twice": (_stepping(_last_batch_twice), "step 10, image 0"),
    "a label wrong": (_stepping(_labels(_first_label_wrong)), "expected its image's label"),
    "the same order each epoch": (_stepping(_same_order), "step 26, image 0"),
    "evaluation in training mode": (_evaluates_in_training_mode, "changed between"),
    "a test image left out": (_all_but_one_test_image, "test images: expected a shape"),
}
