"""What a run costs, estimated: an order, not a duration."""

import dataclasses

import pytest

from normbench.engine.costs import estimated_seconds
from normbench.spec import RunSpec

SPEC = RunSpec("mnist", "mnist", "batch", batch_size=64, epochs=8)


def test_estimates_rank_runs_as_their_work_does() -> None:
    cost = estimated_seconds(SPEC)
    assert estimated_seconds(dataclasses.replace(SPEC, epochs=16)) == pytest.approx(2 * cost)
    assert estimated_seconds(dataclasses.replace(SPEC, batch_size=32)) > cost
    assert estimated_seconds(dataclasses.replace(SPEC, norm="none")) < cost


def test_half_of_the_images_cost_half() -> None:
    part = dataclasses.replace(SPEC, train_images=30_000)
    assert estimated_seconds(part) == pytest.approx(estimated_seconds(SPEC) / 2)
