"""The optimizer of a recipe, with its learning rate over the steps of a run."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from normbench.models.factories import SPELLING, named_object, signature_problem, told
from normbench.training.muon import Muon
from normbench.training.recipes import OPTIMIZERS, Recipe
from normbench.training.steps import FlatParameters


class UnknownOptimizer(ValueError):
    """An optimizer's name that is none of the known ones, or that leads to no optimizer."""


def optimizer_factory(name: str) -> Any:
    """Return what ``package.module:factory`` spells; raises UnknownOptimizer where it is none."""
    if ":" not in name:
        raise UnknownOptimizer(
            f"unknown optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}, or {SPELLING} "
            "for one of your own"
        )
    factory = named_object(name, "optimizer", ", ".join(OPTIMIZERS), UnknownOptimizer)
    if problem := signature_problem(factory, [], 0.1):
        raise UnknownOptimizer(
            f"optimizer {name!r} cannot be called with parameters and a learning rate: {problem}; "
            "expected a factory such as `def optimizer(named_parameters, learning_rate): ...`"
        )
    return factory


def own_optimizer(
    name: str, named: Mapping[str, nn.Parameter], learning_rate: float | Tensor
) -> Optimizer:
    """Call a user's factory with the pairs of names and parameters and the learning rate.

    The schedule goes over the rate of each of its groups, whatever that begins with; a recipe's
    momentum is not handed over.

    Raises UnknownOptimizer for what it raises, and where it returns no torch.optim.Optimizer with
    every parameter.
    """
    factory = optimizer_factory(name)
    try:
        made = factory(list(named.items()), learning_rate)
    except (Exception, SystemExit) as error:
        raise UnknownOptimizer(
            f"optimizer {name!r} could not be built: {told(error)}; expected a factory that takes "
            "pairs of a name and a parameter, and the learning rate"
        ) from error
    if not isinstance(made, Optimizer):
        raise UnknownOptimizer(
            f"optimizer {name!r} returned a {type(made).__name__}: expected a torch.optim.Optimizer"
        )
    given = {id(parameter) for parameter in named.values()}
    held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    if given != held:
        raise UnknownOptimizer(
            f"optimizer {name!r} holds {len(held & given)} of the network's {len(given)} trained "
            "parameters: expected all of them; freeze a parameter with requires_grad=False"
        )
    return made


def build_optimizer(
    recipe: Recipe, flat: FlatParameters, rate: float | Tensor, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; ``weight_decay`` is coupled, and SGD's alone.

    A user's own is given the parameters by their names, for it may tell kernels from biases.
    """
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            [flat.values],
            rate,
            recipe.momentum,
            weight_decay=weight_decay,
            nesterov=recipe.momentum > 0,
            fused=True,
        )
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        capturable = isinstance(rate, Tensor)
        return torch.optim.AdamW(
            [flat.values], rate, betas, weight_decay=0.0, capturable=capturable, fused=True
        )
    if recipe.optimizer == "muon":
        return Muon(flat.named.values(), rate, recipe.momentum)
    return own_optimizer(recipe.optimizer, flat.named, rate)


def build_schedule(optimizer: Optimizer, recipe: Recipe, peak: float, steps: int) -> LRScheduler:
    """Return the recipe's schedule of ``steps`` steps, of which the first is at step 0."""
    if recipe.schedule == "one-cycle":
        if len(optimizer.param_groups) == 1 and recipe.optimizer in OPTIMIZERS:
            return one_cycle(optimizer, peak, steps, recipe.warmup)
        # groups may have rates of their own
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        return one_cycle(optimizer, peaks, steps, recipe.warmup)
    return LambdaLR(optimizer, functools.partial(share_of_peak, recipe, steps))


def share_of_peak(recipe: Recipe, steps: int, step: int) -> float:
    """Return the learning rate of a step, the first being 0, over the peak.

    ``(i + 1) / (w + 1)`` in the ``w`` steps of the way up, then with ``t`` the part of the other
    steps that is over, ``(1 + cos(pi t)) / 2``, ``1 - t`` or 1.
    """
    up = round(recipe.warmup * steps)
    if step < up:
        return (step + 1) / (up + 1)
    part = min(1.0, (step - up) / max(1, steps - up))
    return {"cosine": (1 + math.cos(math.pi * part)) / 2, "linear": 1 - part, "constant": 1.0}[
        recipe.schedule
    ]


def one_cycle(
    optimizer: torch.optim.Optimizer, peak: float | list[float], steps: int, warmup: float
) -> OneCycleLR:
    """Return the schedule of ``steps`` steps, up to ``peak`` in ``warmup`` of them and down."""
    total = steps + 1
    if warmup * total == 1:
        # OneCycleLR ends its way up at step warmup * total - 1, and divides by the steps up to
        # there: where these are none, the first step is to be at the peak, which it now is
        warmup *= 1 - 1e-9
    return OneCycleLR(optimizer, peak, total_steps=total, pct_start=warmup, cycle_momentum=False)
