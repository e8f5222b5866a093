"""Faults in labels, images, their order and their augmentation."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normbench.check.faults.planting import fault, instead_of
from normbench.training import augmentation, trainer
from normbench.training.data import ImageData
from normbench.training.recipes import Augmentation

Batches = Iterator[tuple[Tensor, Tensor]]


def _in_training(name: str, told: str) -> Callable[[Callable[[ImageData], ImageData]], None]:
    """Gather a fault in which an epoch's batches are drawn from other data."""

    def gather(change: Callable[[ImageData], ImageData]) -> None:
        @fault(name, "data", told)
        @instead_of(trainer, "training_batches")
        def _(
            original: Callable[..., Batches], data: ImageData, *given: Any, **named: Any
        ) -> Batches:
            return original(change(data), *given, **named)

    return gather


def _next_class(data: ImageData, every: int) -> ImageData:
    """Return the data with the next class as the label of one training image in ``every``."""
    labels = data.train_labels.clone()
    labels[::every] = (labels[::every] + 1) % (int(labels.max()) + 1)
    return dataclasses.replace(data, train_labels=labels)


@_in_training("labels-1-in-100", "One training image in 100 has the next class as its label.")
def _(data: ImageData) -> ImageData:
    return _next_class(data, 100)


@_in_training("labels-1-in-500", "One training image in 500 has the next class as its label.")
def _(data: ImageData) -> ImageData:
    return _next_class(data, 500)


@_in_training("class-missing", "The last class is not trained on: others stand in its place.")
def _(data: ImageData) -> ImageData:
    labels = data.train_labels
    others = (labels != labels.max()).nonzero().flatten()
    # as many as before, so that epochs have their length
    chosen = others[torch.arange(len(labels), device=labels.device) % max(1, len(others))]
    return dataclasses.replace(
        data, train_images=data.train_images[chosen], train_labels=labels[chosen]
    )


@_in_training("half-the-images", "The second half of the training images is never seen.")
def _(data: ImageData) -> ImageData:
    count = len(data.train_labels)
    chosen = torch.arange(count, device=data.train_labels.device) % max(1, count // 2)
    return dataclasses.replace(
        data, train_images=data.train_images[chosen], train_labels=data.train_labels[chosen]
    )


@fault(
    "last-batch-twice", "data", "The last batch of an epoch stands in the place of the one before."
)
@instead_of(trainer, "training_batches")
def _(original: Callable[..., Batches], *given: Any) -> Batches:
    held: deque[tuple[Tensor, Tensor]] = deque()
    for batch in original(*given):
        held.append(batch)
        if len(held) > 2:
            yield held.popleft()
    if held:
        yield held[-1]
    if len(held) > 1:
        yield held[-1]


@fault("mean-wrong", "data", "Images are brought to a mean that is not theirs: 0.5 is taken away.")
@instead_of(augmentation, "normalize_")
def _(original: Callable[..., Tensor], images: Tensor, _: float, std: float) -> Tensor:
    return original(images, 0.5, std)


@fault("deviation-wrong", "data", "Images are divided by half their deviation.")
@instead_of(augmentation, "normalize_")
def _(original: Callable[..., Tensor], images: Tensor, mean: float, std: float) -> Tensor:
    return original(images, mean, std / 2)


@fault("test-images-not-normalized", "data", "Test images keep their pixels from 0 to 1.")
@instead_of(trainer, "prepare_images")
def _(original: Callable[..., Tensor], images: Tensor, data: ImageData, size: int) -> Tensor:
    return original(images, dataclasses.replace(data, mean=0.0, std=1.0), size)


@fault("augmentation-at-test", "data", "Test images are shifted and turned at random.")
@instead_of(trainer, "prepare_images")
def _(original: Callable[..., Tensor], images: Tensor, data: ImageData, size: int) -> Tensor:
    generator = torch.Generator(images.device).manual_seed(0)
    changes = Augmentation(rotation=10, shift=images.shape[-1] / 16)
    moved = augmentation.augment(images.float(), changes, images.shape[-1], generator)
    return original(moved, data, size)


@fault("no-shuffling", "data", "Each epoch has the images in their stored order.")
@instead_of(torch, "randperm")
def _(_: Callable[..., Tensor], count: int, **named: Any) -> Tensor:
    return torch.arange(count, device=named.get("device"))


@fault("same-order", "data", "Each epoch has the images in the same random order.")
@instead_of(torch, "randperm")
def _(original: Callable[..., Tensor], count: int, **named: Any) -> Tensor:
    device = named.get("device") or "cpu"
    return original(count, **{**named, "generator": torch.Generator(device).manual_seed(0)})


@fault("affine-corners", "data", "The affine map takes its positions from pixels' middles.")
@instead_of(F, "grid_sample")
def _(original: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
    return original(*given, **{**named, "align_corners": not named.get("align_corners")})


@fault("affine-border", "data", "The affine map fills in the image's border, not the background.")
@instead_of(F, "grid_sample")
def _(original: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
    return original(*given, **{**named, "padding_mode": "border"})


@fault("crop-border-black", "data", "What a crop moves in is black, not the mirrored border.")
@instead_of(F, "pad")
def _(original: Callable[..., Tensor], images: Tensor, border: Any, **_: Any) -> Tensor:
    return original(images, border)


@fault("flip-every-image", "data", "Every image is mirrored, not one in two.")
@instead_of(augmentation, "random_flip")
def _(_: Callable[..., Tensor], images: Tensor, __: torch.Generator) -> Tensor:
    return images.flip(3)


@fault("flip-upside-down", "data", "Images are mirrored top to bottom.")
@instead_of(torch.Tensor, "flip")
def _(original: Callable[..., Tensor], images: Tensor, *axes: int) -> Tensor:
    return original(images, 2) if axes == (3,) else original(images, *axes)
