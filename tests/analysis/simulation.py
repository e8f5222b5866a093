"""Sessions of simulated accuracies, judged as real ones are: how often is the verdict wrong?

    python -m tests.analysis.simulation [SESSIONS]

prints the tables of docs/verdicts.md.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from normbench.analysis.comparison import Reference
from normbench.analysis.looks import goes_on, planned_looks
from normbench.analysis.thresholds import CONFIRMING_SEEDS, INTERIM_RUNS
from normbench.cases.case import GridOptions
from normbench.cases.grids import load_cases
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
    return BaselineCase(spec, fingerprint(spec), runs)


def baseline_of(
    accuracies: Mapping[RunSpec, Sequence[float | None]], sequential: bool = False
) -> Baseline:
    cases = {spec: case_of(spec, values) for spec, values in accuracies.items()}
    return Baseline("simulated", "2026-01-01", 2, sequential, {"processor": "none"}, cases)


def case_run(
    case: BaselineCase, reference: Reference, plan: Sequence[int], target: float, cases: int
) -> BaselineCase:
    """Return as many of the case's runs as a session with these looks at it would train."""
    sequential = tuple(plan[: len(INTERIM_RUNS)]) == INTERIM_RUNS
    for look in plan:
        now = dataclasses.replace(case, runs=case.runs[:look])
        found, variance = reference.look(now, cases), reference.variance(case.spec)
        added = sequential and look < INTERIM_RUNS[-1]
        if not goes_on(found, now.accuracies, target, variance, added):
            return now
    return now


def plan_of(runs: int | None, confirm: int = CONFIRMING_SEEDS) -> tuple[int, ...]:
    """Return the looks at a case of so many runs; None adds them as --bench-seeds auto does."""
    return planned_looks(runs or INTERIM_RUNS[-1], 1, sequential=runs is None, confirm=confirm)


@dataclass(frozen=True)
class Setting:
    """A session of the 90 cases of the MNIST grid, and the baseline that it is held against.

    ``runs`` None adds runs as --bench-seeds auto does; ``confirm`` more confirm a suspicion.
    ``deviation`` is the standard deviation over the seeds, a fraction; ``scatter`` is that of its
    logarithm over the cases. The first case's mean is lower by ``drop``. ``skewed`` draws from a
    gamma distribution with its longer tail towards worse: of a skewness twice that of Poisson
    counts of 45 wrong images.
    """

    runs: int | None = 5
    confirm: int = CONFIRMING_SEEDS
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
    plan = plan_of(setting.runs, setting.confirm)

    def draw(mean: float, deviation: float, count: int) -> list[float]:
        noise = gamma(rng, count) if setting.skewed else rng.standard_normal(count)
        values: list[float] = (mean + deviation * noise).tolist()
        return values

    for _ in range(sessions):
        deviations = setting.deviation * np.exp(setting.scatter * rng.standard_normal(len(SPECS)))
        known = dict(zip(SPECS, deviations, strict=True))
        before = baseline_of({s: draw(MEAN, d, setting.baseline_runs) for s, d in known.items()})
        reference = Reference([before])
        now: dict[RunSpec, Sequence[float]] = {}
        for spec, deviation in known.items():
            mean = MEAN - (setting.drop if spec is SPECS[0] else 0)
            drawn = case_of(spec, draw(mean, deviation, plan[-1]))
            case = case_run(drawn, reference, plan, TARGET, len(SPECS))
            now[spec] = case.accuracies
            runs += len(case.runs)
        worse = {case.spec for case in reference.compare(baseline_of(now)).regressions}
        found += SPECS[0] in worse
        false_alarms += bool(worse - ({SPECS[0]} if setting.drop else set()))
    return Tally(false_alarms / sessions, found / sessions, runs / sessions / len(SPECS))


def gamma(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Draw numbers of mean 0, standard deviation 1 and skewness -2 / sqrt(45)."""
    noise: npt.NDArray[np.float64] = 45**0.5 - rng.gamma(45, 45**-0.5, count)
    return noise


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    settings = {
        "5 runs": Setting(),
        "5 runs, unequal deviations": Setting(scatter=0.3),
        "5 runs, skewed": Setting(skewed=True),
        "5 runs, none to confirm": Setting(confirm=0),
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
