"""Faults in the optimizer, its schedule, the regularizers and the loss."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from normbench.check.faults.planting import fault, instead_of, replaced
from normbench.models.regularizers import L1, Parameters, gradient_of
from normbench.training import trainer

Update = Callable[..., None]

# torch.optim has taken its name from the package
_SGD = importlib.import_module("torch.optim.sgd")


def _setting(name: str, part: str, told: str, **changes: Callable[[Any], Any]) -> None:
    """Gather a fault in which SGD's update is given other settings, by what they are."""

    @fault(name, part, told)
    @instead_of(_SGD, "sgd")
    def _(original: Update, *tensors: Any, **settings: Any) -> None:
        wrong = {setting: change(settings[setting]) for setting, change in changes.items()}
        original(*tensors, **{**settings, **wrong})


_setting(
    "sgd-without-momentum",
    "optimizer",
    "SGD goes by the last gradient alone.",
    momentum=lambda _: 0.0,
)
_setting(
    "sgd-less-momentum",
    "optimizer",
    "SGD has nine tenths of its momentum.",
    momentum=lambda momentum: 0.9 * momentum,
)
_setting(
    "sgd-dampening",
    "optimizer",
    "SGD dampens new gradients by a half.",
    dampening=lambda _: 0.5,
)
_setting(
    "sgd-without-nesterov",
    "optimizer",
    "SGD has plain momentum in place of Nesterov's.",
    nesterov=lambda _: False,
)
_setting(
    "weight-decay-none",
    "regularizer",
    "SGD leaves out weight decay.",
    weight_decay=lambda _: 0.0,
)
_setting(
    "weight-decay-tenfold",
    "regularizer",
    "SGD decays weights tenfold.",
    weight_decay=lambda decay: 10 * decay,
)
_setting(
    "weight-decay-doubled",
    "regularizer",
    "SGD decays weights by twice what the penalty's gradient is.",
    weight_decay=lambda decay: 2 * decay,
)
_setting(
    "weight-decay-wrong-sign",
    "regularizer",
    "SGD lets weights grow where they should decay.",
    weight_decay=lambda decay: -decay,
)


@fault("sgd-momentum-forgotten", "optimizer", "SGD forgets its momentum before each step.")
@instead_of(_SGD, "sgd")
def _(original: Update, *tensors: Any, **settings: Any) -> None:
    for buffer in tensors[2]:
        if buffer is not None:
            buffer.zero_()
    original(*tensors, **settings)


@fault("weight-decay-decoupled", "regularizer", "Weight decay goes past the momentum, as AdamW's.")
@instead_of(_SGD, "sgd")
def _(original: Update, *tensors: Any, **settings: Any) -> None:
    for values in tensors[0]:
        values.mul_(1 - settings["lr"] * settings["weight_decay"])
    original(*tensors, **{**settings, "weight_decay": 0.0})


def _penalized(name: str, told: str, penalty: Callable[[Tensor], Tensor]) -> None:
    """Gather a fault in which weight decay adds another gradient than its strength times this."""

    @fault(name, "regularizer", told)
    @instead_of(_SGD, "sgd")
    def _(
        original: Update, values: list[Tensor], slopes: list[Tensor], *given: Any, **settings: Any
    ) -> None:
        decay = settings["weight_decay"]
        slopes = [s + decay * penalty(v) for s, v in zip(slopes, values, strict=True)]
        original(values, slopes, *given, **{**settings, "weight_decay": 0.0})


_penalized("l1-for-l2", "Weight decay goes by the weights' signs.", torch.sign)
_penalized(
    "weight-decay-on-part",
    "Weight decay leaves out the second half of the parameters.",
    lambda values: torch.where(
        torch.arange(values.numel(), device=values.device).view(values.shape) < values.numel() / 2,
        values,
        0,
    ),
)


def _l1(name: str, told: str, slope_of: Callable[[Tensor], Tensor]) -> None:
    """Gather a fault in which L1 adds its strength times another gradient than the signs."""

    @fault(name, "regularizer", told)
    @instead_of(L1, "change_gradients")
    def _(_: Update, regularizer: L1, parameters: Parameters) -> None:
        for values in parameters.values():
            gradient_of(values).add_(slope_of(values), alpha=regularizer.strength)


