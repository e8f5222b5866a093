"""A data set as whole tensors: what it must be, its statistics, fingerprint and held-out part."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from normbench.training.datasets import HELDOUT, DatasetUnusable, held_out_count


@dataclass(frozen=True)
class ImageData:
    """A data set: images uint8 of ``(N, channels, height, width)``, labels int64 of ``(N,)``.

    Images are square, grey or of three channels; labels count from 0, and ``classes`` are their
    names, which may be left out. ``mean`` and ``std`` are those of the training images' pixels on
    the scale from 0 to 1, over all channels alike; where they are left out, they are computed.
    ``content`` is the fingerprint of images and labels; loading fills it in.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: float = math.nan
    std: float = math.nan
    classes: tuple[str, ...] = ()
    content: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.classes, list):
            object.__setattr__(self, "classes", tuple(self.classes))
        # images of another kind are told of by require_usable
        images = self.train_images
        usable = isinstance(images, Tensor) and images.dtype is torch.uint8 and images.numel()
        # nan is what differs from itself, whatever else may have been given
        lacking = [name for name in ("mean", "std") if getattr(self, name) != getattr(self, name)]
        if usable and lacking:
            found = dict(zip(("mean", "std"), pixel_statistics(images), strict=True))
            for name in lacking:
                object.__setattr__(self, name, found[name])

    def training_part(self, count: int, generator: torch.Generator) -> "ImageData":
        """Return the data set with ``count`` random training images in place of all."""
        order = torch.randperm(len(self.train_labels), generator=generator, device=generator.device)
        chosen = order[:count]
        return dataclasses.replace(
            self, train_images=self.train_images[chosen], train_labels=self.train_labels[chosen]
        )

    def to(self, device: torch.device) -> "ImageData":
        return dataclasses.replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


def pixel_statistics(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of uint8 pixels on the scale from 0 to 1, in float64."""
    counts = torch.bincount(images.flatten(), minlength=256).double().cpu()
    share = counts / counts.sum()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (share * levels).sum()
    return mean.item(), (share * (levels - mean) ** 2).sum().sqrt().item()


def content_digest(data: ImageData) -> str:
    """Return a fingerprint of the images and labels: 16 hexadecimal digits of SHA-256.

    It is over the shape and the bytes of each of the four tensors, images as uint8 and labels as
    int64, little-endian; so it is the same wherever the data are. MNIST takes 0.03 s.
    """
    digest = hashlib.sha256()
    for tensor in (data.train_images, data.train_labels, data.test_images, data.test_labels):
        array = np.ascontiguousarray(tensor.cpu().numpy())
        digest.update(f"{array.shape} ".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()[:16]


def held_out(data: ImageData, shuffled: bool = True) -> ImageData:
    """Return the training images alone, held_out_count of them held out as the test part.

    Recipes are chosen on it, so that the test images stay unseen until they are reported on.
    They are the last ones, of an order that is ``shuffled`` first, always in the same way, where
    they may lie sorted by class.
    """
    images, labels = data.train_images, data.train_labels
    if shuffled:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        images, labels = images[order], labels[order]
    count = len(labels) - held_out_count(len(labels))
    kept, held = slice(0, count), slice(count, None)
    return dataclasses.replace(
        data,
        name=f"{data.name}{HELDOUT}",
        train_images=images[kept],
        train_labels=labels[kept],
        test_images=images[held],
        test_labels=labels[held],
    )


def require_usable(name: str, data: object) -> ImageData:
    """Return the data; raises DatasetUnusable, in one line, for what cannot be trained on."""
    if not isinstance(data, ImageData):
        raise DatasetUnusable(
            f"data set {name!r} is a {type(data).__name__}: expected "
            "normbench.training.data.ImageData"
        )
    if (problem := next(_problems(data), None)) is not None:
        raise DatasetUnusable(f"data set {name!r}: {problem}")
    return data


def _problems(data: ImageData) -> Iterator[str]:
    """Tell what keeps a data set from being trained on; later ones rest on the earlier."""
    for part in ("train", "test"):
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        yield from _of_tensor(f"{part}_images", images, torch.uint8, "(N, channels, size, size)", 4)
        yield from _of_tensor(f"{part}_labels", labels, torch.int64, "(N,)", 1)
        if len(images) != len(labels) or not len(images):
            yield (
                f"{part}_images has {len(images)} images and {part}_labels {len(labels)} labels: "
                "expected as many of both, one or more"
            )
    yield from _of_images(data)
    yield from _of_labels(data)
    # pixels from 0 to 1 have a mean there, and deviate from it by no more than a half
    numbers = all(isinstance(number, int | float) for number in (data.mean, data.std))
    if not (numbers and 0 <= data.mean <= 1 and 0 < data.std <= 0.5):
        yield (
            f"mean = {data.mean!r:.60} and std = {data.std!r:.60}: expected one number each for "
            "all channels, of pixels from 0 to 1: a mean from 0 to 1, a deviation above 0 and at "
            "most 0.5; leave them out to have them computed"
        )


def _of_tensor(
    field: str, value: object, dtype: torch.dtype, shape: str, dimensions: int
) -> Iterator[str]:
    expected = f"expected a tensor of {dtype} and the shape {shape}"
    if not isinstance(value, Tensor):
        yield f"{field} is a {type(value).__name__}: {expected}"
    elif value.dtype is not dtype or value.ndim != dimensions:
        yield f"{field} is of {value.dtype} and the shape {tuple(value.shape)}: {expected}"


def _of_images(data: ImageData) -> Iterator[str]:
    train, test = (tuple(i.shape[1:]) for i in (data.train_images, data.test_images))
    channels, height, width = train
    if train != test:
        yield f"its images to train on are {train}, those to test on {test}: expected one shape"
    if channels not in (1, 3) or height != width or not height:
        yield f"its images are {train}: expected 1 or 3 channels, and as high as wide"


def _of_labels(data: ImageData) -> Iterator[str]:
    count = max(int(labels.max()) for labels in (data.train_labels, data.test_labels)) + 1
    names, least = data.classes, min(int(data.train_labels.min()), int(data.test_labels.min()))
    if names and not all(isinstance(name, str) for name in names):
        yield f"classes = {names!r:.90}: expected the classes' names as texts"
    classes = len(names) or count
    if least < 0 or count > classes or classes < 2:
        yield (
            f"its labels are from {least} to {count - 1}: expected 0 to the number of classes less "
            f"1, of two classes or more{f', and it names {len(names)}' if names else ''}"
        )
    missing = set(range(classes)) - set(data.train_labels.unique().tolist())
    if missing:
        yield f"train_labels has no image of the class {min(missing)}: expected one or more of each"
