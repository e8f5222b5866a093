"""Cases: configurations with what must hold of them, and what the command line says of all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normbench.spec import RunSpec
from normbench.training.datasets import default_root

TIERS = ("smoke", "standard", "full")


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

    ``target`` is a fraction that the mean test accuracy after the last epoch must exceed;
    ``specs`` are the runs that the mean stands on, one a seed; ``spec`` is the first of them.
    """

    grid: str
    tier: str
    spec: RunSpec
    target: float
    published: Published | None = None
    seeds: int = 1

    @property
    def id(self) -> str:
        return f"{self.grid}-{self.spec.label}"

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        return tuple(self.spec.with_seed(self.spec.seed + n) for n in range(self.seeds))


@dataclass(frozen=True)
class GridOptions:
    """What the command line says of every grid.

    ``seeds`` is the least number of runs a case, or, where they are added while a case is
    undecided (``sequential``), the largest; they count up from ``first_seed``.
    """

    tier: str = "full"
    seeds: int = 1
    first_seed: int = 0
    sequential: bool = False
    norms: tuple[str, ...] = ()
    norms_only: bool = False
    data: Path = field(default_factory=default_root)

    def grid_norms(self, norms: Sequence[str]) -> list[str]:
        return list(dict.fromkeys((*(() if self.norms_only else norms), *self.norms)))

    def includes(self, tier: str) -> bool:
        return TIERS.index(tier) <= TIERS.index(self.tier)


def configuration_key(spec: RunSpec) -> tuple[str, float, float, int]:
    """Return what a row of a published table, or a claim, tells configurations of a grid by."""
    return spec.norm, spec.l1, spec.l2, spec.batch_size
