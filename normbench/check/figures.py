"""The figures that a run reports, worked out again from its logits."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from normbench.check.batches import UNIT, Images, epoch_lengths
from normbench.check.recording import Recording
from normbench.check.reference import cross_entropy
from normbench.results import Epoch, RunResult


def figure_faults(recording: Recording, test: Images) -> Iterator[str]:
    """Tell how the figures that are reported differ from those of the logits."""
    result = recording.result
    if result.status != "ok":
        yield f"expected the run to end, seen that it is {result.status}: {result.message}"
        return
    logits = recording.evaluation.logits.double().numpy()
    if logits.shape[0] != len(test.labels):
        yield f"evaluation: expected {len(test.labels)} images, seen {logits.shape[0]}"
        return
    answers = logits.argmax(1)
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (test.labels, answers), 1)
    last = result.epochs[-1]
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(test.labels)).item()
    accuracy = float((answers == test.labels).mean())
    wrong = tuple(int(i) for i in np.flatnonzero(answers != test.labels))
    exact: Mapping[str, tuple[object, object]] = {
        "epochs": (list(range(1, result.spec.epochs + 1)), [e.epoch for e in result.epochs]),
        "confusion": (tuple(map(tuple, confusion.tolist())), result.confusion),
        "wrong": (wrong, result.wrong),
        "incorrect": (len(wrong), result.incorrect),
    }
    for name, (right, came) in exact.items():
        if right != came:
            yield f"{name}: expected {right!s:.80} from the logits, seen {came!s:.80}"
    best = max(epoch.test_accuracy for epoch in result.epochs)
    figures = {
        "test_accuracy": (accuracy, result.test_accuracy),
        "test_accuracy of the last epoch": (accuracy, last.test_accuracy),
        "test_loss": (loss, result.test_loss),
        "best_test_accuracy": (best, result.best_test_accuracy),
    }
    yield from _unequal(figures)
    for epoch, trained in trained_figures(recording, result):
        yield from _unequal({f"{n}, epoch {epoch.epoch}": v for n, v in trained.items()})


def trained_figures(
    recording: Recording, result: RunResult
) -> Iterator[tuple[Epoch, dict[str, tuple[float, float]]]]:
    """Yield each epoch with what the logits of its steps come to, and what it reports."""
    count = len(recording.training.data.train_labels)
    lengths = epoch_lengths(recording.training.recipe, count, len(result.epochs))
    remaining = iter(recording.steps)
    for length, epoch in zip(lengths, result.epochs, strict=True):
        steps = list(itertools.islice(remaining, length // result.spec.batch_size))
        logits = torch.cat([step.logits for step in steps]).double()
        labels = torch.cat([step.labels for step in steps])
        accuracy = float((logits.numpy().argmax(1) == labels.numpy()).mean())
        loss = cross_entropy(logits, labels).item()
        yield (
            epoch,
            {
                "train_accuracy": (accuracy, epoch.train_accuracy),
                "train_loss": (loss, epoch.train_loss),
            },
        )


def _unequal(figures: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yield the figures that are not those expected, to a hundred roundings of float32."""
    for name, (right, came) in figures.items():
        if not abs(right - came) <= 100 * UNIT * max(1.0, abs(right)):
            yield f"{name}: expected {right:.9g} from the logits, seen {came:.9g}"
