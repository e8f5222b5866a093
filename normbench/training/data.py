"""Data sets as whole tensors, from scikit-learn and torchvision."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor

from normbench.training.datasets import (
    CIFAR10_CLASSES,
    ENVIRONMENT_VARIABLE,
    HELD_OUT,
    DatasetDamaged,
    DatasetUnavailable,
)


@dataclass(frozen=True)
class ImageData:
    """A data set: images uint8 of ``(N, channels, height, width)``, labels int64 of ``(N,)``.

    ``mean`` and ``std`` are those of the training images' pixels on the scale from 0 to 1, over
    all channels alike.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: float
    std: float

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


def digits(_: Path) -> ImageData:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels: 1,348 to train, every fourth to test.

    The test part is 449 images, so that its accuracy comes in steps of 0.22 points.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    test = torch.arange(len(images)) % 4 == 3
    return ImageData(
        "digits", images[~test], labels[~test], images[test], labels[test], mean=0.305, std=0.376
    )


# Bytes of a file: a header of 16 or 8, then a byte a pixel or a label.
MNIST_FILES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}


def mnist(root: Path) -> ImageData:
    """Return MNIST from torchvision's files under ``root/MNIST/raw``."""
    train, test = (_torchvision_mnist(root, train=train) for train in (True, False))
    return ImageData("mnist", *train, *test, mean=0.1307, std=0.3081)


def held_out(data: ImageData, order: Tensor | None = None) -> ImageData:
    """Return the training images alone, the last 10,000 of them held out as the test part.

    Recipes are chosen on it, so that the test images stay unseen until they are reported on.
    ``order`` shuffles the training images first, where they lie sorted by class.
    """
    images, labels = data.train_images, data.train_labels
    if order is not None:
        images, labels = images[order], labels[order]
    kept, held = slice(0, -HELD_OUT), slice(-HELD_OUT, None)
    return dataclasses.replace(
        data,
        name=f"{data.name}-heldout",
        train_images=images[kept],
        train_labels=labels[kept],
        test_images=images[held],
        test_labels=labels[held],
    )


def mnist_heldout(root: Path) -> ImageData:
    """Return MNIST's training images, in part held out."""
    return held_out(mnist(root))


def check_mnist(root: Path) -> None:
    """Raise DatasetUnavailable where no file is there, DatasetDamaged where not all are whole."""
    raw = root / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (raw / name).is_file()]
    if len(missing) == len(MNIST_FILES):
        raise DatasetUnavailable(
            f"MNIST is not in {raw}, and it could not be downloaded; name its folder with "
            f"--bench-data DIR or ${ENVIRONMENT_VARIABLE}, or run once with a network"
        )
    if missing:
        raise DatasetDamaged(
            f"{raw} lacks {', '.join(missing)}: expected {', '.join(MNIST_FILES)}; "
            "remove the folder to have it downloaded again"
        )
    for name, expected in MNIST_FILES.items():
        if (size := (raw / name).stat().st_size) != expected:
            raise DatasetDamaged(
                f"{raw / name} has {size:,} bytes: expected {expected:,}; "
                "remove the file and the folder's others to have them downloaded again"
            )


def _download_mnist(root: Path) -> None:
    _torchvision().datasets.MNIST(root, download=True)


def _torchvision_mnist(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    dataset = _torchvision().datasets.MNIST(root, train=train)
    return dataset.data.unsqueeze(1), dataset.targets.long()


# Over the training images' pixels, all channels together.
CIFAR10_MEAN, CIFAR10_STD = 0.473, 0.251
CIFAR10_PARTS = {"train": 50_000, "test": 10_000}


def cifar10(root: Path) -> ImageData:
    """Return CIFAR-10 from torchvision's files under ``root/cifar-10-batches-py``."""

    def part(train: bool) -> tuple[Tensor, Tensor]:
        dataset = _torchvision().datasets.CIFAR10(root, train=train)
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)
        return images.contiguous(), torch.tensor(dataset.targets)

    return ImageData("cifar10", *part(True), *part(False), CIFAR10_MEAN, CIFAR10_STD)


def check_cifar10(root: Path) -> None:
    """Raise DatasetUnavailable where no file is there, DatasetDamaged where not all are whole."""
    dataset = _torchvision().datasets.CIFAR10
    folder = root / dataset.base_folder
    sums = dict([*dataset.train_list, *dataset.test_list])
    sums[dataset.meta["filename"]] = dataset.meta["md5"]
    if not any((folder / name).is_file() for name in sums):
        raise DatasetUnavailable(
            f"CIFAR-10 is not in {folder}, and it could not be downloaded; name its folder with "
            f"--bench-data DIR or ${ENVIRONMENT_VARIABLE}, or run once with a network"
        )
    check = _torchvision().datasets.utils.check_integrity
    if damaged := [name for name, md5 in sums.items() if not check(str(folder / name), md5)]:
        raise DatasetDamaged(
            f"{folder}: {', '.join(damaged)} are missing or not as published (their MD5 differs); "
            "remove the folder to have it downloaded again"
        )


