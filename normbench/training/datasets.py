"""What is known of each data set before it is loaded: sizes, classes, its place on disk."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from normbench.spec import RunSpec
from normbench.training.recipes import find_recipe

ENVIRONMENT_VARIABLE = "NORMBENCH_DATA"


class DatasetUnavailable(Exception):
    """A data set that is neither on disk nor to be downloaded."""


class DatasetDamaged(Exception):
    """A data set whose files are incomplete, or another one's."""


class DatasetUnusable(ValueError):
    """A data set of the user's own that cannot be had, or that is not as it has to be."""


def default_root() -> Path:
    """Return the data root: ``$NORMBENCH_DATA``, else the platform's cache folder."""
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("normbench")


# What follows a data set's name, of its training images alone, in part held out.
HELDOUT = "-heldout"

# What a folder of images of the user's own is named by, before its path.
FOLDER = "folder:"

FOLDER_SPELLING = f"{FOLDER}PATH"


@dataclass(frozen=True)
class Dataset:
    """A data set by its facts; normbench.training.data loads it.

    Its images are square, of ``image_size`` pixels a side.
    ``family`` is the data set that its images are, ``folder`` its place under the data root.
    ``fallback`` names the data set that is taken where this one is not on disk and that one is;
    ``classes`` are the names of the labels. ``content`` is the fingerprint of its images and
    labels, as data.content_digest computes it: of a built-in one that of what was published, in a
    document that of what runs were trained on, as far as it is known.
    """

    family: str
    training_images: int
    image_size: int
    image_channels: int = 1
    test_images: int = 10_000
    folder: str = ""
    fallback: str | None = None
    classes: tuple[str, ...] = tuple("0123456789")
    content: str = ""

    @property
    def marker(self) -> str:
        """The family as pytest's ``-m`` takes it: each run of other characters is a ``_``."""
        return re.sub(r"\W+", "_", self.family)

    @property
    def held_out(self) -> "Dataset":
        """The facts of the training images alone, held_out_count of them as the test part."""
        held = held_out_count(self.training_images)
        return replace(
            self,
            training_images=self.training_images - held,
            test_images=held,
            fallback=self.fallback and f"{self.fallback}{HELDOUT}",
            content="",
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.image_channels, self.image_size, self.image_size


def held_out_count(training_images: int) -> int:
    """Return how many training images are held out: 10,000 of 50,000 or more, else a sixth."""
    return 10_000 if training_images >= 50_000 else training_images // 6


CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

_CIFAR10 = Dataset(
    "cifar10",
    50_000,
    image_size=32,
    image_channels=3,
    folder="cifar-10-batches-py",
    fallback="cifar10-jpeg",
    classes=CIFAR10_CLASSES,
)

_WHOLE: dict[str, Dataset] = {
    "digits": Dataset("digits", 1_348, image_size=8, test_images=449),
    "mnist": Dataset(
        "mnist", 60_000, image_size=28, folder="MNIST/raw", content="b8632e0672f3021d"
    ),
    "fashion-mnist": Dataset(
        "fashion-mnist",
        60_000,
        image_size=28,
        folder="FashionMNIST/raw",
        classes=FASHION_MNIST_CLASSES,
        content="7342b1902b73000d",
    ),
    "kmnist": Dataset("kmnist", 60_000, image_size=28, folder="KMNIST/raw", classes=KMNIST_CLASSES),
    "svhn": Dataset(
        "svhn", 73_257, image_size=32, image_channels=3, test_images=26_032, folder="SVHN"
    ),
    "cifar10": _CIFAR10,
    "cifar10-jpeg": replace(
        _CIFAR10, folder="cifar10-jpeg", fallback=None, content="d66400f23a45af98"
    ),
}

# What is built in, each with its held-out part.
DATASETS: dict[str, Dataset] = {
    f"{name}{part}": facts.held_out if part else facts
    for name, facts in _WHOLE.items()
    for part in ("", HELDOUT)
}

# What is known of others in this process: data sets that were found, and those of documents.
_FOUND: dict[str, Dataset] = {}
_TOLD: dict[str, Dataset] = {}


def find_dataset(name: str) -> Dataset:
    """Return the facts of a data set: a built-in one, or one that this process has heard of.

    One of the user's own is heard of when cases that train on it are loaded, when it is loaded
    itself (data.known_dataset), and when a stored session or baseline is read that has its facts:
    those need neither the data nor the user's code. Raises ValueError for any other.
    """
    for known in (DATASETS, _FOUND, _TOLD):
        if name in known:
            return known[name]
    raise ValueError(unknown_dataset(name))


def unknown_dataset(name: str) -> str:
    """Say that a data set is not known, and what is."""
    known = ", ".join(name for name in DATASETS if not name.endswith(HELDOUT))
    return (
        f"unknown data set {name!r:.90}: expected one of {known}, {FOLDER_SPELLING} or "
        f"package.module:function, each of which may end in {HELDOUT}"
    )


def note_dataset(name: str, facts: Dataset) -> None:
    """Have this process know the facts of a data set of the user's own, as it was found."""
    _FOUND[name] = facts


def learn_datasets(told: dict[str, Dataset]) -> dict[str, Dataset]:
    """Have this process know what a document tells of data sets, and return that.

    What was found, and what an earlier document told, stays. Raises ValueError for what is no data
    set's.
    """
    for name, facts in told.items():
        sizes = (facts.training_images, facts.test_images, facts.image_size, facts.image_channels)
        if min(sizes) < 1 or len(facts.classes) < 2:
            raise ValueError(
                f"{name!r:.60}: expected numbers of images, their size and channels of 1 or more, "
                "and two classes or more"
            )
        _TOLD.setdefault(name, facts)
    return told


def facts_of(names: Iterable[str]) -> dict[str, Dataset]:
    """Return the facts of data sets by their names, for a document."""
    return {name: find_dataset(name) for name in sorted(set(names))}


def facts_with_contents(contents: Mapping[str, Collection[str]]) -> dict[str, Dataset]:
    """Return the facts of data sets with the fingerprints that runs on them have, for a document.

    Several of one name, where the data have changed meanwhile, are joined by ``+``.
    """
    return {
        name: replace(facts, content="+".join(sorted(contents[name])))
        for name, facts in facts_of(contents).items()
    }


def is_own(name: str) -> bool:
    """Tell whether the name spells a data set of the user's own: a folder, or a function."""
    return name not in DATASETS and ":" in name


def whole_name(name: str) -> str:
    """Return the name of the data set of which ``name`` may be the held-out variant."""
    return name.removesuffix(HELDOUT)


def training_images(spec: RunSpec) -> int:
    """Return how many images a run of ``spec`` trains on."""
    return spec.train_images or find_dataset(spec.dataset).training_images


def images_per_epoch(spec: RunSpec) -> list[int]:
    """Return how many of them each epoch has; raises ValueError for an unknown recipe."""
    selection, count = find_recipe(spec.recipe).selection, training_images(spec)
    return [selection.images(count, epoch) for epoch in range(spec.epochs)]


def dataset_on_disk(name: str, root: Path) -> str:
    """Return the data set's name, or that of its stand-in where only the stand-in is on disk.

    Looks for folders alone, as it is asked in every process while tests are collected.
    """
    facts = find_dataset(name)
    if facts.fallback is None or (root / facts.folder).is_dir():
        return name
    return facts.fallback if (root / find_dataset(facts.fallback).folder).is_dir() else name
