"""Standard and full: norm x regularizer on CIFAR-10 with fewer than 50,000 parameters."""

import pytest


@pytest.mark.cases("cifar10", "cifar10_best")
def test_cifar10(case, run_case):
    runs = run_case(case)
    assert runs.test_accuracy > case.target
    if case.published:
        assert runs.best_test_accuracy >= case.published.floor
