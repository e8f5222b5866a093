"""Cases and claims: configurations, what must hold of them, and what is said of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from normbench.results import ClaimVerdict
from normbench.spec import RunSpec, regularizer_name, regularizer_strengths
from normbench.training.datasets import default_root

TIERS = ("smoke", "standard", "full")

# In place of a tier: the user's own files alone, whatever tier they say.
OWN = "own"

# The target of a case of which none is said: whatever it reaches is above it.
NO_TARGET = -math.inf

# Names that tables have which are no grid's; the grids of claims' runs begin with the second.
COMPARISON, CLAIMS = "comparison", "claims"


@dataclass(frozen=True)
class Published:
    """A published row: its authors' best epoch of one run, and the tolerance granted; fractions."""

    test_accuracy: float
    tolerance: float
    table: str

    @property
    def floor(self) -> float:
        return self.test_accuracy - self.tolerance


@dataclass(frozen=True)
class Case:
    """A configuration with what must hold of it.

    ``target`` is a fraction that the mean test accuracy after the last epoch must exceed, or
    NO_TARGET: such a case is measured, and passes nothing;
    ``specs`` are the runs that the mean stands on, one a seed; ``spec`` is the first of them.
    Where runs are added while a case is undecided, ``seeds`` is the largest number of them, and
    ``least`` the smallest. ``misfit`` says why it cannot be trained, of one that the command line
    adds: that is an error where it is to be run.
    """

    grid: str
    tier: str
    spec: RunSpec
    target: float
    published: Published | None = None
    seeds: int = 1
    least: int = 1
    misfit: str = ""

    @property
    def id(self) -> str:
        return f"{self.grid}-{self.spec.label}"

    @property
    def has_target(self) -> bool:
        return self.target > NO_TARGET

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        return self.first_specs(self.seeds)

    def first_specs(self, runs: int) -> tuple[RunSpec, ...]:
        """Return the specs of so many runs, with the seeds from the first up."""
        return tuple(self.spec.with_seed(self.spec.seed + n) for n in range(runs))


@dataclass(frozen=True)
class Contrast:
    """A claim that the accuracy of ``first`` less that of ``second`` lies between two bounds.

    The bounds are fractions, ``high`` infinite where the claim sets none.
    """

    first: Case
    second: Case
    low: float
    high: float = math.inf

    @property
    def subject(self) -> str:
        return f"{self.first.spec.label} less {self.second.spec.label}"

    @property
    def says(self) -> str:
        if math.isinf(self.high):
            return f"more than {100 * self.low:g}"
        return f"within ±{100 * self.high:g}"


@dataclass(frozen=True)
class MeansCount:
    """A claim that ``norm`` computes so many means for a batch of ``images`` images."""

    norm: str
    images: int
    channels: int
    means: int


@dataclass(frozen=True)
class Claim:
    """A statement with its source, and the contrasts or counts that it stands or falls with.

    ``expected`` holds the verdicts that are no surprise: those on record, or every one.
    """

    name: str
    statement: str
    source: str
    tier: str
    expected: tuple[ClaimVerdict, ...]
    seeds: int = 0
    contrasts: tuple[Contrast, ...] = ()
    counts: tuple[MeansCount, ...] = ()

    @property
    def cases(self) -> list[Case]:
        """The configurations that the claim needs runs of."""
        sides = (side for c in self.contrasts for side in (c.first, c.second))
        return list({case.id: case for case in sides}.values())


@dataclass(frozen=True)
class GridOptions:
    """What the command line says of every grid.

    ``seeds`` is the least number of runs a case, or, where they are added while a case is
    undecided (``sequential``), the largest; they count up from ``first_seed``. ``norms`` and
    ``regularizers`` are added to each grid; ``target`` is that of the cases of which no file says
    one, a fraction.
    """

    tier: str = "full"
    seeds: int = 1
    first_seed: int = 0
    sequential: bool = False
    norms: tuple[str, ...] = ()
    norms_only: bool = False
    regularizers: tuple[str, ...] = ()
    target: float = NO_TARGET
    data: Path = field(default_factory=default_root)

    def grid_norms(self, norms: Sequence[str]) -> list[str]:
        return list(dict.fromkeys((*(() if self.norms_only else norms), *self.norms)))

    def grid_regularizers(self, regularizers: Sequence[str]) -> list[str]:
        return list(dict.fromkeys((*regularizers, *self.regularizers)))

    def includes(self, tier: str) -> bool:
        return self.tier == OWN or TIERS.index(tier) <= TIERS.index(self.tier)


class Configuration(NamedTuple):
    """What a row of a published table, or a claim, tells the configurations of a grid by."""

    norm: str
    regularizer: str
    batch_size: int

    @classmethod
    def of(cls, spec: RunSpec) -> "Configuration":
        return cls(spec.norm, spec.regularizer, spec.batch_size)

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> "Configuration":
        """Return the configuration with these values of a file's keys, the rest strengths."""
        strengths = {key: value for key, value in values.items() if key not in cls._fields}
        return cls(values["norm"], regularizer_name(strengths), values["batch_size"])

    def value(self, key: str) -> Any:
        """Return what a key of a file says of it: a field, or the strength of a regularizer."""
        if key in self._fields:
            return getattr(self, key)
        return regularizer_strengths(self.regularizer).get(key, 0.0)
