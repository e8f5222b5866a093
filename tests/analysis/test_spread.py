"""Spread: the variance of a configuration's runs, known from those that are like it."""

import pytest

from normbench.analysis.spread import Spread
from normbench.spec import RunSpec

from .simulation import baseline_of

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=1)


def test_variances_are_moderated_within_one_data_set_and_recipe() -> None:
    other = RunSpec("mnist", "mnist", "batch", epochs=1)
    spread = Spread(baseline_of({SPEC: [0.99, 0.97], other: [0.995, 0.995, 0.9956]}))
    assert spread.variance(SPEC).value == pytest.approx(2e-4)
    assert spread.variance(other).value == pytest.approx(1.2e-7)
    unseen = RunSpec("digits", "digits", "layer", recipe="digits", epochs=1)
    assert spread.variance(unseen).value == pytest.approx(2e-4)
    elsewhere = RunSpec("cifar10", "cifar10", "layer", recipe="cifar10")
    assert not spread.variance(elsewhere).known
