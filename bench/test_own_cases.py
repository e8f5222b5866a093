"""The grids of --bench-cases: your own, held against the targets that you set."""

import pytest


@pytest.mark.cases()
def test_own_cases(case, run_case):
    runs = run_case(case)
    assert runs.test_accuracy > case.target
    if case.published:
        assert runs.best_test_accuracy >= case.published.floor
