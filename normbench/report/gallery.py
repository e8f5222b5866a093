"""The wrongly classified test images of a session, by norm, and small pictures of them."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from normbench.results import RunResult
from normbench.storage.pictures import StoredPictures

# Images shown of each kind; how many there are in all is said beside them.
SHOWN = 16
COLUMNS = 32


@dataclass(frozen=True)
class Pictures:
    """Test images in one picture, ``columns`` side by side, as a data URI.

    ``places`` are the images' numbers in it by their index in the test set, ``labels`` their
    classes. Without the images, ``uri`` is empty, and ``reason`` says why.
    """

    uri: str
    size: int
    columns: int
    places: Mapping[int, int]
    labels: Mapping[int, int]
    reason: str = ""


def mistakes(runs: Mapping[str, RunResult]) -> dict[str, Any]:
    """Return which images the runs, by the name of each, get wrong: each, all, and one alone.

    Of each kind SHOWN are listed, and all are counted: of each run its most confident mistakes, of
    the others some from everywhere in the test set, which may lie sorted by class. Older rows list
    their most confident mistakes only: from such, nothing is said of all and of one alone.
    """
    wrong = {name: set(run.wrong) for name, run in runs.items()}
    known = all(len(wrong[name]) == run.incorrect for name, run in runs.items())
    by_all = sorted(set.intersection(*wrong.values())) if known and len(wrong) > 1 else []
    kinds = []
    for name, run in runs.items():
        others = set().union(*(wrong[other] for other in wrong if other != name))
        alone = sorted(wrong[name] - others) if known and len(wrong) > 1 else []
        first = [(m.index, m.true, m.predicted, m.confidence) for m in run.mistakes[:SHOWN]]
        kinds.append(
            {
                "line": name,
                "wrong": run.incorrect,
                "images": [[i, t, p, round(c, 3)] for i, t, p, c in first],
                "alone": _spread(alone),
                "alone_count": len(alone),
            }
        )
    return {"lines": kinds, "all": _spread(by_all), "all_count": len(by_all), "known": known}


def _spread(indices: Sequence[int]) -> list[int]:
    """Return SHOWN of the indices at equal distances, or all of them if they are fewer."""
    count = min(SHOWN, len(indices))
    return [indices[number * len(indices) // count] for number in range(count)]


def needed_images(found: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return the indices of the images that mistakes lists."""
    needed: set[int] = set()
    for part in found:
        needed.update(part["all"])
        for line in part["lines"]:
            needed.update(line["alone"], (image[0] for image in line["images"]))
    return needed


def sheet(dataset: str, sessions: Iterable[Mapping[str, StoredPictures]]) -> Pictures:
    """Return the test images that the sessions have stored of a data set, in one picture."""
    found: dict[int, tuple[np.ndarray[Any, Any], int]] = {}
    for stored in (session[dataset] for session in sessions if dataset in session):
        rows = zip(stored.indices, stored.images, stored.labels, strict=True)
        found |= {index: (image, label) for index, image, label in rows}
    if not found:
        return Pictures("", 0, COLUMNS, {}, {}, f"the session stored no images of {dataset}")
    images = np.stack([image for image, _ in found.values()])
    picture, file = Image.fromarray(_tiles(images).squeeze()), io.BytesIO()
    # colours take six times the space as PNG
    kind = "png" if images.shape[-1] == 1 else "jpeg"
    picture.save(file, kind, optimize=True, quality=85)
    return Pictures(
        uri=f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}",
        size=images.shape[1],
        columns=COLUMNS,
        places={index: place for place, index in enumerate(found)},
        labels={index: label for index, (_, label) in found.items()},
    )


def _tiles(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Lay images of shape ``(N, H, W, channels)`` out in rows of COLUMNS, the rest black."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / COLUMNS)
    tiles = np.zeros((rows, COLUMNS, height, width, channels), dtype=images.dtype)
    tiles.reshape(-1, height, width, channels)[:count] = images
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, COLUMNS * width, channels)


def first_seeds(runs: Sequence[RunResult]) -> RunResult:
    """Return the run of the smallest seed, whose mistakes stand for its configuration's."""
    return min(runs, key=lambda run: run.spec.seed)