_l1("l2-for-l1", "The L1 gradient goes by the weights, not by their signs.", lambda values: values)
_l1("l1-doubled", "The L1 gradient is doubled.", lambda values: 2 * values.sign())
_l1("l1-wrong-sign", "The L1 gradient has the wrong sign.", lambda values: -values.sign())


@fault("l1-on-part", "regularizer", "The L1 gradient leaves out the second half of the parameters.")
@instead_of(L1, "change_gradients")
def _(_: Update, regularizer: L1, parameters: Parameters) -> None:
    for values in parameters.values():
        half = len(values) // 2
        gradient_of(values)[:half].add_(values[:half].sign(), alpha=regularizer.strength)


@fault("schedule-not-stepped", "schedule", "The learning rate stays what it begins with.")
@instead_of(OneCycleLR, "step")
def _(original: Update, schedule: OneCycleLR, *given: Any) -> None:
    if schedule.last_epoch < 0:
        # the first step is taken as the schedule is built
        original(schedule, *given)


class _NoSchedule:
    """Takes no step."""

    def step(self) -> None:
        """Leave the learning rate as it is."""


@fault("schedule-by-epoch", "schedule", "The schedule takes a step an epoch, not one a batch.")
@instead_of(trainer, "train_epoch")
def _(original: Callable[..., Any], *given: Any) -> Any:
    schedule: LRScheduler = given[-1]
    trained = original(*given[:-1], _NoSchedule())
    schedule.step()
    return trained


def _cycle(name: str, told: str, **changes: Callable[[Any], Any]) -> None:
    """Gather a fault in which the one-cycle schedule is built with other arguments."""

    @fault(name, "schedule", told)
    @instead_of(OneCycleLR, "__init__")
    def _(
        original: Update, schedule: OneCycleLR, optimizer: Any, max_lr: Any, **named: Any
    ) -> None:
        named |= {"max_lr": max_lr}
        wrong = {argument: change(named[argument]) for argument, change in changes.items()}
        original(schedule, optimizer, **{**named, **wrong})


_cycle(
    "schedule-too-long",
    "The schedule is made for twice the steps, and ends halfway.",
    total_steps=lambda steps: 2 * steps,
)
_cycle(
    "schedule-peak-halved",
    "The learning rate goes up to half its peak.",
    max_lr=lambda rate: rate / 2,
)
_cycle(
    "schedule-long-warmup",
    "The learning rate takes twice the steps to its peak.",
    pct_start=lambda part: min(2 * part, 0.9),
)


@fault("schedule-linear", "schedule", "The learning rate goes up and down along straight lines.")
def _() -> AbstractContextManager[None]:
    return replaced(OneCycleLR, "_annealing_cos", staticmethod(OneCycleLR._annealing_linear))


def _loss(name: str, told: str, **changes: Callable[[Any], Any]) -> None:
    """Gather a fault in which cross_entropy is given other settings."""
    defaults = {"label_smoothing": 0.0, "reduction": "mean", "ignore_index": -100}

    @fault(name, "loss", told)
    @instead_of(F, "cross_entropy")
    def _(original: Callable[..., Tensor], *tensors: Tensor, **named: Any) -> Tensor:
        wrong = {name: change(named.get(name, defaults[name])) for name, change in changes.items()}
        return original(*tensors, **{**named, **wrong})


_loss("label-smoothing-lost", "Labels are not smoothed.", label_smoothing=lambda _: 0.0)
_loss(
    "label-smoothing-doubled",
    "Labels are smoothed by twice what the recipe says.",
    label_smoothing=lambda smoothing: 2 * smoothing,
)
_loss("loss-summed", "The loss is the images' sum, not their mean.", reduction=lambda _: "sum")
_loss("loss-ignores-class-0", "The loss leaves out images of class 0.", ignore_index=lambda _: 0)


@fault("loss-of-probabilities", "loss", "The loss takes probabilities for logits.")
@instead_of(F, "cross_entropy")
def _(original: Callable[..., Tensor], logits: Tensor, *given: Any, **named: Any) -> Tensor:
    return original(logits.softmax(1), *given, **named)
