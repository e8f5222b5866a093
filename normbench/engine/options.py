"""What a session was asked to do, once its options are parsed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.analysis.thresholds import CONFIRMING_SEEDS, MAX_UNDECIDED
from normbench.cases.case import NO_TARGET, GridOptions
from normbench.engine.shards import Shard

# Who trains: this process or xdist's workers, or the nodes of a cluster.
ENGINES = ("xdist", "ray")


@dataclass(frozen=True)
class Share:
    """What each run is given of Ray's cluster: cores, one thread on each, and a part of a GPU."""

    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Options:
    """The options once parsed, with absolute paths.

    ``confirm`` is how many further seeds confirm what looks worse than the baselines;
    ``replay`` says what has to be equal of an earlier session for its rows to be taken, None where
    none are; ``replay_audit`` is how many seconds of training such cases get all the same.
    ``selection_size`` is how many cases the whole has of which this session is a part, 0 where it
    is the whole; ``shard`` is the part of the tests that is run, None for all of them;
    ``max_undecided`` is a fraction; ``plant`` names the fault that is planted.
    ``engine`` says who trains: ``xdist``, which is this process or xdist's workers, or ``ray``, the
    cluster at ``ray_address`` (None: this machine alone), which gives each run its ``share``.
    ``stall_timeout`` is for how many seconds a run may make no progress, 0 for ever, None for as
    long as the watchdog works out.
    """

    grid: GridOptions
    device: str
    cases: tuple[Path, ...]
    results: Path
    reference: Path
    baselines: tuple[str, ...] = ()
    save_baseline: str | None = None
    minimum_effect: float | None = None
    confirm: int = CONFIRMING_SEEDS
    selection_size: int = 0
    shard: Shard | None = None
    strict: bool = False
    max_undecided: float = MAX_UNDECIDED
    resume: bool = False
    replay: str | None = None
    replay_audit: float = 0.0
    stall_timeout: float | None = None
    plant: str | None = None
    engine: str = "xdist"
    ray_address: str | None = None
    share: Share = Share()

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
            "regularizer": list(self.grid.regularizers),
            "target": self.grid.target if self.grid.target > NO_TARGET else None,
            "device": self.device,
            "data": str(self.data),
            "cases": [str(file) for file in self.cases],
            "baselines": list(self.baselines),
            "minimum_effect": self.minimum_effect,
            "confirm": self.confirm,
            "selection_size": self.selection_size,
            "shard": None if self.shard is None else str(self.shard),
            "strict": self.strict,
            "max_undecided": self.max_undecided,
            "replay": self.replay,
            "replay_audit": self.replay_audit,
            "stall_timeout": self.stall_timeout,
            "plant": self.plant,
            "engine": self.engine,
        }
