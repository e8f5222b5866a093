"""Smoke: every norm x regularizer on the digits that scikit-learn carries."""

import pytest

from normbench import Runs


@pytest.mark.cases("digits")
def test_digits(case, run):
    runs = Runs.of(run(spec) for spec in case.specs)
    assert runs.test_accuracy > case.target