def _download_cifar10(root: Path) -> None:
    _torchvision().datasets.CIFAR10(root, download=True)


def cifar10_jpeg(root: Path) -> ImageData:
    """Return CIFAR-10 as a JPEG copy under ``root/cifar10-jpeg/{train,test}/<class>/*.jpg``.

    Its pixels are not those of the original, so neither are the results: they carry its name.
    """
    parts = [_decoded(root / "cifar10-jpeg" / part) for part in CIFAR10_PARTS]
    (train, train_labels), (test, test_labels) = parts
    return ImageData(
        "cifar10-jpeg", train, train_labels, test, test_labels, CIFAR10_MEAN, CIFAR10_STD
    )


def cifar10_jpeg_heldout(root: Path) -> ImageData:
    """Return the JPEG copy's training images, in part held out."""
    shuffled = torch.Generator().manual_seed(0)
    order = torch.randperm(CIFAR10_PARTS["train"], generator=shuffled)
    return held_out(cifar10_jpeg(root), order)


def _decoded(folder: Path) -> tuple[Tensor, Tensor]:
    """Decode a folder of one folder of JPEG images a class; the classes in alphabetical order."""
    files = _torchvision().datasets.ImageFolder(folder)
    images = torch.from_numpy(np.stack([np.asarray(files.loader(f)) for f, _ in files.samples]))
    return images.permute(0, 3, 1, 2).contiguous(), torch.tensor(files.targets)


def check_cifar10_jpeg(root: Path) -> None:
    """Raise DatasetUnavailable where it is not there, DatasetDamaged where an image is not whole.

    A whole JPEG file ends in the marker FF D9.
    """
    copy = root / "cifar10-jpeg"
    if not copy.is_dir():
        raise DatasetUnavailable(
            f"{copy} is not there: expected {{train,test}}/<class>/*.jpg; name the folder that "
            f"it lies in with --bench-data DIR or ${ENVIRONMENT_VARIABLE}"
        )
    for part, expected in CIFAR10_PARTS.items():
        files = sorted((copy / part).glob("*/*.jpg"))
        classes = len({file.parent for file in files})
        if len(files) != expected or classes != len(CIFAR10_CLASSES):
            raise DatasetDamaged(
                f"{copy / part} holds {len(files):,} images of {classes} classes: expected "
                f"{expected:,} of {len(CIFAR10_CLASSES)}; unpack the copy again"
            )
        if cut := next((f for f in files if not f.read_bytes().endswith(b"\xff\xd9")), None):
            raise DatasetDamaged(
                f"{cut} is truncated: expected a JPEG image, which ends in FF D9; "
                "unpack the copy again"
            )


def _torchvision() -> Any:
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise DatasetUnavailable(
            f"torchvision does not work with torch {torch.__version__} ({error}); install the "
            "torchvision that pairs with it (torch 2.13 with torchvision 0.28, both CPU-only or "
            "neither), or torchvision 0.29.1 and later with torch 2.14 and later"
        ) from error
    return torchvision


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: how to load it, to check its files, and to download it."""

    load: Callable[[Path], ImageData]
    check: Callable[[Path], None] = lambda _: None
    download: Callable[[Path], None] | None = None


_MNIST = Source(mnist, check_mnist, _download_mnist)
_JPEG = Source(cifar10_jpeg, check_cifar10_jpeg)

SOURCES: dict[str, Source] = {
    "digits": Source(digits),
    "mnist": _MNIST,
    "mnist-heldout": dataclasses.replace(_MNIST, load=mnist_heldout),
    "cifar10": Source(cifar10, check_cifar10, _download_cifar10),
    "cifar10-jpeg": _JPEG,
    "cifar10-jpeg-heldout": dataclasses.replace(_JPEG, load=cifar10_jpeg_heldout),
}


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[name]


def ensure_dataset(name: str, root: Path) -> None:
    """Make sure that the data set is whole under ``root``, downloading what is not there at all.

    Raises DatasetUnavailable and DatasetDamaged, and ValueError for an unknown name.
    """
    source = _source(name)
    try:
        source.check(root)
    except DatasetUnavailable as unavailable:
        if source.download is None:
            raise
        try:
            root.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(root / f".{name}.lock"):
                source.download(root)
        except (OSError, RuntimeError) as error:
            raise DatasetUnavailable(f"{unavailable} ({type(error).__name__}: {error})") from error
        source.check(root)


@functools.lru_cache(maxsize=4)
def load_dataset(name: str, root: Path, device: torch.device) -> ImageData:
    """Return the data set's tensors on ``device``; they are shared, so nobody may write to them.

    Raises DatasetUnavailable and DatasetDamaged, and ValueError for an unknown name.
    """
    source = _source(name)
    source.check(root)
    return source.load(root).to(device)
