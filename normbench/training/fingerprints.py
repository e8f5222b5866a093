"""What a run was trained with, as short digests: what it compares by, and the code that it ran."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from normbench.models.families import norm_family
from normbench.models.networks import network_definition
from normbench.spec import RunSpec
from normbench.training.datasets import FOLDER, find_dataset
from normbench.training.recipes import PARTS, Augmentation, Recipe, Selection, find_recipe

# The fields of a recipe, and of its augmentation, that the fingerprints of the first baselines
# cover. What is added later enters where it is not at its default, so that it makes no older run
# incomparable.
FIRST_FIELDS = {
    *("learning_rate", "momentum", "warmup", "label_smoothing", "augmentation"),
    *("rotation", "shift", "scale", "shear", "crop", "flip"),
}

PACKAGE = Path(__file__).parents[1]
ROOMS = ("models", "training")  # that train


def fingerprint(spec: RunSpec) -> str:
    """Return a short digest of the definitions of a run's network and recipe.

    A network of the user's own is as the images of its ``dataset`` make it.

    Runs of one spec with different fingerprints were trained differently, and do not compare.
    """
    images = find_dataset(spec.dataset)
    architecture = network_definition(spec.network, images.shape, len(images.classes))
    settings = _settings(find_recipe(spec.recipe))
    definition = json.dumps([architecture, settings], sort_keys=True)
    return hashlib.sha256(definition.encode()).hexdigest()[:12]


def _settings(part: Recipe | Augmentation | Selection) -> dict[str, Any]:
    entering = _entering(vars(part), {f.name: f.default for f in dataclasses.fields(part)})
    parts = {name: _settings(entering[name]) for name in PARTS.keys() & entering.keys()}
    return entering | parts


def _entering(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that enter a fingerprint: not those of later fields at their default."""
    return {
        name: value
        for name, value in values.items()
        if name in FIRST_FIELDS or name not in defaults or value != defaults[name]
    }


def code_digest(spec: RunSpec) -> str:
    """Return a short digest of the source that a run executes.

    It covers the rooms that train, and of what is the user's own the whole packages that it lies
    in, or modules.
    """
    return sources_digest(own_packages(spec))


def own_packages(spec: RunSpec) -> tuple[str, ...]:
    """Return the packages of what a run has of a user's own, by their first names; not torch.

    torch's own are told by its version, which a row has as well.
    """
    norm = () if norm_family(spec.norm) is not None else (spec.norm,)
    data = () if spec.dataset.startswith(FOLDER) else (spec.dataset,)
    optimizer = find_recipe(spec.recipe).optimizer
    named = (*norm, *data, *spec.strengths, spec.network, optimizer)
    packages = {name.partition(":")[0].partition(".")[0] for name in named if ":" in name}
    return tuple(sorted(packages - {"torch"}))


@functools.cache
def sources_digest(packages: tuple[str, ...] = ()) -> str:
    """Return a short digest of the source of the rooms that train, and of these packages.

    Worked out once in a process, which has imported the code by then and runs no other.
    """
    digest = hashlib.sha256()
    theirs = (source for package in packages for source in _sources_of(package))
    for file, name in (*_own_sources(), *theirs):
        text = file.read_bytes()
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def _own_sources() -> Iterator[tuple[Path, str]]:
    for room in ROOMS:
        files = sorted((PACKAGE / room).glob("*.py"))
        yield from ((file, f"{room}/{file.name}") for file in files)


def _sources_of(package: str) -> Iterator[tuple[Path, str]]:
    """Yield the sources of a package, with their names; none where Python finds no module."""
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
