"""The test images that a session's report shows, kept in its folder when it ends."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "pictures"


@dataclass(frozen=True)
class StoredPictures:
    """Test images of one data set: uint8 of ``(N, height, width, channels)``.

    ``indices`` are their places in the test set, ``labels`` their classes.
    """

    images: np.ndarray[Any, Any]
    indices: tuple[int, ...]
    labels: tuple[int, ...]


def store_pictures(folder: Path, dataset: str, pictures: StoredPictures) -> None:
    """Write the images of a data set below a session's folder."""
    (folder / FOLDER).mkdir(exist_ok=True)
    np.savez_compressed(
        folder / FOLDER / f"{_file_name(dataset)}.npz",
        dataset=np.array(dataset),
        images=pictures.images,
        indices=np.array(pictures.indices),
        labels=np.array(pictures.labels),
    )


def _file_name(dataset: str) -> str:
    """Return a data set's name as a file's: one with a path or a colon is told by a digest too."""
    plain = re.sub(r"[^\w.-]+", "_", dataset)
    digest = hashlib.sha256(dataset.encode()).hexdigest()[:8]
    return dataset if plain == dataset else f"{plain[-60:]}-{digest}"


def read_pictures(folder: Path) -> dict[str, StoredPictures]:
    """Return the stored images by data set; what cannot be read is left out."""
    return dict(_readable(sorted((folder / FOLDER).glob("*.npz"))))


def _readable(files: Iterable[Path]) -> Iterable[tuple[str, StoredPictures]]:
    for file in files:
        try:
            # opened here, as numpy leaves open what it cannot read
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                # older ones are known by their file's name alone
                name = str(stored["dataset"]) if "dataset" in stored else file.stem
                yield name, _pictures(stored)
        except Exception:
            # of a damaged file numpy, zipfile and zlib raise a dozen kinds, such as zlib.error
            continue


def _pictures(stored: Mapping[str, Any]) -> StoredPictures:
    return StoredPictures(
        stored["images"], tuple(stored["indices"].tolist()), tuple(stored["labels"].tolist())
    )
