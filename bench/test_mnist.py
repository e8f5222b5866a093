"""Standard and full: norm x regularizer x batch size on MNIST, beside the published tables."""

import pytest


@pytest.mark.cases("mnist", "mnist_plain", "mnist_textbook")
def test_mnist(case, run_case):
    runs = run_case(case)
    assert runs.test_accuracy > case.target
    if case.published:
        assert runs.best_test_accuracy >= case.published.floor
