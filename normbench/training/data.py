"""Data sets as whole tensors, from scikit-learn, torchvision, and what the user has."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import torch
from torch import Tensor

from normbench.models.factories import accepted, named_object, signature_problem, told
from normbench.training.datasets import (
    CIFAR10_CLASSES,
    DATASETS,
    ENVIRONMENT_VARIABLE,
    FOLDER,
    HELDOUT,
    Dataset,
    DatasetDamaged,
    DatasetUnavailable,
    DatasetUnusable,
    find_dataset,
    held_out_count,
    is_own,
    note_dataset,
    unknown_dataset,
    whole_name,
)

if TYPE_CHECKING:
    from normbench.training.folders import ImageFolder


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


def _source(name: str) -> Source:
    """Return where a data set, or that of which it is the held-out variant, comes from."""
    whole = whole_name(name)
    if whole in SOURCES:
        return SOURCES[whole]
    if not is_own(whole):
        raise ValueError(unknown_dataset(name))
    load = folder_images if whole.startswith(FOLDER) else own_images
    return Source(functools.partial(load, whole))


def folder_images(name: str, root: Path) -> ImageData:
    """Return the images of ``folder:PATH``, a path that is absolute or below the data root.

    Raises DatasetUnusable as folders.ImageFolder does.
    """
    files = _image_folder(name, root)
    facts = files.facts(name)

    def part(name: str) -> tuple[Tensor, Tensor]:
        images, labels = files.decoded(name, facts)
        return torch.from_numpy(images), torch.from_numpy(labels)

    return ImageData(name, *part("train"), *part("test"), classes=files.classes)


def _image_folder(name: str, root: Path) -> "ImageFolder":
    # Pillow is imported where there are images to decode
    from normbench.training.folders import ImageFolder

    path = name.removeprefix(FOLDER)
    if not path.strip():
        raise DatasetUnusable(f"{name!r} has no path: expected one such as folder:flowers")
    return ImageFolder.of(root / Path(path).expanduser())


def own_images(name: str, root: Path) -> ImageData:
    """Return what the user's function ``package.module:function`` returns.

    It is called with the data root where it has a parameter called ``root``, or needs an argument.
    Raises DatasetUnusable, in one line, for what cannot be imported or called, for whatever it
    raises, and for what it returns if that cannot be trained on.
    """
    known = ", ".join((*SOURCES, f"{FOLDER}PATH"))
    load = named_object(name, "data set", known, DatasetUnusable)
    given: dict[str, Any] = {"root": root} if accepted(load, ["root"]) else {}
    positional = () if given or signature_problem(load) is None else (root,)
    if not callable(load) or (problem := signature_problem(load, *positional, **given)):
        why = problem if callable(load) else f"it is a {type(load).__name__}"
        raise DatasetUnusable(
            f"data set {name!r} cannot be called with the data root, nor with nothing: {why}; "
            "expected a function such as `def load(root): ...` that returns ImageData"
        )
    try:
        data = load(*positional, **given)
    except (Exception, SystemExit) as error:
        raise DatasetUnusable(
            f"data set {name!r} cannot be loaded: it raised {told(error):.300}; expected a "
            "function that returns normbench.training.data.ImageData"
        ) from error
    return require_usable(name, data)


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


def known_dataset(name: str, root: Path) -> Dataset:
    """Return a data set's facts before it is trained on, and have this process know them.

    A folder of the user's own is listed, and its first image looked at; what a function returns is
    loaded, once a process. Raises ValueError for a name that is unknown, and DatasetUnusable.
    """
    if not is_own(name):
        return find_dataset(name)
    whole = whole_name(name)
    if whole.startswith(FOLDER):
        facts = _image_folder(whole, root).facts(whole)
    else:
        facts = _facts(whole, _own_data(whole, root))
    note_dataset(whole, facts)
    note_dataset(f"{whole}{HELDOUT}", facts.held_out)
    return find_dataset(name)


def _facts(name: str, data: ImageData) -> Dataset:
    channels, size, _ = data.train_images.shape[1:]
    labels = map(str, range(int(data.train_labels.max()) + 1))
    return Dataset(
        name,
        training_images=len(data.train_labels),
        image_size=size,
        image_channels=channels,
        test_images=len(data.test_labels),
        classes=data.classes or tuple(labels),
    )


@functools.lru_cache(maxsize=4)
def _own_data(name: str, root: Path) -> ImageData:
    return _source(name).load(root)


def ensure_dataset(name: str, root: Path) -> None:
    """Make sure that the data set is whole under ``root``, downloading what is not there at all.

    Raises DatasetUnavailable and DatasetDamaged, DatasetUnusable for one of the user's own, which
    is loaded for it, and ValueError for an unknown name.
    """
    source = _source(name)
    if is_own(name):
        load_dataset(name, root, torch.device("cpu"))
        return
    try:
        source.check(root)
    except DatasetUnavailable as unavailable:
        if source.download is None:
            raise
        try:
            root.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(root / f".{whole_name(name)}.lock"):
                source.download(root)
        except (OSError, RuntimeError) as error:
            raise DatasetUnavailable(f"{unavailable} ({type(error).__name__}: {error})") from error
        source.check(root)


@functools.lru_cache(maxsize=4)
def load_dataset(name: str, root: Path, device: torch.device) -> ImageData:
    """Return the data set's tensors on ``device``; they are shared, so nobody may write to them.

    Raises DatasetUnavailable and DatasetDamaged, DatasetUnusable for one of the user's own, and
    ValueError for an unknown name.
    """
    source, whole = _source(name), whole_name(name)
    if is_own(name):
        data = _own_data(whole, root)
        known_dataset(name, root)
    else:
        source.check(root)
        data = source.load(root)
    if name != whole:
        data = held_out(data, source.shuffled)
    data = dataclasses.replace(data, name=name)
    return dataclasses.replace(data, content=content_digest(data)).to(device)
