"""How well the norm trains, by runs that the suite's fixture ``run`` makes."""

from collections.abc import Callable

from normbench.results import RunResult
from normbench.spec import RunSpec

SEEDS = range(3)
# How far the norm's mean accuracy may be below batch normalization's: a run of it has a standard
# deviation of 0.004, the difference of two means of three runs then one of 0.0033.
ROOM = 0.015


def test_the_norm_trains_about_as_well_as_batch_normalization(
    run: Callable[[RunSpec], RunResult],
) -> None:
    def mean_accuracy(norm: str) -> float:
        specs = [
            RunSpec("digits", "digits", norm, batch_size=64, epochs=6, recipe="digits", seed=seed)
            for seed in SEEDS
        ]
        return sum(run(spec).test_accuracy for spec in specs) / len(specs)

    assert mean_accuracy("mypkg.norms:RMSNorm2d") > mean_accuracy("batch") - ROOM
