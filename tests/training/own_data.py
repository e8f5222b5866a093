"""Data sets of a user's own, for the tests of what trains on them."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

CLASSES = ("circle", "cross", "square")


def write_images(
    folder: Path, classes: tuple[str, ...] = CLASSES, train: int = 10, test: int = 3, size: int = 8
) -> None:
    """Write grey PNGs: of class c, image n has the level 60 * c + n but for a corner of 255."""
    for part, count in (("train", train), ("test", test)):
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for n in range(count):
                pixels = np.full((size, size), 60 * label + n, dtype=np.uint8)
                pixels[0, 1] = 255
                Image.fromarray(pixels).save(folder / part / name / f"{n:02}.png")


def own_function(monkeypatch: pytest.MonkeyPatch, load: object) -> str:
    """Let ``load`` be found by the name that is returned."""
    module = ModuleType("own_data_sets")
    module.__dict__["load"] = load
    monkeypatch.setitem(sys.modules, "own_data_sets", module)
    return "own_data_sets:load"
