"""What is known of each data set before it is loaded: sizes, classes, its place on disk."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from normbench.spec import RunSpec

ENVIRONMENT_VARIABLE = "NORMBENCH_DATA"


class DatasetUnavailable(Exception):
    """A data set that is neither on disk nor to be downloaded."""


class DatasetDamaged(Exception):
    """A data set whose files are incomplete."""


def default_root() -> Path:
    """Return the data root: ``$NORMBENCH_DATA``, else the platform's cache folder."""
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("normbench")


@dataclass(frozen=True)
class Dataset:
    """A data set by its facts; normbench.training.data loads it.

    Its images are square, of ``image_size`` pixels a side.
    ``family`` is the data set that its images are, by which pytest's ``-m`` selects; ``folder``
    is its place under the data root. ``fallback`` names the data set that is taken where this one
    is not on disk and that one is; ``classes`` are the names of the labels.
    """

    family: str
    training_images: int
    image_size: int
    image_channels: int = 1
    test_images: int = 10_000
    folder: str = ""
    fallback: str | None = None
    classes: tuple[str, ...] = tuple("0123456789")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.image_channels, self.image_size, self.image_size


# Images at the end of a training set that are held out as a test part.
HELD_OUT = 10_000

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

_MNIST = Dataset("mnist", 60_000, image_size=28, folder="MNIST/raw")
_CIFAR10 = Dataset(
    "cifar10",
    50_000,
    image_size=32,
    image_channels=3,
    folder="cifar-10-batches-py",
    fallback="cifar10-jpeg",
    classes=CIFAR10_CLASSES,
)
_JPEG = replace(_CIFAR10, folder="cifar10-jpeg", fallback=None)

DATASETS: dict[str, Dataset] = {
    "digits": Dataset("digits", 1_348, image_size=8, test_images=449),
    "mnist": _MNIST,
    "mnist-heldout": replace(_MNIST, training_images=60_000 - HELD_OUT),
    "cifar10": _CIFAR10,
    "cifar10-jpeg": _JPEG,
    "cifar10-jpeg-heldout": replace(_JPEG, training_images=50_000 - HELD_OUT),
}


def find_dataset(name: str) -> Dataset:
    """Return the facts of the data set called ``name``; raises ValueError where there is none."""
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name]


def images_per_epoch(spec: RunSpec) -> int:
    """Return how many images an epoch of ``spec`` has."""
    return spec.train_images or DATASETS[spec.dataset].training_images


def dataset_on_disk(name: str, root: Path) -> str:
    """Return the data set's name, or that of its stand-in where only the stand-in is on disk.

    Looks for folders alone, as it is asked in every process while tests are collected.
    """
    fallback = DATASETS[name].fallback
    if fallback is None or (root / DATASETS[name].folder).is_dir():
        return name
    return fallback if (root / DATASETS[fallback].folder).is_dir() else name
