"""What a run was trained with, as short digests: what it compares by, and the code that it ran."""

import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from normbench.models.networks import network_definition
from normbench.models.norms import norm_family
from normbench.training.datasets import find_dataset
from normbench.training.recipes import RECIPES, Augmentation, Recipe

# The fields of a recipe, and of its augmentation, that the fingerprints of the first baselines
# cover. What is added later enters where it is not at its default, so that it makes no older run
# incomparable.
FIRST_FIELDS = {
    *("learning_rate", "momentum", "warmup", "label_smoothing", "augmentation"),
    *("rotation", "shift", "scale", "shear", "crop", "flip"),
}

PACKAGE = Path(__file__).parents[1]
ROOMS = ("models", "training")  # that train


def fingerprint(network: str, recipe: str, dataset: str | None = None) -> str:
    """Return a short digest of a network's and a recipe's definitions.

    A network of the user's own is as the images of its ``dataset`` make it.

    Runs of one spec with different fingerprints were trained differently, and do not compare.
    """
    images = find_dataset(dataset) if dataset is not None else None
    architecture = (
        network_definition(network, images.shape, len(images.classes))
        if images
        else network_definition(network)
    )
    training = RECIPES[recipe]
    settings = {**_settings(training), "augmentation": _settings(training.augmentation)}
    definition = json.dumps([architecture, settings], sort_keys=True)
    return hashlib.sha256(definition.encode()).hexdigest()[:12]


def _settings(part: Recipe | Augmentation) -> dict[str, Any]:
    # a dataclass keeps the defaults of its fields as attributes of the class
    return _entering(vars(part), vars(type(part)))


def _entering(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that enter a fingerprint: not those of later fields at their default."""
    return {
        name: value
        for name, value in values.items()
        if name in FIRST_FIELDS or name not in defaults or value != defaults[name]
    }


@functools.cache
def code_digest(norm: str) -> str:
    """Return a short digest of the source that a run with ``norm`` executes.

    It covers the rooms that train, and of a user's norm the whole package that it lies in, or its
    module. Worked out once in a process, which has imported the code by then and runs no other.
    """
    digest = hashlib.sha256()
    for file, name in (*_own_sources(), *_sources_of(norm)):
        text = file.read_bytes()
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def _own_sources() -> Iterator[tuple[Path, str]]:
    for room in ROOMS:
        files = sorted((PACKAGE / room).glob("*.py"))
        yield from ((file, f"{room}/{file.name}") for file in files)


def _sources_of(norm: str) -> Iterator[tuple[Path, str]]:
    """Yield the sources of a user's norm, with their names; none where Python finds no module.

    torch's own are told by its version, which a row has as well.
    """
    package = norm.partition(":")[0].partition(".")[0]
    if norm_family(norm) is not None or package == "torch":
        return
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return
    if found is None:
        return
    if found.submodule_search_locations is None:
        files = [Path(found.origin or "")]
        yield from ((file, file.name) for file in files if file.is_file())
    for folder in map(Path, found.submodule_search_locations or ()):
        files = sorted(file for file in folder.rglob("*.py") if file.is_file())
        yield from ((file, file.relative_to(folder).as_posix()) for file in files)
