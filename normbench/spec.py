"""RunSpec: all that decides the outcome of one training run."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Of a regularizer, between its parts; a part is its name and its strength.
NO_REGULARIZER = "none"


def regularizer_name(strengths: Mapping[str, float]) -> str:
    """Spell a regularizer as ids, rows and plots do: ``none``, ``l1:0.001+l2:0.001``.

    The parts come in alphabetical order; those of strength 0 are left out.
    """
    parts = (f"{name}:{_digits(value)}" for name, value in sorted(strengths.items()) if value)
    return "+".join(parts) or NO_REGULARIZER


def _digits(value: float) -> str:
    """Spell a number as short as it stands for itself alone; without a plus, which joins parts."""
    short = f"{value:g}"
    return (short if float(short) == value else repr(float(value))).replace("e+", "e")


def regularizer_strengths(name: str) -> dict[str, float]:
    """Return the strengths that ``regularizer_name`` spells so, by the names of the parts.

    Raises ValueError for a spelling that is none; which names there are is not looked up.
    """
    found: dict[str, float] = {}
    # of 1e+5, the plus joins no parts
    parts = re.split(r"(?<![0-9.][eE])\+", name)
    for part in () if name == NO_REGULARIZER else parts:
        kind, _, text = part.strip().rpartition(":")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        named = kind and not re.search(r"[\s,;]", kind)
        if not named or kind in found or not 0 < value < math.inf:
            raise ValueError(
                f"unknown regularizer {name!r}: {part!r:.60} is no name with a finite strength "
                "above 0; expected none, or parts such as l1:0.001, l1:0.001+l2:0.001 or "
                "package.module:factory:0.01, each name once"
            )
        found[kind] = value
    return found


def configuration_label(norm: str, regularizer: str, batch_size: int) -> str:
    """Name a configuration of a grid, as in ids, rows and plots."""
    return f"{norm}-{regularizer}-b{batch_size}"


def case_title(dataset: str, label: str, epochs: int) -> str:
    """Name a case among those of all grids, which may train one configuration for other epochs."""
    return f"{dataset} {label}, {counted_epochs(epochs)}"


def counted_epochs(epochs: int) -> str:
    """Return a number of epochs, in words."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def with_regularizer(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored spec as it is stored now: once, L1 and L2 were all that there was.

    What is no spec of that time is returned as it is.
    """
    if "regularizer" in values or not {"l1", "l2", "norm", "batch_size"} <= values.keys():
        return dict(values)
    others = {key: value for key, value in values.items() if key not in ("l1", "l2")}
    strengths = {name: _strength(name, values[name]) for name in ("l1", "l2")}
    return {**others, "regularizer": regularizer_name(strengths)}


def _strength(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0.0 <= value < math.inf:
        raise ValueError(f"{name} = {value!r}: expected a finite number, 0 or larger")
    return float(value)


@dataclass(frozen=True)
class RunSpec:
    """One training run. Equal specs give equal results on one machine and torch build.

    ``regularizer`` is spelled as regularizer_name does, ``dropout`` is a probability, ``recipe``
    is as training.recipes spells it. ``train_images`` is the size of the part of the training
    set, drawn by the seed, that is trained on; None is all. Raises ValueError for a value out of
    range; names are checked where they are looked up.
    """

    dataset: str
    network: str
    norm: str
    regularizer: str = NO_REGULARIZER
    batch_size: int = 64
    epochs: int = 1
    dropout: float = 0.0
    recipe: str = "mnist"
    seed: int = 0
    train_images: int | None = None

    def __post_init__(self) -> None:
        # equal regularizers make equal specs, however they were written
        canonical = regularizer_name(regularizer_strengths(self.regularizer))
        object.__setattr__(self, "regularizer", canonical)
        for name in ("batch_size", "epochs", "train_images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} = {value!r}: expected 1 or larger")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout!r}: expected a probability below 1")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed!r}: expected 0 or larger")

    @cached_property
    def strengths(self) -> dict[str, float]:
        """The strengths of the regularizer's parts, by their names."""
        return regularizer_strengths(self.regularizer)

    @property
    def label(self) -> str:
        """The configuration's name, of norm, regularizer and batch size."""
        return configuration_label(self.norm, self.regularizer, self.batch_size)

    @property
    def title(self) -> str:
        """The name of the run's case among those of all grids."""
        return case_title(self.dataset, self.label, self.epochs)

    @cached_property
    def key(self) -> str:
        """A short digest of every field, the same in every process and on every machine."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> "RunSpec":
        return dataclasses.replace(self, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """Return what to_dict was called on, in this version or an earlier one.

        Raises TypeError for keys that are missing, and ValueError for values out of range. Keys
        that a later version has added are left out.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in with_regularizer(values).items() if k in known})

    def __str__(self) -> str:
        return f"{self.dataset} {self.label}, seed {self.seed}"
