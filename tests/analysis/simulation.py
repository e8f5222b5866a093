"""Sessions of simulated accuracies, judged as real ones are: how often is the verdict wrong?

    python -m tests.analysis.simulation [SESSIONS]

prints the tables of docs/verdicts.md.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from normbench.analysis.comparison import compare, undecided
from normbench.analysis.spread import Spread
from normbench.analysis.thresholds import INTERIM_RUNS
from normbench.cases.case import GridOptions
from normbench.cases.grids import load_cases
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineCase, BaselineRun
from normbench.training.fingerprints import fingerprint

CASES = Path(__file__).parents[2] / "bench" / "cases"
SPECS = [case.spec for case in load_cases(CASES / "mnist.toml", GridOptions(tier="standard"))]
MEAN, TARGET = 0.995, 0.99


def case_of(spec: RunSpec, accuracies: Sequence[float | None]) -> BaselineCase:
    """Return a case of runs with these accuracies; None stands for a run that diverged."""
    runs = tuple(
        BaselineRun(seed, "diverged" if a is None else "ok", a, a, a, 0.1, 2.0, 0.5, 2.0, "cpu", 1)
        for seed, a in enumerate(accuracies)
    )
    return BaselineCase(spec, fingerprint(spec.network, spec.recipe), runs)


def runs_of(spec: RunSpec, accuracies: Sequence[float]) -> list[RunResult]:
    """Return runs of one epoch with these accuracies, of seeds from 0 up."""
    digest = fingerprint(spec.network, spec.recipe)
    return [
        RunResult(
            spec.with_seed(seed),
            "ok",
            epochs=(Epoch(1, 0.1, 0.1, accuracy, 0.1, accuracy, 2.0, 0.5),),
            fingerprint=digest,
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def baseline_of(
    accuracies: Mapping[RunSpec, Sequence[float | None]], sequential: bool = False
) -> Baseline:
    cases = {spec: case_of(spec, values) for spec, values in accuracies.items()}
    return Baseline("simulated", "2026-01-01", 2, sequential, {"processor": "none"}, cases)


@dataclass(frozen=True)
class Setting:
    """A session of the 90 cases of the MNIST grid, and the baseline that it is held against.

    ``runs`` None adds runs as --bench-seeds auto does. ``deviation`` is the standard deviation
    over the seeds, a fraction; ``scatter`` is that of its logarithm over the cases. The first
    case's mean is lower by ``drop``. ``skewed`` draws from a gamma distribution with its longer
    tail towards worse: of a skewness twice that of Poisson counts of 45 wrong images.
    """

    runs: int | None = 5
    baseline_runs: int = 10
    deviation: float = 0.0006
    scatter: float = 0.0
    drop: float = 0.0
    skewed: bool = False


@dataclass(frozen=True)
class Tally:
    """What came of the sessions: shares of them, and the mean number of runs a case."""

    false_alarms: float
    found: float
    runs: float


def simulate(setting: Setting, sessions: int, seed: int = 0) -> Tally:
    """Judge so many sessions, each with a baseline of its own."""
    rng = np.random.default_rng(seed)
    false_alarms, found, runs = 0, 0, 0

    def draw(mean: float, deviation: float, count: int) -> list[float]:
        noise = gamma(rng, count) if setting.skewed else rng.standard_normal(count)
        values: list[float] = (mean + deviation * noise).tolist()
        return values

    for _ in range(sessions):
        deviations = setting.deviation * np.exp(setting.scatter * rng.standard_normal(len(SPECS)))
        known = dict(zip(SPECS, deviations, strict=True))
        before = baseline_of({s: draw(MEAN, d, setting.baseline_runs) for s, d in known.items()})
        spread = Spread(before)
        now: dict[RunSpec, Sequence[float]] = {}
        for spec, deviation in known.items():
            mean = MEAN - (setting.drop if spec is SPECS[0] else 0)
            if setting.runs is not None:
                now[spec] = draw(mean, deviation, setting.runs)
            else:
                now[spec] = until_decided(
                    spec, draw(mean, deviation, INTERIM_RUNS[-1]), before, spread
                )
            runs += len(now[spec])
        worse = {
            case.spec for case in compare(before, baseline_of(now, not setting.runs)).regressions
        }
        found += SPECS[0] in worse
        false_alarms += bool(worse - ({SPECS[0]} if setting.drop else set()))
    return Tally(false_alarms / sessions, found / sessions, runs / sessions / len(SPECS))


def gamma(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Draw numbers of mean 0, standard deviation 1 and skewness -2 / sqrt(45)."""
    noise: npt.NDArray[np.float64] = 45**0.5 - rng.gamma(45, 45**-0.5, count)
    return noise


def until_decided(
    spec: RunSpec, values: list[float], before: Baseline, spread: Spread
) -> list[float]:
    """Return the values of the first look at which the case is decided, as run_case has it."""
    for look in INTERIM_RUNS:
        if not undecided(runs_of(spec, values[:look]), TARGET, before, spread, len(SPECS)):
            return values[:look]
    return values


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    settings = {
        "5 runs": Setting(),
        "5 runs, unequal deviations": Setting(scatter=0.3),
        "5 runs, skewed": Setting(skewed=True),
        "2 runs": Setting(runs=2),
        "1 run": Setting(runs=1),
        "5 runs, baseline of 5": Setting(baseline_runs=5),
        "auto": Setting(runs=None),
        "auto, skewed": Setting(runs=None, skewed=True),
    }
    rows = []
    for name, clean in settings.items():
        tally = simulate(clean, sessions)
        fields = {**vars(clean), "drop": 0.002}
        dropped = simulate(Setting(**fields), sessions, seed=1)
        rows.append([name, 100 * tally.false_alarms, 100 * dropped.found, tally.runs, dropped.runs])
    headings = ["runs a case", "false alarms (%)", "drops found (%)", "mean runs", "with the drop"]
    print(tabulate(rows, headings, tablefmt="pipe", floatfmt=".2f"))


if __name__ == "__main__":
    main()
