"""Data sets as whole tensors, from scikit-learn and torchvision."""

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import torch
from torch import Tensor

ENVIRONMENT_VARIABLE = "NORMBENCH_DATA"


class DatasetUnavailable(Exception):
    """A data set that is neither on disk nor to be downloaded."""


class DatasetDamaged(Exception):
    """A data set whose files are incomplete."""


@dataclass(frozen=True)
class ImageData:
    """A data set: images uint8 of ``(N, channels, height, width)``, labels int64 of ``(N,)``.

    ``mean`` and ``std`` are those of the training images' pixels on the scale from 0 to 1.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: float
    std: float

    def to(self, device: torch.device) -> "ImageData":
        return dataclasses.replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


def default_root() -> Path:
    """Return the data root: ``$NORMBENCH_DATA``, else the platform's cache folder."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or platformdirs.user_cache_path("normbench"))


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


HELD_OUT = 10_000

# Bytes of a file: a header of 16 or 8, then a byte a pixel or a label.
MNIST_FILES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}


def mnist(root: Path) -> ImageData:
    """Return MNIST from torchvision's files under ``root/MNIST/raw``."""
    check_mnist(root)
    train, test = (_torchvision_mnist(root, train=train) for train in (True, False))
    return ImageData("mnist", *train, *test, mean=0.1307, std=0.3081)


def mnist_heldout(root: Path) -> ImageData:
    """Return MNIST's training images alone, the last 10,000 of them held out as the test part.

    Recipes are chosen on it, so that the test images stay unseen until they are reported on.
    """
    images, labels = _torchvision_mnist(root, train=True)
    kept = slice(0, -HELD_OUT), slice(-HELD_OUT, None)
    (train, test), (train_labels, test_labels) = ([t[k] for k in kept] for t in (images, labels))
    return ImageData("mnist-heldout", train, train_labels, test, test_labels, 0.1307, 0.3081)


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
    training_images: int
    check: Callable[[Path], None] = lambda _: None
    download: Callable[[Path], None] | None = None


SOURCES: dict[str, Source] = {
    "digits": Source(digits, 1_348),
    "mnist": Source(mnist, 60_000, check_mnist, _download_mnist),
    "mnist-heldout": Source(mnist_heldout, 60_000 - HELD_OUT, check_mnist, _download_mnist),
}


def ensure_dataset(name: str, root: Path) -> None:
    """Make sure that the data set is whole under ``root``, downloading what is not there at all.

    Raises DatasetUnavailable and DatasetDamaged.
    """
    source = SOURCES[name]
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

    Raises DatasetUnavailable and DatasetDamaged.
    """
    return SOURCES[name].load(root).to(device)
