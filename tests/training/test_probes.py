"""What is noted of activations and weights, beside what one works out by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from normbench.models.networks import build_network
from normbench.results import WEIGHT_EDGES, RunResult
from normbench.spec import RunSpec
from normbench.training.data import load_dataset
from normbench.training.probes import activation_statistics, by_layer, weight_histogram
from normbench.training.trainer import train

CPU = torch.device("cpu")


def test_a_layer_norm_makes_of_anything_mean_zero_and_deviation_one() -> None:
    network = build_network("digits", "layer")
    images = 5 + 3 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = activation_statistics(network, images)
    assert list(found) == ["blocks.block1.norm", "blocks.block2.norm", "blocks.block3.norm"]
    before = network.get_submodule("blocks.block1.convolution")(images)
    mean_before, std_before, mean_after, std_after = found["blocks.block1.norm"]
    assert mean_before == pytest.approx(before.mean().item(), rel=1e-5)
    assert std_before == pytest.approx(before.std(correction=0).item(), rel=1e-5)
    assert mean_after == pytest.approx(0, abs=1e-5)
    assert std_after == pytest.approx(1, abs=1e-4)


def test_without_a_norm_nothing_changes_and_no_hook_stays() -> None:
    network = build_network("digits", "none")
    for mean_before, std_before, mean_after, std_after in activation_statistics(
        network, torch.ones(4, 1, 8, 8)
    ).values():
        assert (mean_before, std_before) == (mean_after, std_after)
    assert not any(module._forward_hooks for module in network.modules())


def test_statistics_are_kept_by_layer_over_the_epochs() -> None:
    layers = by_layer([{"a": (1.0, 2.0, 3.0, 4.0)}, {"a": (5.0, 6.0, 7.0, 8.0)}])
    assert [layer.layer for layer in layers] == ["a"]
    assert (layers[0].mean_before, layers[0].std_after) == ((1.0, 5.0), (4.0, 8.0))


def test_weights_are_counted_by_their_size() -> None:
    network = nn.ParameterList([torch.tensor([0.0, -1e-7, 1.1e-6]), torch.tensor([-2, 0.5, 100])])
    counts = weight_histogram(network)
    assert len(counts) == len(WEIGHT_EDGES) + 1
    assert counts[:2] == (2, 1)
    assert counts[-1] == 1
    assert sum(counts) == 6
    # 2 lies between 10 ** 0.25 and 10 ** 0.5
    above = next(n for n, edge in enumerate(WEIGHT_EDGES) if edge > 2)
    assert counts[above] == 1
    assert WEIGHT_EDGES[above] == pytest.approx(math.sqrt(10))


def test_weights_that_are_not_trained_are_not_counted() -> None:
    network = nn.ParameterList([torch.ones(3), nn.Parameter(torch.tensor(True), False)])
    assert sum(weight_histogram(network)) == 3


def test_a_run_keeps_them_and_finds_them_again(tmp_path: Path) -> None:
    data = load_dataset("digits", tmp_path, CPU)
    spec = RunSpec("digits", "digits", "batch", regularizer="l1:0.01", epochs=2, recipe="digits")
    result = train(spec, data, CPU)
    assert [len(layer.std_after) for layer in result.activations] == [2, 2, 2]
    assert sum(result.weights) == result.parameters
    assert len(result.wrong) == result.incorrect
    assert {mistake.index for mistake in result.mistakes} <= set(result.wrong)
    assert RunResult.from_row(result.to_row()) == result
    older = {
        key: value
        for key, value in result.to_row().items()
        if key not in ("wrong", "weights", "activations")
    }
    assert RunResult.from_row(older).activations == ()


def test_l1_leaves_more_weights_at_zero(tmp_path: Path) -> None:
    data = load_dataset("digits", tmp_path, CPU)
    spec = RunSpec("digits", "digits", "batch", epochs=8, recipe="digits")
    with_l1 = RunSpec("digits", "digits", "batch", regularizer="l1:0.01", epochs=8, recipe="digits")
    small = next(n for n, edge in enumerate(WEIGHT_EDGES) if edge > 0.99e-3) + 1
    shares = [
        sum(run.weights[:small]) / run.parameters
        for run in (train(spec, data, CPU), train(with_l1, data, CPU))
    ]
    assert shares[0] < 0.05
    assert shares[1] > 0.3
