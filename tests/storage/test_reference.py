"""The committed baselines: what they hold, and whether the intervals cover on their real rows."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.spread import variances
from normbench.analysis.statistics import Estimate
from normbench.cases.case import GridOptions
from normbench.cases.grids import load_cases
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.training.fingerprints import fingerprint

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "results" / "reference").glob("*.json"))


@pytest.fixture(scope="module", params=FILES, ids=[file.stem for file in FILES])
def baseline(request: pytest.FixtureRequest) -> Baseline:
    return Baseline.read(request.param)


def test_every_run_of_a_committed_baseline_ended_well(baseline: Baseline) -> None:
    assert baseline.ended_badly == []
    assert not baseline.sequential
    assert len({tuple(run.seed for run in case.runs) for case in baseline.cases.values()}) == 1


def test_a_committed_baseline_is_of_the_recipes_as_they_are(baseline: Baseline) -> None:
    # else every nightly says "not comparable": train the baseline anew with the recipe
    for spec, case in baseline.cases.items():
        assert case.fingerprint == fingerprint(spec), spec


@pytest.mark.parametrize(
    ("name", "grid", "tier", "fits", "seeds"),
    [
        ("cpu-mnist", "mnist", "standard", lambda spec: spec.batch_size == 64, 2),
        ("digits", "digits", "smoke", lambda spec: True, 20),
        (
            "cpu-mnist-plain",
            "mnist_plain",
            "full",
            lambda s: (
                s.batch_size == 64 and s.norm != "layer_chw" and "0.0005" not in s.regularizer
            ),
            10,
        ),
        ("cpu-cifar10-jpeg", "cifar10", "standard", lambda s: s.label.endswith("-none-b128"), 5),
    ],
)
def test_a_committed_baseline_has_every_case_that_it_stands_for(
    name: str, grid: str, tier: str, fits: Callable[[RunSpec], bool], seeds: int, tmp_path: Path
) -> None:
    (tmp_path / "cifar10-jpeg").mkdir()  # as where only the copy of CIFAR-10 is on disk
    baseline = Baseline.read(ROOT / "results" / "reference" / f"{name}.json")
    options = GridOptions(tier=tier, data=tmp_path)
    cases = load_cases(ROOT / "bench" / "cases" / f"{grid}.toml", options)
    assert baseline.cases.keys() == {case.spec for case in cases if fits(case.spec)}
    assert {len(case.runs) for case in baseline.cases.values()} == {seeds}


@pytest.mark.parametrize("runs", [1, 2])
def test_intervals_cover_on_real_rows(baseline: Baseline, runs: int) -> None:
    """Hold some runs of each case against its others, with the variance of those others.

    The interval of the difference is to cover zero in 95 of 100 looks.
    """
    accuracies = {spec: case.accuracies for spec, case in baseline.cases.items()}
    seeds = len(next(iter(accuracies.values())))
    if seeds < runs + 2:
        pytest.skip(f"of {seeds} runs, {runs} leave too few others to tell how they scatter")
    looks, covered = 0, 0
    for start in range(0, seeds - runs + 1, runs):
        now = {spec: values[start : start + runs] for spec, values in accuracies.items()}
        rest = {
            spec: values[:start] + values[start + runs :] for spec, values in accuracies.items()
        }
        spread = variances(rest)
        for spec in rest:
            low, high = Estimate.difference(now[spec], rest[spec], spread[spec]).interval()
            looks, covered = looks + 1, covered + (low <= 0 <= high)
    print(f"{runs} of {seeds} runs: {covered} of {looks} intervals cover zero")
    standard_error = math.sqrt(0.95 * 0.05 / looks)
    assert covered / looks == pytest.approx(0.95, abs=3 * standard_error)
