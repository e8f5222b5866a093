"""Data sets by their names: published ones, folders of images, and what a function returns."""

import dataclasses
import functools
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from normbench.locks import locked
from normbench.models.factories import accepted, named_object, signature_problem, told
from normbench.training.datasets import (
    FOLDER,
    HELDOUT,
    Dataset,
    DatasetUnavailable,
    DatasetUnusable,
    find_dataset,
    is_own,
    note_dataset,
    unknown_dataset,
    whole_name,
)
from normbench.training.image_data import ImageData, content_digest, held_out, require_usable
from normbench.training.sources import SOURCES, Source

if TYPE_CHECKING:
    from normbench.training.folders import ImageFolder

# Seconds until a download that failed is tried again.
DOWNLOAD_PAUSES = (2.0, 10.0)

__all__ = ["ImageData", "ensure_dataset", "known_dataset", "load_dataset"]


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
            with locked(root / f".{whole_name(name)}.lock"):
                _download(source.download, root)
        except (OSError, RuntimeError) as error:
            raise DatasetUnavailable(f"{unavailable} ({type(error).__name__}: {error})") from error
        source.check(root)


def _download(download: Callable[[Path], None], root: Path) -> None:
    """Download beside, and move what came to its place: who is killed leaves no half of it there.

    torchvision checks what it gets against checksums, and raises RuntimeError where they differ.
    It is asked again, unless there is no network.
    """
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as beside:
        for pause in (*DOWNLOAD_PAUSES, None):
            try:
                download(Path(beside))
                break
            except (OSError, RuntimeError) as error:
                if pause is None or isinstance(getattr(error, "reason", None), socket.gaierror):
                    raise
                time.sleep(pause)
        for file in filter(Path.is_file, Path(beside).rglob("*")):
            place = root / file.relative_to(beside)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


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
