"""The data side of training, image by image in float64: what batches and figures have to be.

The random numbers are drawn from a generator of the run's seed in the order in which a run has
them: once, where a part of the training set is trained on, an order of all of its images, of which
the first are the part; then in each epoch an order of the part, or of those of its images that the
recipe selects, and for its images in this order, where the recipe asks for each, six numbers from 0
to 1 of the affine maps (rotation, scale along x, scale along y, shear, shift along x, shift along
y, each for all images), two whole numbers of the crops (down, right, each for all images), and a
number from 0 to 1 of the flips. A run draws for up to 2,048 images at once; a trace has fewer.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from normbench.check.recording import CPU, RecordedStep, Recording
from normbench.check.reference import cross_entropy
from normbench.spec import RunSpec
from normbench.training.data import ImageData
from normbench.training.recipes import Augmentation, Recipe

Array = NDArray[np.float64]

# Float32's unit roundoff, and the roundings that a pixel goes through from the drawn numbers on:
# each of an angle, its cosine, a scale, two products and two sums a coordinate, the coordinate in
# pixels, four weights and their sum.
UNIT = 2.0**-24
ROUNDINGS = 32


@dataclass(frozen=True)
class Images:
    """Images of ``(N, C, H, W)`` with pixels from 0 to 255, and their labels."""

    images: Array
    labels: NDArray[np.int64]

    @property
    def size(self) -> int:
        """The height and width of an image."""
        return int(self.images.shape[-1])

    def __getitem__(self, chosen: NDArray[np.int64]) -> "Images":
        return Images(self.images[chosen], self.labels[chosen])


def images_of(images: Tensor, labels: Tensor) -> Images:
    """Return tensors as arrays in float64."""
    return Images(images.double().numpy(), labels.numpy().astype(np.int64))


@functools.cache
def digits_parts() -> tuple[Images, Images]:
    """Return scikit-learn's digits to train and to test on: every fourth is a test image."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    # from 0 to 16, on the scale from 0 to 255
    images = np.rint(pixels.reshape(-1, 1, 8, 8) * 255 / 16)
    every = np.arange(len(labels))
    whole = Images(images, labels.astype(np.int64))
    return whole[every[every % 4 != 3]], whole[every[every % 4 == 3]]


def loaded(data: ImageData, train: Images, test: Images) -> Iterator[str]:
    """Tell how a loaded data set differs from what it is to be."""
    parts = {
        "training": (train, data.train_images, data.train_labels),
        "test": (test, data.test_images, data.test_labels),
    }
    for part, (expected, images, labels) in parts.items():
        if tuple(images.shape) != expected.images.shape:
            yield (
                f"{part} images: expected a shape of {expected.images.shape}, seen "
                f"{tuple(images.shape)}"
            )
            continue
        if wrong := np.flatnonzero(
            (images.double().numpy() != expected.images).any((1, 2, 3))
        ).size:
            yield f"{part} images: {wrong} of {len(images)} have other pixels than their source"
        off = np.flatnonzero(labels.numpy() != expected.labels)
        if off.size:
            yield (
                f"{part} labels: {off.size} of {len(images)} differ from their source, such as "
                f"image {off[0]}: expected {expected.labels[off[0]]}, seen {int(labels[off[0]])}"
            )
    pixels = train.images / 255
    for name, right, seen in (("mean", pixels.mean(), data.mean), ("std", pixels.std(), data.std)):
        # data sets have them to three digits or four
        if not abs(right - seen) <= 5.1e-4:
            yield f"the {name} of the training pixels: expected {right:.4f}, seen {seen:.4f}"


@dataclass(frozen=True)
class Draws:
    """What an epoch has drawn, as it is documented above; None where the recipe asks for none."""

    order: NDArray[np.int64]
    affine: Array | None
    crop: NDArray[np.int64] | None
    flip: NDArray[np.bool_] | None


