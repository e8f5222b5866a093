"""Data sets of a user's own: image folders and functions, and what is said of wrong ones."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from normbench.training.data import ImageData, ensure_dataset, known_dataset, load_dataset
from normbench.training.datasets import DatasetUnusable, find_dataset

from .own_data import CLASSES, own_function, write_images

CPU = torch.device("cpu")


def shapes(**changes: Any) -> ImageData:
    """Return 12 images to train on and 6 to test on, of three channels and two classes."""
    fields = {
        "train_images": torch.arange(12 * 3 * 16).view(12, 3, 4, 4).to(torch.uint8),
        "train_labels": torch.arange(12) % 2,
        "test_images": torch.zeros(6, 3, 4, 4, dtype=torch.uint8),
        "test_labels": torch.arange(6) % 2,
    }
    return ImageData(**{"name": "shapes", **fields, **changes})


def test_a_folder_is_decoded_with_its_classes_in_alphabetical_order(tmp_path: Path) -> None:
    write_images(tmp_path / "shapes")
    (tmp_path / "shapes" / "train" / "cross" / ".DS_Store").write_bytes(b"no image")
    data = load_dataset("folder:shapes", tmp_path, CPU)
    assert data.train_images.shape == (30, 1, 8, 8)
    assert data.test_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert data.test_images[4, 0, 0].tolist() == [61, 255, 61, 61, 61, 61, 61, 61]
    # levels 0 to 9, 60 to 69 and 120 to 129, and a pixel of 64 is 255
    level = (4.5 + 64.5 + 124.5) / 3
    assert data.mean == pytest.approx((level * 63 + 255) / 64 / 255)
    assert data.classes == CLASSES


def test_what_is_known_of_a_folder_before_it_is_loaded(tmp_path: Path) -> None:
    write_images(tmp_path / "a b" / "größe", size=10)
    facts = known_dataset("folder:a b/größe", tmp_path)
    assert facts == find_dataset("folder:a b/größe")
    assert (facts.training_images, facts.test_images, facts.classes) == (30, 9, CLASSES)
    assert (facts.image_channels, facts.image_size) == (1, 10)
    assert facts.marker == "folder_a_b_größe"
    absolute = known_dataset(f"folder:{tmp_path}/a b/größe-heldout", Path("/nowhere"))
    assert (absolute.training_images, absolute.test_images) == (25, 5)


def test_a_folders_held_out_part_is_drawn_from_all_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "shapes", train=20)
    heldout = load_dataset("folder:shapes-heldout", tmp_path, CPU)
    facts = find_dataset("folder:shapes-heldout")
    assert (len(heldout.train_labels), len(heldout.test_labels)) == (50, 10)
    assert (facts.training_images, facts.test_images) == (50, 10)
    assert len(heldout.test_labels.unique()) == 3
    both = torch.cat([heldout.train_labels, heldout.test_labels])
    assert both.bincount().tolist() == [20] * 3
    # each image with its label
    levels = heldout.test_images[:, 0, 5, 5]
    assert (levels // 60).tolist() == heldout.test_labels.tolist()


def test_coloured_images_are_read_in_whatever_way_they_are_stored(tmp_path: Path) -> None:
    write_images(tmp_path / "shapes", classes=("a", "b"), train=2, test=1)
    for file in sorted(tmp_path.glob("shapes/*/*/*.png")):
        red = Image.new("RGB", (8, 8), (204, 0, 51))
        kind = "P" if file.parent.name == "a" else "RGBA"
        red.convert(kind).save(file)
    data = load_dataset("folder:shapes", tmp_path, CPU)
    assert data.train_images.shape == (4, 3, 8, 8)
    # a colour that the palette has
    assert (data.train_images == torch.tensor([204, 0, 51]).view(1, 3, 1, 1)).all()


def resize(name: str, *size: int) -> Callable[[Path], None]:
    return lambda folder: Image.new("L", (size[0], size[1])).save(folder / name)


def save(name: str, image: Image.Image) -> Callable[[Path], None]:
    return lambda folder: image.save(folder / name)


def remove(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in sorted(folder.glob(pattern), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:60])

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (remove("**/*"), r"shapes/train is not there: expected \{train,test\}/<class>/\*.png in"),
        (remove("test/cross/*"), r"test/cross has no image: expected one or more files whose"),
        (
            lambda folder: remove("test/cross/*")(folder) or remove("test/cross")(folder),
            r"shapes/test has no folder 'cross', as the other part has: expected the same classes",
        ),
        (
            lambda folder: remove("*/c*/*")(folder) or remove("*/c*")(folder),
            r"shapes/train has 1 class: expected two or more folders",
        ),
        (resize("train/circle/00.png", 8, 9), r"train/circle/00.png is 8 pixels wide and 9 high"),
        (
            resize("test/square/01.png", 8, 9),
            r"test/square/01.png has 8 x 9 grey pixels: expected 8 x 8 grey pixels, as .*train/"
            r"circle/00.png has; images of a folder are of one size and all grey or all coloured$",
        ),
        (
            save("train/cross/03.png", Image.new("RGB", (8, 8))),
            r"train/cross/03.png has 8 x 8 coloured pixels: expected 8 x 8 grey pixels, as",
        ),
        (
            save("train/cross/03.png", Image.fromarray(np.zeros((8, 8), dtype=np.uint16))),
            r"03.png has pixels of Pillow's mode 'I;16': expected eight bits, grey or coloured$",
        ),
        (cut("train/square/09.png"), r"train/square/09.png cannot be decoded: .*; expected an ima"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_in_one_line(
    tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    write_images(tmp_path / "shapes")
    change(tmp_path / "shapes")
    with pytest.raises(DatasetUnusable, match=told) as refused:
        ensure_dataset("folder:shapes", tmp_path)
    assert "\n" not in str(refused.value)


def test_what_a_function_returns_is_loaded_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def load(root: Path) -> ImageData:
        calls.append(root)
        return shapes()

    name = own_function(monkeypatch, load)
    facts = known_dataset(name, tmp_path)
    data = load_dataset(name, tmp_path, CPU)
    heldout = load_dataset(f"{name}-heldout", tmp_path, CPU)
    assert calls == [tmp_path]
    assert (facts.training_images, facts.test_images, facts.classes) == (12, 6, ("0", "1"))
    assert (facts.image_channels, facts.image_size) == (3, 4)
    assert facts.marker == "own_data_sets_load"
    assert (data.name, heldout.name) == (name, f"{name}-heldout")
    # pixels 0 to 255 twice, and 0 to 63
    pixels = np.arange(12 * 48) % 256 / 255
    assert (data.mean, data.std) == pytest.approx((pixels.mean(), pixels.std()))
    assert (len(heldout.train_labels), len(heldout.test_labels)) == (10, 2)


@pytest.mark.parametrize(
    "load", [lambda: shapes(), lambda folder: shapes(name=str(folder)), lambda *, root: shapes()]
)
def test_a_function_takes_the_data_root_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., ImageData]
) -> None:
    assert len(load_dataset(own_function(monkeypatch, load), tmp_path, CPU).test_labels) == 6


def broken() -> ImageData:
    raise KeyError("no such\nfile")


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (7, r"cannot be called with the data root, nor with nothing: it is a int; expected a fun"),
        (lambda one, two: shapes(), r"nor with nothing: missing a required argument: 'two'"),
        (broken, r"cannot be loaded: it raised KeyError: 'no such.*file'; expected a function"),
        (lambda: 7, r"is a int: expected normbench.training.data.ImageData$"),
        (
            lambda: shapes(train_images=torch.zeros(12, 3, 4, 4)),
            r"train_images is of torch.float32 and the shape \(12, 3, 4, 4\): expected a tensor of "
            r"torch.uint8 and the shape \(N, channels, size, size\)$",
        ),
        (lambda: shapes(test_images=[1]), r"test_images is a list: expected a tensor of torch.ui"),
        (
            lambda: shapes(test_labels=torch.zeros(6, dtype=torch.int32)),
            r"test_labels is of torch.int32 .* expected a tensor of torch.int64 and the shape \(N,",
        ),
        (
            lambda: shapes(train_labels=torch.arange(11) % 2),
            r"train_images has 12 images and train_labels 11 labels: expected as many of both",
        ),
        (
            lambda: shapes(
                test_images=torch.zeros(0, 3, 4, 4, dtype=torch.uint8),
                test_labels=torch.zeros(0, dtype=torch.int64),
            ),
            r"test_images has 0 images and test_labels 0 labels: .*, one or more",
        ),
        (
            lambda: shapes(test_images=torch.zeros(6, 1, 4, 4, dtype=torch.uint8)),
            r"images to train on are \(3, 4, 4\), those to test on \(1, 4, 4\): expected one shape",
        ),
        (
            lambda: shapes(
                train_images=torch.zeros(12, 3, 4, 5, dtype=torch.uint8),
                test_images=torch.zeros(6, 3, 4, 5, dtype=torch.uint8),
            ),
            r"its images are \(3, 4, 5\): expected 1 or 3 channels, and as high as wide",
        ),
        (
            lambda: shapes(train_labels=torch.zeros(12, dtype=torch.int64) - 1),
            r"its labels are from -1 to 1: expected 0 to the number of classes less 1",
        ),
        (
            lambda: shapes(classes=("one", "two"), test_labels=torch.arange(6) % 3),
            r"its labels are from 0 to 2: .* of two classes or more, and it names 2$",
        ),
        (
            lambda: shapes(test_labels=torch.arange(6) % 3),
            r"train_labels has no image of the class 2: expected one or more of each",
        ),
        (lambda: shapes(classes=(1, 2)), r"classes = \(1, 2\): expected the classes' names as tex"),
        (lambda: shapes(mean=127.0, std=50.0), r"mean = 127.0 and std = 50.0: expected one numbe"),
        (lambda: shapes(mean=(0.5,) * 3), r"mean = \(0.5, 0.5, 0.5\) and std = .*: expected one n"),
        (lambda: shapes(std=0.0), r"mean = 0.\d+ and std = 0.0: expected one number each for"),
        (
            lambda: shapes(train_images=torch.ones(12, 3, 4, 4, dtype=torch.uint8)),
            r"and std = 0.0: expected one number each",
        ),
    ],
)
def test_what_is_wrong_with_a_function_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: object, told: str
) -> None:
    name = own_function(monkeypatch, load)
    with pytest.raises(DatasetUnusable, match=rf"^data set {name!r}.*{told}") as refused:
        ensure_dataset(name, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_function_that_cannot_be_imported_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetUnusable,
        match=r"unknown data set 'no_such_module:load': No module named 'no_such_module'; expected "
        r"package.module:factory .*, or one of digits, mnist, .*, folder:PATH$",
    ):
        known_dataset("no_such_module:load", tmp_path)


def test_mean_and_deviation_that_are_given_are_kept() -> None:
    assert (shapes(mean=0.5, std=0.25).mean, shapes(mean=0.5, std=0.25).std) == (0.5, 0.25)
    assert not math.isnan(dataclasses.replace(shapes(), name="another").mean)
