"""RunSpec: all that decides the outcome of one training run."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any


def regularizer_name(l1: float, l2: float) -> str:
    """Spell a regularizer as ids, rows and plots do: ``none``, ``l1:0.001+l2:0.001``."""
    strengths = {"l1": l1, "l2": l2}
    return "+".join(f"{kind}:{value:g}" for kind, value in strengths.items() if value) or "none"


def regularizer_strengths(name: str) -> tuple[float, float]:
    """Return the strengths of L1 and L2 that ``regularizer_name`` spells so.

    Raises ValueError for a name that is none.
    """
    found: dict[str, float] = {}
    for part in () if name == "none" else name.split("+"):
        kind, _, text = part.partition(":")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if kind not in ("l1", "l2") or kind in found or not 0 < value < math.inf:
            raise ValueError(
                f"unknown regularizer {name!r}: expected none, or l1 and l2 with a strength above "
                "0, such as l1:0.001 or l1:0.001+l2:0.001"
            )
        found[kind] = value
    return found.get("l1", 0.0), found.get("l2", 0.0)


def configuration_label(norm: str, regularizer: str, batch_size: int) -> str:
    """Name a configuration of a grid, as in ids, rows and plots."""
    return f"{norm}-{regularizer}-b{batch_size}"


def case_title(dataset: str, label: str, epochs: int) -> str:
    """Name a case among those of all grids, which may train one configuration for other epochs."""
    return f"{dataset} {label}, {counted_epochs(epochs)}"


def counted_epochs(epochs: int) -> str:
    """Return a number of epochs, in words."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


@dataclass(frozen=True)
class RunSpec:
    """One training run. Equal specs give equal results on one machine and torch build.

    ``l1`` and ``l2`` are the strengths of models.regularizers.Regularizer, ``dropout`` is a
    probability, ``recipe`` names an entry of training.recipes. ``train_images`` is the size of
    the part of the training set, drawn by the seed, that is trained on; None is all. Raises
    ValueError for a value out of range; names are checked where they are looked up.
    """

    dataset: str
    network: str
    norm: str
    l1: float = 0.0
    l2: float = 0.0
    batch_size: int = 64
    epochs: int = 1
    dropout: float = 0.0
    recipe: str = "mnist"
    seed: int = 0
    train_images: int | None = None

    def __post_init__(self) -> None:
        for name, strength in (("l1", self.l1), ("l2", self.l2)):
            if not 0.0 <= strength < float("inf"):
                raise ValueError(f"{name} = {strength!r}: expected a finite number, 0 or larger")
        for name in ("batch_size", "epochs", "train_images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} = {value!r}: expected 1 or larger")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout!r}: expected a probability below 1")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed!r}: expected 0 or larger")

    @property
    def regularizer(self) -> str:
        """The name of the regularizer."""
        return regularizer_name(self.l1, self.l2)

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

    def __str__(self) -> str:
        return f"{self.dataset} {self.label}, seed {self.seed}"
