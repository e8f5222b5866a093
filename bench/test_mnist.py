"""Standard: norm x regularizer x batch size on MNIST, beside the published tables."""

import pytest

from normbench import Runs


@pytest.mark.cases("mnist")
def test_mnist(case, run):
    runs = Runs.of(run(spec) for spec in case.specs)
    assert runs.test_accuracy > case.target
    if case.published:
        assert runs.best_test_accuracy >= case.published.floor
