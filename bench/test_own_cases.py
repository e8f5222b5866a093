"""The grids of --bench-cases: your own, held against the targets that you set."""

import pytest

from normbench import Runs


@pytest.mark.cases()
def test_own_cases(case, run):
    runs = Runs.of(run(spec) for spec in case.specs)
    assert runs.test_accuracy > case.target
    if case.published:
        assert runs.best_test_accuracy >= case.published.floor
