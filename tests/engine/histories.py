"""Histories of commits with a planted drop: how often is the right one found, by how many runs?

    python -m tests.engine.histories [HISTORIES]

prints the table of docs/bisect.md.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from normbench.engine.bisection import AccuracySearch, CannotAsk
from normbench.engine.revisions import Revision
from normbench.results import RunResult
from normbench.spec import RunSpec

from ..storage.stored import finished

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")
MEAN, DEVIATION, TEST_IMAGES = 0.985, 0.004, 449
Noise = Callable[[np.random.Generator], float]


def normal(rng: np.random.Generator) -> float:
    return float(rng.standard_normal())


def skewed(rng: np.random.Generator) -> float:
    """Draw a number of mean 0, deviation 1 and skewness -1: the longer tail is towards worse."""
    return (4 - float(rng.gamma(4, 1))) / 2


@dataclass(frozen=True)
class History:
    """A line of commits of which one lowers the accuracy by ``drop`` deviations of a run.

    A share of ``collapsing`` of the runs, good or bad, comes out ten deviations lower. A share of
    ``touching`` of the other commits changes rounding alone: then all accuracies are drawn anew,
    while those of commits that compute the same are equal, seed by seed.
    """

    drop: float
    commits: int = 64
    noise: Noise = normal
    collapsing: float = 0.0
    touching: float = 1.0

    def search(self, rng: np.random.Generator) -> tuple[bool | None, int]:
        """Return whether the right commit was found, None where it was left open; and the runs."""
        line = [Revision(f"{n:040d}") for n in range(self.commits)]
        change = int(rng.integers(1, self.commits))
        touches = rng.random(self.commits) < self.touching
        touches[change] = True
        runs = SimulatedRuns(self, change, np.cumsum(touches), rng)
        search = AccuracySearch(line, runs, lambda _: None, most_runs=200)
        try:
            found = search.bisected().found
        except CannotAsk:
            found = None
        return None if found is None else found == line[change], search.count


class SimulatedRuns:
    """Runs whose accuracies are drawn: lower from the position ``change`` on.

    ``computing`` has the same number for positions that compute the same.
    """

    def __init__(
        self,
        history: History,
        change: int,
        computing: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> None:
        self._history, self._change, self._computing, self._rng = history, change, computing, rng
        self._drawn: dict[int, list[RunResult]] = {}

    def runs(self, revision: Revision, count: int) -> list[RunResult]:
        position = int(revision.name)
        drawn = self._drawn.setdefault(int(self._computing[position]), [])
        drawn += [self._run(position, seed) for seed in range(len(drawn), count)]
        return drawn[:count]

    def again(self, revision: Revision) -> RunResult:
        return self.runs(revision, 1)[0]

    def _run(self, position: int, seed: int) -> RunResult:
        history = self._history
        lower = history.drop if position >= self._change else 0.0
        lower += 10 * (self._rng.random() < history.collapsing)
        accuracy = MEAN + DEVIATION * (history.noise(self._rng) - lower)
        # of so many test images
        whole = min(TEST_IMAGES, round(accuracy * TEST_IMAGES)) / TEST_IMAGES
        run = finished(SPEC.with_seed(seed), whole)
        # a figure that tells what was computed, as a loss does of real runs
        return dataclasses.replace(run, parameters=int(self._computing[position]))


def main() -> None:
    histories = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    rows = []
    settings: dict[str, dict[str, Any]] = {
        "every commit rounds differently": {},
        "the same, with the longer tail towards worse": {"noise": skewed},
        "the same, skewed, and 1 in 50 runs collapses": {"noise": skewed, "collapsing": 0.02},
        "1 in 10 commits rounds differently": {"touching": 0.1},
        "only the planted commit computes otherwise": {"touching": 0.0},
    }
    for name, chosen in settings.items():
        for drop in (1.5, 2.0, 3.0, 5.0):
            rng = np.random.default_rng(1)
            history = History(drop, **chosen)
            found, runs = zip(*(history.search(rng) for _ in range(histories)), strict=True)
            shares = [100 * found.count(end) / histories for end in (True, False, None)]
            rows.append([name, drop, *shares, np.median(runs), np.percentile(runs, 95)])
    headings = [
        *("history", "drop, in deviations", "right (%)", "wrong (%)", "left open (%)"),
        *("median runs", "runs in 95 % of them"),
    ]
    print(tabulate(rows, headings, tablefmt="pipe", floatfmt=".1f"))


if __name__ == "__main__":
    main()
