"""A folder of images of the user's own: train/ and test/, each with one folder a class."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from normbench.training.datasets import Dataset, DatasetUnusable

PARTS = ("train", "test")

LAYOUT = "{train,test}/<class>/*.png"

EXTENSIONS = {
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
}

# The modes of Pillow that are taken as grey, and as red, green and blue; each holds eight bits.
GREY = {"1", "L", "LA"}
COLOURED = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}


@dataclass(frozen=True)
class ImageFolder:
    """The classes of a folder, and the files of each part with their labels, in a fixed order.

    Classes and files come in the order of their names. Files of other kinds than EXTENSIONS, and
    those whose names begin with a dot, are no images.
    """

    folder: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[Path, int]]]

    @classmethod
    def of(cls, folder: Path) -> "ImageFolder":
        """List a folder; raises DatasetUnusable, in one line, where it is none of LAYOUT."""
        if not folder.is_dir():
            raise DatasetUnusable(
                f"{folder} is not there: expected a folder with {LAYOUT}; a path that is not "
                "absolute is looked for in the data root, which --bench-data DIR names"
            )
        classes = {part: _folders(folder / part) for part in PARTS}
        train, test = (set(classes[part]) for part in PARTS)
        for part, lacking in (("train", test - train), ("test", train - test)):
            if lacking:
                raise DatasetUnusable(
                    f"{folder / part} has no folder {min(lacking)!r}, as the other part has: "
                    f"expected the same classes in both ({LAYOUT})"
                )
        if len(train) < 2:
            raise DatasetUnusable(
                f"{folder / 'train'} has {len(train)} class{'es' * (len(train) != 1)}: expected "
                f"two or more folders ({LAYOUT})"
            )
        names = tuple(classes["train"])
        return cls(folder, names, {part: list(_files(folder / part, names)) for part in PARTS})

    def facts(self, family: str) -> Dataset:
        """Return what is known of it by its first image and the names of the others."""
        first, _ = self.files["train"][0]
        image = _opened(first)
        width, height = image.size
        if width != height:
            raise DatasetUnusable(
                f"{first} is {width} pixels wide and {height} high: expected "
                "square images, all of one size; crop or scale them"
            )
        return Dataset(
            family,
            training_images=len(self.files["train"]),
            image_size=width,
            image_channels=_channels(first, image),
            test_images=len(self.files["test"]),
            classes=self.classes,
        )

    def decoded(self, part: str, facts: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return a part's images, uint8 of ``(N, channels, size, size)``, and their labels.

        Raises DatasetUnusable that names the first image which is not as the facts say, or that
        cannot be decoded.
        """
        size, channels = facts.image_size, facts.image_channels
        images = np.empty((len(self.files[part]), size, size, channels), dtype=np.uint8)
        for place, (file, _) in enumerate(self.files[part]):
            image = _read(file)
            found = (_channels(file, image), *image.size)
            if found != (channels, size, size):
                raise DatasetUnusable(
                    f"{file} has {_told(*found)}: expected {_told(channels, size, size)}, as "
                    f"{self.files['train'][0][0]} has; images of a folder are of one size and all "
                    "grey or all coloured"
                )
            converted = image.convert("L" if channels == 1 else "RGB")
            images[place] = np.asarray(converted).reshape(size, size, channels)
        labels = np.array([label for _, label in self.files[part]], dtype=np.int64)
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels


def _folders(part: Path) -> list[str]:
    if not part.is_dir():
        raise DatasetUnusable(f"{part} is not there: expected {LAYOUT} in {part.parent}")
    return sorted(
        each.name for each in part.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def _files(part: Path, classes: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    for label, name in enumerate(classes):
        files = sorted(
            file
            for file in (part / name).iterdir()
            if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
        )
        if not files:
            raise DatasetUnusable(
                f"{part / name} has no image: expected one or more files whose names end in "
                f"{', '.join(sorted(EXTENSIONS))}"
            )
        yield from ((file, label) for file in files)


def _opened(file: Path) -> Image.Image:
    """Read an image's size and mode alone."""
    try:
        with Image.open(file) as image:
            return image
    except (OSError, Image.DecompressionBombError) as error:
        raise DatasetUnusable(_undecodable(file, error)) from error


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.load()
            # a palette may hold transparency, which Pillow warns of
            return image.convert("RGBA") if image.mode == "P" else image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetUnusable(_undecodable(file, error)) from error


def _undecodable(file: Path, error: Exception) -> str:
    told = " ".join(str(error).split())
    return f"{file} cannot be decoded: {told:.200}; expected an image that Pillow reads"


def _channels(file: Path, image: Image.Image) -> int:
    if image.mode in GREY:
        return 1
    if image.mode in COLOURED:
        return 3
    raise DatasetUnusable(
        f"{file} has pixels of Pillow's mode {image.mode!r}: expected eight bits, grey or coloured"
    )


def _told(channels: int, width: int, height: int) -> str:
    return f"{width} x {height} {'grey' if channels == 1 else 'coloured'} pixels"
