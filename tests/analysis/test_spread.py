"""Spread: the variance of a configuration's runs, known from those that are like it."""

import dataclasses

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


def test_each_configuration_keeps_much_of_its_own_variance_whatever_the_seed() -> None:
    deviations = (0.001, 0.001, 0.001, 0.03, 0.03, 0.03)
    specs = [dataclasses.replace(SPEC, batch_size=2**n) for n in range(6)]
    steps = (-2, -1, -0.5, 0, 0.5, 1, 2)
    spread = Spread(
        baseline_of(
            {
                spec: [0.9 + deviation * step for step in steps]
                for spec, deviation in zip(specs, deviations, strict=True)
            }
        )
    )
    quiet, noisy = (spread.variance(spec).value ** 0.5 for spec in (specs[0], specs[-1]))
    assert quiet < 0.003 < 0.02 < noisy
    assert spread.variance(specs[0].with_seed(3)) == spread.variance(specs[0])


def test_equal_accuracies_vary_as_much_as_a_test_image_rounds_them() -> None:
    spread = Spread(baseline_of({SPEC: [0.97] * 5}))
    # of the 449 test images of the digits
    assert spread.variance(SPEC).value == pytest.approx(1 / 449**2 / 12)
