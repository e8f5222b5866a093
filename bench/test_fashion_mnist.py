"""Full: norm x regularizer on Fashion-MNIST, whose images are clothes in MNIST's format."""

import pytest


@pytest.mark.cases("fashion_mnist")
def test_fashion_mnist(case, run_case):
    assert run_case(case).test_accuracy > case.target
