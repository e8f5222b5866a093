"""What a run costs, estimated: an order, not a duration."""

import dataclasses

import pytest

from normbench.engine.costs import (
    estimated_seconds,
    measured_factors,
    seconds_per_image,
    share_done,
)
from normbench.results import Epoch
from normbench.spec import RunSpec

from ..models import own_networks

SPEC = RunSpec("mnist", "mnist", "batch", batch_size=64, epochs=8)


def test_estimates_rank_runs_as_their_work_does() -> None:
    cost = estimated_seconds(SPEC)
    assert estimated_seconds(dataclasses.replace(SPEC, epochs=16)) == pytest.approx(2 * cost)
    assert estimated_seconds(dataclasses.replace(SPEC, batch_size=32)) > cost
    assert estimated_seconds(dataclasses.replace(SPEC, norm="none")) < cost


def test_half_of_the_images_cost_half() -> None:
    part = dataclasses.replace(SPEC, train_images=30_000)
    assert estimated_seconds(part) == pytest.approx(estimated_seconds(SPEC) / 2)


def test_an_epoch_of_some_of_the_images_costs_its_part() -> None:
    # two epochs of all images, and five of two fifths
    selecting = dataclasses.replace(SPEC, recipe="mnist-fast", epochs=7)
    assert estimated_seconds(selecting) == pytest.approx(estimated_seconds(SPEC) / 2)
    assert [share_done(selecting, n) for n in (0, 2, 7)] == pytest.approx([0, 0.5, 1])


def own(network: str) -> str:
    return f"{own_networks.__name__}:{network}"


def test_a_network_of_ones_own_costs_by_its_operations() -> None:
    # multiplications and additions of two convolutions and the classifier
    operations = 2 * (14 * 14 * 8 * 9 + 14 * 14 * 8 * 8 * 9 + 8 * 10)
    assert seconds_per_image(own("TinyResNet"), "mnist") == pytest.approx(7e-11 * operations)


def test_a_network_that_cannot_be_built_costs_what_a_middling_one_does() -> None:
    for network in ("nowhere:Net", own("Raising")):
        assert seconds_per_image(network, "mnist") == 4e-4


def epochs(count: int, seconds: float) -> list[Epoch]:
    return [Epoch(n, 0.1, 1.0, 0.5, 1.0, 0.5, seconds * 0.75, seconds / 4) for n in range(count)]


def test_a_network_is_measured_from_its_first_epoch_on() -> None:
    spec = dataclasses.replace(SPEC, network=own("TinyResNet"))
    an_epoch, own_epoch = (estimated_seconds(each) / each.epochs for each in (SPEC, spec))
    factors = measured_factors(
        [
            (SPEC, epochs(2, 3 * an_epoch)),
            (SPEC.with_seed(1), epochs(2, 5 * an_epoch)),
            (spec, epochs(1, 20 * own_epoch)),
            (dataclasses.replace(SPEC, network="cifar10"), []),
        ]
    )
    assert factors == pytest.approx({"mnist": 4, own("TinyResNet"): 20})