def drawn_part(spec: RunSpec, count: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Draw which of ``count`` training images are trained on."""
    if not spec.train_images:
        return np.arange(count)
    device = generator.device
    order: NDArray[np.int64] = (
        torch.randperm(count, generator=generator, device=device).cpu().numpy()
    )
    return order[: spec.train_images]


def drawn_epoch(
    count: int, batch_size: int, augmentation: Augmentation, generator: torch.Generator
) -> Draws:
    """Draw an epoch of ``count`` images; those of an incomplete batch are left out."""
    device = generator.device
    order = torch.randperm(count, generator=generator, device=device).cpu()
    order = order[: count // batch_size * batch_size]
    images = len(order)
    affine = crop = flip = None
    if any((augmentation.rotation, augmentation.shift, augmentation.scale, augmentation.shear)):
        numbers = torch.rand(6, images, 1, 1, generator=generator, device=device).cpu()
        affine = (2 * numbers.double().numpy() - 1).reshape(6, images).T
    if augmentation.crop:
        offsets = 2 * augmentation.crop + 1
        drawn = torch.randint(offsets, (2, images), generator=generator, device=device)
        crop = drawn.cpu().numpy().T
    if augmentation.flip:
        drawn = torch.rand(images, 1, 1, 1, generator=generator, device=device)
        flip = drawn.cpu().flatten().numpy() < 0.5
    return Draws(order.numpy(), affine, crop, flip)


def center(image: Array, size: int) -> Array:
    """Return the middle ``size`` x ``size`` pixels of ``(C, H, H)``."""
    margin = (image.shape[-1] - size) // 2
    return image[:, margin : margin + size, margin : margin + size]


def affine_map(image: Array, numbers: Array, augmentation: Augmentation, size: int) -> Array:
    """Return the middle ``size`` x ``size`` pixels of ``(C, H, H)`` under an affine map.

    The pixel at ``(x, y)`` pixels from the middle is read, between four pixels linearly and with 0
    outside, at ``x' = a cos(r) x + a (s - sin(r)) y + dx`` and ``y' = b sin(r) x + b cos(r) y +
    dy``, with the rotation ``r``, scales ``a`` and ``b``, the shear ``s`` and the shift.
    """
    rotation, scale_x, scale_y, shear, shift_x, shift_y = numbers
    angle = rotation * augmentation.rotation * math.pi / 180
    wide, high = 1 + scale_x * augmentation.scale, 1 + scale_y * augmentation.scale
    middle, reach = (image.shape[-1] - 1) / 2, (size - 1) / 2
    y, x = np.meshgrid(*(np.arange(size) - reach,) * 2, indexing="ij")
    across = wide * (math.cos(angle) * x + (shear * augmentation.shear - math.sin(angle)) * y)
    down = high * (math.sin(angle) * x + math.cos(angle) * y)
    return bilinear(
        image,
        across + shift_x * augmentation.shift + middle,
        down + shift_y * augmentation.shift + middle,
    )


def bilinear(image: Array, x: Array, y: Array) -> Array:
    """Return ``(C, H, W)`` at positions in pixels, linear between four of them, 0 outside."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    height, width = image.shape[1:]
    found = np.zeros((len(image), *x.shape))
    for column in (left, left + 1):
        for row in (top, top + 1):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            pixels = image[:, row.clip(0, height - 1), column.clip(0, width - 1)]
            found += np.where(inside, weight * pixels, 0)
    return found


def cropped(image: Array, border: int, down: int, right: int) -> Array:
    """Return ``(C, H, W)`` cut out of itself with a mirrored border, from ``(down, right)`` on."""
    _, height, width = image.shape
    # ... 2 1 | 0 1 2 ..., the edge itself once
    rows = abs(np.arange(height) + down - border)
    columns = abs(np.arange(width) + right - border)
    rows = np.where(rows >= height, 2 * (height - 1) - rows, rows)
    columns = np.where(columns >= width, 2 * (width - 1) - columns, columns)
    return image[:, rows][:, :, columns]


def changed(image: Array, draws: Draws, place: int, augmentation: Augmentation, size: int) -> Array:
    """Return an image as training has it, at its ``place`` in the epoch."""
    if draws.affine is not None:
        image = affine_map(image, draws.affine[place], augmentation, size)
    else:
        image = center(image, size)
    if draws.crop is not None:
        down, right = draws.crop[place]
        image = cropped(image, augmentation.crop, down, right)
    if draws.flip is not None and draws.flip[place]:
        image = image[:, :, ::-1]
    return image


def tolerance(image_size: int, std: float) -> float:
    """Return how far float32 may be off a normalized pixel.

    Each of ROUNDINGS moves a position by ``u`` times at most the image's size, in pixels, and so
    what lies between two pixels by that share of their largest difference, along both axes; and a
    pixel by ``u`` times itself. All of it is divided by the deviation.
    """
    return ROUNDINGS * UNIT * (2 * image_size + 1) / std


@dataclass(frozen=True)
class ExpectedEpoch:
    """An epoch as it has to be: images before normalization, labels, and which images they are."""

    images: Array
    labels: NDArray[np.int64]
    order: tuple[int, ...]


def epoch_lengths(recipe: Recipe, count: int, epochs: int) -> list[int]:
    """Return on how many of ``count`` images each epoch of a run is to train."""
    fewer = math.ceil(round(recipe.selection.share * count, 6))
    return [count if epoch < recipe.selection.after else fewer for epoch in range(epochs)]


def expected_epochs(
    train: Images,
    spec: RunSpec,
    recipe: Recipe,
    size: int,
    device: torch.device = CPU,
    steps: Sequence[RecordedStep] = (),
) -> list[ExpectedEpoch]:
    """Return the epochs of a run, each image changed by itself.

    A GPU draws other numbers of a seed than a CPU does: they are drawn on the run's device. Which
    images a recipe selects follows from what the run's ``steps`` have answered.
    """
    generator = torch.Generator(device).manual_seed(spec.seed)
    part = drawn_part(spec, len(train.labels), generator)
    losses = np.full(len(part), np.inf)
    answered = (
        cross_entropy(step.logits[[place]].double(), step.labels[[place]]).item()
        for step in steps
        for place in range(len(step.labels))
    )
    epochs = []
    for length in epoch_lengths(recipe, len(part), spec.epochs):
        draws = drawn_epoch(length, spec.batch_size, recipe.augmentation, generator)
        # the greatest losses, of equal ones the first
        selected = np.sort(np.argsort(-losses, kind="stable")[:length])[draws.order]
        chosen = part[selected]
        images = [
            changed(train.images[index], draws, place, recipe.augmentation, size)
            for place, index in enumerate(chosen)
        ]
        epochs.append(ExpectedEpoch(np.stack(images), train.labels[chosen], tuple(chosen)))
        for place, loss in zip(selected, answered, strict=False):
            losses[place] = loss
    return epochs


def training_faults(
    recording: Recording, epochs: Sequence[ExpectedEpoch], image_size: int
) -> Iterator[str]:
    """Tell how the batches that were trained on differ from what they are to be.

    ``image_size`` is that of the data set's images.
    """
    training = recording.training
    data, size = training.data, training.spec.batch_size
    counts = [len(epoch.labels) // size for epoch in epochs]
    if len(recording.steps) != sum(counts):
        yield (
            f"expected epochs of {', '.join(map(str, counts))} steps, an incomplete batch left "
            f"out, seen {len(recording.steps)} steps"
        )
    within = tolerance(image_size, data.std)
    batches = (
        (epoch, slice(start, start + size))
        for epoch in epochs
        for start in range(0, len(epoch.labels), size)
    )
    numbered = enumerate(zip(batches, recording.steps, strict=False), start=1)
    for number, ((epoch, batch), step) in numbered:
        expected = (epoch.images[batch] / 255 - data.mean) / data.std
        yield from batch_faults(number, expected, epoch.labels[batch], step, within)
    yield from order_faults([epoch.order for epoch in epochs], training.spec.train_images or 0)


def batch_faults(
    number: int, expected: Array, labels: NDArray[np.int64], step: RecordedStep, within: float
) -> Iterator[str]:
    """Tell how the batch of a step differs from what it is to be."""
    seen = step.images.double().numpy()
    if seen.shape != expected.shape:
        yield f"step {number}, images: expected a shape of {expected.shape}, seen {seen.shape}"
        return
    error = np.abs(seen - expected)
    off = ~(error <= within).all((1, 2, 3))
    for place in np.flatnonzero(off):
        at = np.unravel_index(error[place].argmax(), error[place].shape)
        yield (
            f"step {number}, image {place}: the pixel {tuple(map(int, at))} is off by "
            f"{error[place][at]:.3g}, where {within:.3g} is the bound: expected "
            f"{expected[place][at]:.6g}, seen {seen[place][at]:.6g}"
        )
    for place in np.flatnonzero(step.labels.numpy() != labels):
        yield (
            f"step {number}, image {place}: expected its image's label {labels[place]}, seen "
            f"{int(step.labels[place])}"
        )


def order_faults(orders: Sequence[tuple[int, ...]], count: int) -> Iterator[str]:
    """Tell of epochs that have an image twice, or no new order.

    ``orders`` are the indices of an epoch's images, which their content has been held against. By
    chance two orders of ten images or more are one with a probability below 3e-7.
    """
    for number, order in enumerate(orders, start=1):
        if len(set(order)) < len(order):
            twice = next(i for i in order if order.count(i) > 1)
            yield f"epoch {number}: expected each image at most once, seen image {twice} twice"
        if len(order) >= 10 and list(order) in (sorted(order), sorted(order, reverse=True)):
            yield f"epoch {number}: expected a random order of {count} images, seen a sorted one"
        if len(order) >= 10 and order in orders[: number - 1]:
            same = orders.index(order) + 1
            yield f"epoch {number}: expected a new order, seen that of epoch {same}"


def test_faults(recording: Recording, test: Images, size: int) -> Iterator[str]:
    """Tell how the images of evaluation differ from the whole test set, in order and unchanged."""
    data = recording.training.data
    expected = np.stack([center(image, size) for image in test.images])
    expected = (expected / 255 - data.mean) / data.std
    seen = recording.test_images.double().numpy()
    if seen.shape != expected.shape:
        yield f"test images: expected a shape of {expected.shape}, seen {seen.shape}"
    else:
        within = tolerance(test.images.shape[-1], data.std)
        off = np.flatnonzero((abs(seen - expected) > within).any((1, 2, 3)))
        if off.size:
            yield f"test images: {off.size} of {len(seen)} differ, such as image {off[0]}"
    if not np.array_equal(recording.evaluation.labels.numpy(), test.labels):
        yield f"evaluation: expected the labels of all {len(test.labels)} test images, in order"
