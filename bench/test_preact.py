"""Full: norm x regularizer on MNIST with a pre-activation residual network."""

import pytest


@pytest.mark.cases("preact")
def test_preact(case, run_case):
    assert run_case(case).test_accuracy > case.target
