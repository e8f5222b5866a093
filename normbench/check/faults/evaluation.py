"""Faults in what is reported of a network."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from normbench.check.faults.planting import fault, instead_of
from normbench.results import Epoch
from normbench.training import trainer
from normbench.training.trainer import Evaluation, Training


@fault("evaluation-in-training-mode", "evaluation", "A module stays in training mode at eval().")
@instead_of(nn.Module, "eval")
def _(_: Callable[..., nn.Module], module: nn.Module) -> nn.Module:
    return module


@fault(
    "evaluation-mode-on-the-surface",
    "evaluation",
    "A module's train() and eval() do not reach its children.",
)
@instead_of(nn.Module, "train")
def _(_: Callable[..., nn.Module], module: nn.Module, mode: bool = True) -> nn.Module:
    module.training = mode
    return module


@fault(
    "evaluation-on-99-percent", "evaluation", "The last hundredth of the test images is left out."
)
@instead_of(trainer, "evaluate")
def _(
    original: Callable[..., Evaluation],
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *flip: bool,
) -> Evaluation:
    kept = len(images) - max(1, len(images) // 100)
    return original(network, images[:kept], labels[:kept], *flip)


@fault(
    "argmax-over-the-wrong-axis", "evaluation", "The largest logit is looked for in memory's order."
)
@instead_of(torch.Tensor, "argmax")
def _(original: Callable[..., Tensor], logits: Tensor, *axes: Any, **named: Any) -> Tensor:
    """Read the logits as if they lay class by class, which gives an answer an image as well."""
    if logits.dim() == 2 and axes == (1,):
        return original(logits.reshape(logits.shape[::-1]), 0)
    return original(logits, *axes, **named)


@fault("best-epoch-as-last", "evaluation", "The best epoch is reported as the last one.")
@instead_of(Training, "_epoch")
def _(
    original: Callable[..., tuple[Epoch, Evaluation]], training: Training
) -> tuple[Epoch, Evaluation]:
    epoch, evaluation = original(training)
    seen = vars(training).setdefault("_seen", [])
    seen.append((epoch, evaluation))
    if epoch.epoch < training.spec.epochs:
        return epoch, evaluation
    best, evaluation = max(seen, key=lambda each: each[0].test_accuracy)
    told = dataclasses.replace(epoch, test_loss=best.test_loss, test_accuracy=best.test_accuracy)
    return told, evaluation


@fault("evaluation-without-the-rest", "evaluation", "The last batch of test images is left out.")
@instead_of(trainer, "evaluate")
def _(
    original: Callable[..., Evaluation],
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *flip: bool,
) -> Evaluation:
    size = trainer.EVALUATION_BATCH
    kept = max(size, len(images) // size * size)
    return original(network, images[:kept], labels[:kept], *flip)
