"""Published data sets, from scikit-learn and torchvision: loaded, checked, and downloaded."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normbench.training.datasets import (
    CIFAR10_CLASSES,
    DATASETS,
    ENVIRONMENT_VARIABLE,
    DatasetDamaged,
    DatasetUnavailable,
)
from normbench.training.image_data import ImageData, content_digest


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


# Images and labels to train on, then those to test on.
Parts = tuple[Tensor, Tensor, Tensor, Tensor]

# Bytes of a file: a header of 16 or 8, then a byte a pixel or a label.
MNIST_FILES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}


def mnist(root: Path) -> ImageData:
    """Return MNIST from torchvision's files under ``root/MNIST/raw``."""
    return ImageData("mnist", *_idx_parts("MNIST", root), mean=0.1307, std=0.3081)


def fashion_mnist(root: Path) -> ImageData:
    """Return Fashion-MNIST from torchvision's files under ``root/FashionMNIST/raw``."""
    return ImageData("fashion-mnist", *_idx_parts("FashionMNIST", root))


def kmnist(root: Path) -> ImageData:
    """Return Kuzushiji-MNIST from torchvision's files under ``root/KMNIST/raw``."""
    return ImageData("kmnist", *_idx_parts("KMNIST", root))


def _idx_parts(kind: str, root: Path) -> Parts:
    def part(train: bool) -> tuple[Tensor, Tensor]:
        dataset = getattr(_torchvision().datasets, kind)(root, train=train)
        return dataset.data.unsqueeze(1), dataset.targets.long()

    return *part(True), *part(False)


# How messages call what lies in files of MNIST's form, by the data sets' names.
TITLES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "kmnist": "Kuzushiji-MNIST"}


def _check_idx(name: str, root: Path) -> None:
    """Raise DatasetUnavailable where no file of MNIST's form is there.

    Raises DatasetDamaged where not all are whole, or where they are another data set's.
    """
    raw = root / DATASETS[name].folder
    missing = [file for file in MNIST_FILES if not (raw / file).is_file()]
    if len(missing) == len(MNIST_FILES):
        raise DatasetUnavailable(_not_there(TITLES[name], raw))
    if missing:
        raise DatasetDamaged(
            f"{raw} lacks {', '.join(missing)}: expected {', '.join(MNIST_FILES)}; "
            "remove the folder to have it downloaded again"
        )
    for file, expected in MNIST_FILES.items():
        if (size := (raw / file).stat().st_size) != expected:
            raise DatasetDamaged(
                f"{raw / file} has {size:,} bytes: expected {expected:,}; "
                "remove the file and the folder's others to have them downloaded again"
            )
    _require_published(name, raw)


def _require_published(name: str, raw: Path) -> None:
    """Raise DatasetDamaged where the files hold another content than the published ones.

    torchvision checks what it downloads, and never again: the files of one data set in the folder
    of another train well, and every case fails its target.
    """
    content, published = content_digest(_read_idx(name, raw)), DATASETS[name].content
    other = next((TITLES[each] for each in TITLES if content == DATASETS[each].content), "")
    if content == published or not (published or other):
        return
    expected = f"expected {published}, those of {TITLES[name]} as it was published; "
    raise DatasetDamaged(
        f"{raw} does not hold {TITLES[name]}: its images and labels have the fingerprint {content}"
        f"{f', which are those of {other}' if other else ''}: {expected if published else ''}"
        "remove the folder to have it downloaded again, or name another data root with "
        f"--bench-data DIR or ${ENVIRONMENT_VARIABLE}"
    )


def _read_idx(name: str, raw: Path) -> ImageData:
    """Return what files of MNIST's form hold, without torchvision."""

    def values(file: str) -> Tensor:
        if "images" in file:
            pixels = np.fromfile(raw / file, np.uint8, offset=16)
            return torch.from_numpy(pixels).view(-1, 1, 28, 28)
        return torch.from_numpy(np.fromfile(raw / file, np.uint8, offset=8)).long()

    train, train_labels, test, test_labels = map(values, MNIST_FILES)
    return ImageData(name, train, train_labels, test, test_labels, mean=0.0, std=1.0)


def _not_there(title: str, folder: Path) -> str:
    return (
        f"{title} is not in {folder}, and it could not be downloaded; name its folder with "
        f"--bench-data DIR or ${ENVIRONMENT_VARIABLE}, or run once with a network"
    )


SVHN_PARTS = ("train", "test")


def svhn(root: Path) -> ImageData:
    """Return the cropped Street View House Numbers from torchvision's files under ``root/SVHN``."""

    def part(split: str) -> tuple[Tensor, Tensor]:
        dataset = _torchvision().datasets.SVHN(root / "SVHN", split=split)
        return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels).long()

    return ImageData("svhn", *part("train"), *part("test"))


def check_svhn(root: Path) -> None:
    """Raise DatasetUnavailable where no file is there, DatasetDamaged where not all are whole."""
    files = _torchvision().datasets.SVHN.split_list
    sums = {name: md5 for _, name, md5 in (files[split] for split in SVHN_PARTS)}
    _require_md5("SVHN", root / "SVHN", sums)


def _download_svhn(root: Path) -> None:
    for split in SVHN_PARTS:
        _torchvision().datasets.SVHN(root / "SVHN", split=split, download=True)


def _require_md5(title: str, folder: Path, sums: dict[str, str]) -> None:
    """Raise DatasetUnavailable where no file is there, DatasetDamaged where an MD5 differs."""
    if not any((folder / name).is_file() for name in sums):
        raise DatasetUnavailable(_not_there(title, folder))
    check = _torchvision().datasets.utils.check_integrity
    if damaged := [name for name, md5 in sums.items() if not check(str(folder / name), md5)]:
        raise DatasetDamaged(
            f"{folder}: {', '.join(damaged)} are missing or not as published (their MD5 differs); "
            "remove the folder to have it downloaded again"
        )


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
    _require_md5("CIFAR-10", folder, sums)


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
    """Where a data set comes from: how to load it, to check its files, and to download it.

    ``shuffled`` says that its held-out part is drawn, and not the end of the training images.
    """

    load: Callable[[Path], ImageData]
    check: Callable[[Path], None] = lambda _: None
    download: Callable[[Path], None] | None = None
    shuffled: bool = True


def _idx_source(name: str, kind: str, load: Callable[[Path], ImageData]) -> Source:
    def download(root: Path) -> None:
        getattr(_torchvision().datasets, kind)(root, download=True)

    return Source(load, functools.partial(_check_idx, name), download, shuffled=False)


SOURCES: dict[str, Source] = {
    "digits": Source(digits),
    "mnist": _idx_source("mnist", "MNIST", mnist),
    "fashion-mnist": _idx_source("fashion-mnist", "FashionMNIST", fashion_mnist),
    "kmnist": _idx_source("kmnist", "KMNIST", kmnist),
    "svhn": Source(svhn, check_svhn, _download_svhn),
    "cifar10": Source(cifar10, check_cifar10, _download_cifar10),
    "cifar10-jpeg": Source(cifar10_jpeg, check_cifar10_jpeg),
}
