"""What a session was asked to do, once its options are parsed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.cases.case import GridOptions


@dataclass(frozen=True)
class Options:
    """The options once parsed, with absolute paths."""

    grid: GridOptions
    device: str
    cases: tuple[Path, ...]
    results: Path
    reference: Path
    baseline: str | None = None
    save_baseline: str | None = None
    minimum_effect: float | None = None
    resume: bool = False

    @property
    def data(self) -> Path:
        return self.grid.data

    def to_dict(self) -> dict[str, Any]:
        """Return the options as session.json stores them."""
        return {
            "tier": self.grid.tier,
            "seeds": "auto" if self.grid.sequential else self.grid.seeds,
            "first_seed": self.grid.first_seed,
            "norm": list(self.grid.norms),
            "norm_only": self.grid.norms_only,
            "device": self.device,
            "data": str(self.data),
            "cases": [str(file) for file in self.cases],
            "baseline": self.baseline,
            "minimum_effect": self.minimum_effect,
        }
