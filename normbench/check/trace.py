"""Takes a trace: records a run of the engine, and says what is wrong with its steps and data."""

import dataclasses
import functools
import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from normbench.check.batches import (
    ExpectedEpoch,
    Images,
    digits_parts,
    expected_epochs,
    images_of,
    loaded,
    test_faults,
    training_faults,
)
from normbench.check.figures import figure_faults
from normbench.check.recording import (
    CPU,
    RecordedTraining,
    Recording,
    record,
)
from normbench.check.trace_record import DIGITS, Trace, Traced, nine_digits
from normbench.check.tracer import SEED, Tracer, unmoved, unreferenced
from normbench.spec import NO_REGULARIZER, RunSpec
from normbench.training.data import ImageData, load_dataset
from normbench.training.datasets import find_dataset
from normbench.training.fingerprints import code_digest, fingerprint
from normbench.training.recipes import find_recipe
from normbench.training.trainer import EVALUATION_BATCH

# Of the data sets whose images are random.
RANDOM_IMAGES, RANDOM_TEST_IMAGES = 210, 24


def random_data(dataset: str) -> ImageData:
    """Return random images of a data set's size, each pixel drawn by itself, with random labels."""
    facts = find_dataset(dataset)
    generator = torch.Generator().manual_seed(SEED)
    size = (facts.image_channels, facts.image_size, facts.image_size)

    def part(count: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(256, (count, *size), generator=generator, dtype=torch.uint8)
        return images, torch.randint(len(facts.classes), (count,), generator=generator)

    train, test = part(RANDOM_IMAGES), part(RANDOM_TEST_IMAGES)
    pixels = train[0].double() / 255
    mean, std = pixels.mean().item(), pixels.std(correction=0).item()
    return ImageData(dataset, *train, *test, mean, std)


def trace_data(dataset: str) -> ImageData:
    """Return what a trace is given: the digits as they are loaded, or random images."""
    if dataset == "digits":
        return load_dataset(dataset, Path(), CPU)
    return random_data(dataset)


@functools.cache
def sources_of(dataset: str) -> tuple[Images, Images]:
    """Return the images to train and to test on that a trace's data has to be equal to."""
    if dataset == "digits":
        return digits_parts()
    data = random_data(dataset)
    return (
        images_of(data.train_images, data.train_labels),
        images_of(data.test_images, data.test_labels),
    )


def _epochs(recording: Recording, device: torch.device) -> list[ExpectedEpoch]:
    """Return the epochs of a trace; where none is selected, they are those of any norm's."""
    spec, size = recording.training.spec, recording.training.image_size
    recipe = find_recipe(spec.recipe)
    if recipe.selection.share == 1:
        alike = dataclasses.replace(spec, norm="none", regularizer=NO_REGULARIZER)
        return _whole_epochs(alike, size, device)
    train, _ = sources_of(spec.dataset)
    return expected_epochs(train, spec, recipe, size, device, recording.steps)


@functools.cache
def _whole_epochs(spec: RunSpec, size: int, device: torch.device) -> list[ExpectedEpoch]:
    train, _ = sources_of(spec.dataset)
    return expected_epochs(train, spec, find_recipe(spec.recipe), size, device)


def take_trace(
    traced: Traced,
    processor: str = "",
    kind: type[RecordedTraining] = RecordedTraining,
    data: ImageData | None = None,
    device: torch.device = CPU,
) -> Trace:
    """Record a run, and hold it against the reference and its data.

    ``processor`` is the one that it is taken on. ``kind`` is the engine, and ``data`` what it is
    given: else the digits, and for other data sets random images. The reference is taken on the
    CPU, whatever the ``device`` of the run. What training or the reference raises breaks it.
    """
    start, spec = time.perf_counter(), traced.spec
    trace = _untaken(traced, processor, device)
    try:
        held = _held(trace, data or trace_data(spec.dataset), kind, device)
    # whatever a user's norm raises
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        held = dataclasses.replace(trace, broken=(f"raised {told:.300}",))
    return dataclasses.replace(held, seconds=round(time.perf_counter() - start, 3))


def take_case_trace(
    traced: Traced, processor: str, data: ImageData, device: torch.device = CPU
) -> Trace:
    """Record a run on the data that it is given, and hold it against nothing.

    Of the test images, TEST_IMAGES are evaluated. Raises what training raises.
    """
    start, part = time.perf_counter(), slice(TEST_IMAGES)
    short = dataclasses.replace(
        data, test_images=data.test_images[part], test_labels=data.test_labels[part]
    )
    recording = record(traced.spec, short, device=device)
    smoothing = find_recipe(traced.spec.recipe).label_smoothing
    losses = (
        cross_entropy(step.logits.double(), step.labels, label_smoothing=smoothing).item()
        for step in recording.steps
    )
    return dataclasses.replace(
        _untaken(traced, processor, device),
        losses=tuple(map(nine_digits, losses)),
        figures=_short_digest(repr(recording.result.decided).encode()),
        **_sizes_and_digests(recording),
        seconds=round(time.perf_counter() - start, 3),
    )


# Of a case's trace: a batch of the evaluation, and some that fill none.
TEST_IMAGES = EVALUATION_BATCH + 3


def _untaken(traced: Traced, processor: str, device: torch.device) -> Trace:
    """Return a trace without figures yet, with the ground that it is taken on."""
    spec = traced.spec
    ground = {
        "torch": torch.__version__,
        "processor": processor,
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "code": code_digest(spec),
        "fingerprint": fingerprint(spec),
    }
    return Trace(traced.name, spec, ground, losses=(), digests={}, norms={})


def _held(
    trace: Trace, data: ImageData, kind: type[RecordedTraining], device: torch.device
) -> Trace:
    """Return the trace with what it has recorded, and what is broken of it."""
    spec = trace.spec
    train, test = sources_of(spec.dataset)
    recording = record(spec, data, kind, device)
    tracer = Tracer(recording)
    reason = unreferenced(spec)
    comparisons = [] if reason else list(tracer.comparisons())
    worst = max(comparisons, key=lambda comparison: comparison.share, default=None)
    size = recording.training.image_size
    epochs = _epochs(recording, device)
    broken = [
        *(() if tracer.norm or reason else tracer.unrepeatable()),
        *(str(comparison) for comparison in comparisons if comparison.broken),
        *unmoved(recording.steps),
        *loaded(data, train, test),
        *training_faults(recording, epochs, train.size),
        *test_faults(recording, test, size),
        *figure_faults(recording, test),
    ]
    left_out = len(broken) - KEPT_BROKEN
    return dataclasses.replace(
        trace,
        losses=tuple(map(tracer.loss, range(len(recording.steps)))),
        **_sizes_and_digests(recording),
        broken=(*broken[:KEPT_BROKEN], *([f"and {left_out} more"] if left_out > 0 else [])),
        share=nine_digits(worst.share) if worst else 0.0,
        where=worst.place if worst else "",
        note=reason or ("" if tracer.norm else OWN_NORM),
    )


# Of what is broken: the rest follows from the first.
KEPT_BROKEN = 20

OWN_NORM = (
    "the norm has no formula: the reference takes the layer itself in float64, with its state "
    "before each step"
)


def _sizes_and_digests(recording: Recording) -> dict[str, Any]:
    """Return a trace's digests and norms."""
    tensors = recorded_tensors(recording)
    return {
        "digests": {name: "".join(map(digest, row)) for name, row in tensors.items()},
        "norms": {name: tuple(map(size_of, row)) for name, row in tensors.items()},
    }


def recorded_tensors(recording: Recording) -> dict[str, list[Tensor]]:
    """Return the logits, the parameters and the buffers over the steps; the evaluation's last."""
    found: dict[str, list[Tensor]] = {"logits": [step.logits for step in recording.steps]}
    for step in recording.steps:
        for name, tensor in step.after.tensors.items():
            if not name.startswith("momentum") and tensor.is_floating_point():
                found.setdefault(name, []).append(tensor)
    if recording.training.evaluation is not None:
        found["logits"].append(recording.evaluation.logits)
    return found


def digest(tensor: Tensor) -> str:
    """Return eight hexadecimal digits of a tensor's bytes, in the order of its indices."""
    return _short_digest(tensor.detach().cpu().contiguous().numpy().tobytes())


def _short_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGITS // 2).hexdigest()


def size_of(tensor: Tensor) -> float:
    """Return the root of the sum of squares in float64, to nine digits."""
    return nine_digits(tensor.double().norm().item())
