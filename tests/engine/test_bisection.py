"""Simulated histories of 64 commits: the one that lowered the accuracy is found."""

import numpy as np
import pytest

from .histories import History, skewed


@pytest.mark.parametrize(
    ("history", "most"),
    [
        (History(drop=2), 60),
        (History(drop=3), 30),
        (History(drop=5), 18),
        (History(drop=3, noise=skewed, collapsing=0.02), 35),
        (History(drop=2, touching=0.0), 35),
    ],
    ids=["2 deviations", "3 deviations", "5 deviations", "runs that collapse", "equal runs"],
)
def test_in_19_of_20_histories_the_right_commit_is_found(history: History, most: int) -> None:
    rng = np.random.default_rng(20)
    found, runs = zip(*(history.search(rng) for _ in range(20)), strict=True)
    assert found.count(True) >= 19
    assert np.mean(runs) < most
