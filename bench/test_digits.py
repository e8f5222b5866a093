"""Smoke: every norm x regularizer on the digits that scikit-learn carries."""

import pytest


@pytest.mark.cases("digits")
def test_digits(case, run_case):
    runs = run_case(case)
    assert runs.test_accuracy > case.target
