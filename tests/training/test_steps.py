"""Steps: parameters in one vector, what is rolled back, and the CUDA graph."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.models.networks import build_network
from normbench.models.regularizers import L1
from normbench.spec import RunSpec
from normbench.training.data import load_dataset
from normbench.training.steps import (
    CapturedStep,
    FlatParameters,
    Step,
    TrainingStep,
    replaced_buffers,
    rolled_back,
)
from normbench.training.trainer import on_device, train

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def step_of(norm: str, device: str = "cpu") -> TrainingStep:
    torch.manual_seed(0)
    network = build_network("digits", norm).to(device).train()
    flat = FlatParameters(network)
    rate = torch.tensor(0.05, device=device) if device == "cuda" else 0.05
    optimizer = torch.optim.SGD([flat.values], rate, 0.9, nesterov=True, fused=True)
    return TrainingStep(network, flat, optimizer, [L1(0.001)], 0.1)


def batches(count: int, device: str = "cpu") -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 32, 1, 8, 8, generator=generator).to(device)
    labels = torch.randint(10, (count, 32), generator=generator).to(device)
    return list(zip(images, labels, strict=True))


def losses(step: Step, count: int, device: str = "cpu") -> list[float]:
    # as a run has it: on a GPU the same to the bit, and in float32
    with on_device(torch.device(device)):
        return [F.cross_entropy(step(x, y), y).item() for x, y in batches(count, device)]


def gradient_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_flat_parameters_are_views_of_one_vector() -> None:
    network = build_network("digits", "batch")
    before = [p.detach().clone() for p in network.parameters()]
    flat = FlatParameters(network)
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
    flat.values.data.zero_()
    assert all(p.eq(0).all() for p in network.parameters())
    network(torch.randn(4, 1, 8, 8)).sum().backward()
    gradients = torch.cat([gradient_of(p).flatten() for p in network.parameters()])
    assert flat.gradient.abs().sum() == pytest.approx(gradients.abs().sum().item())


def test_frozen_parameters_are_not_among_them() -> None:
    network = build_network("digits", "batch")
    norm = network.get_submodule("blocks.block1.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.requires_grad_(False)
    norm.count = nn.Parameter(torch.tensor(7), requires_grad=False)
    norm.half()
    flat = FlatParameters(network)
    assert len(flat.values) == 14_458 - 2 * 16
    flat.values.data.zero_()
    assert norm.weight.tolist() == [1] * 16
    assert norm.weight.dtype == torch.float16
    assert norm.count == 7
    assert norm.weight.grad is None


def test_parameters_of_several_types_are_refused() -> None:
    network = build_network("digits", "batch")
    network.get_submodule("blocks.block1.norm").double()
    with pytest.raises(
        ValueError, match=r"are torch.float32 and torch.float64: expected one type; freeze the oth"
    ):
        FlatParameters(network)


@pytest.mark.parametrize("norm", ["batch", "group:4"])
def test_what_is_undone_leaves_no_trace(norm: str) -> None:
    step = step_of(norm)
    with rolled_back(step):
        losses(step, 3)
    assert losses(step, 10) == pytest.approx(losses(step_of(norm), 10), rel=1e-5)


def test_what_is_undone_in_the_midst_leaves_no_trace() -> None:
    step, other = step_of("batch"), step_of("batch")
    losses(step, 5), losses(other, 5)
    with rolled_back(step):
        losses(step, 3)
    assert losses(step, 5) == pytest.approx(losses(other, 5), rel=1e-5)


def test_a_step_that_cannot_be_captured_stays_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("operation not permitted when stream is capturing")

    # what a capture begins with
    monkeypatch.setattr(torch.cuda, "Stream", fail)
    with pytest.warns(UserWarning, match=r"cannot be captured .* not permitted when stream"):
        captured = losses(CapturedStep(step_of("batch")), 5)
    assert captured == losses(step_of("batch"), 5)


def recorded(step: TrainingStep, images: torch.Tensor, labels: torch.Tensor) -> Step:
    """Stand for a graph that repeats what a step does."""
    step(images, labels)
    return lambda images, labels: step(images, labels)


def test_a_replay_that_equals_a_plain_step_is_used() -> None:
    captured = CapturedStep(step_of("batch"), recorded)
    assert losses(captured, 5) == losses(step_of("batch"), 5)
    assert captured.replay is not captured.step


def test_the_random_numbers_of_dropout_are_those_of_plain_steps() -> None:
    def dropping() -> TrainingStep:
        step = step_of("batch")
        step.network.get_submodule("blocks.block1.norm").register_forward_hook(
            lambda _, __, output: F.dropout(output, 0.3)
        )
        torch.manual_seed(1)
        return step

    assert losses(CapturedStep(dropping(), recorded), 5) == losses(dropping(), 5)


def test_a_graph_that_does_nothing_is_not_trusted() -> None:
    def empty(step: TrainingStep, images: torch.Tensor, labels: torch.Tensor) -> Step:
        logits = step(images, labels)
        return lambda *_: logits

    captured = CapturedStep(step_of("batch"), empty)
    with pytest.warns(UserWarning, match=r"a replay is not what a plain step is: tensor 1 of the"):
        assert losses(captured, 5) == losses(step_of("batch"), 5)
    assert captured.replay is captured.step


class FakeGenerator:
    """Stands for a GPU's generator: a capture that fails leaves it in capture mode."""

    def __init__(self) -> None:
        self.capturing = False

    def clone_state(self) -> "FakeGenerator":
        return FakeGenerator()

    def graphsafe_set_state(self, other: "FakeGenerator") -> None:
        self.capturing = other.capturing


class FakeGraph:
    """Stands for CUDA's capture on a device, and notes the stream that it was given."""

    def __init__(self, generator: FakeGenerator, failing: bool) -> None:
        self.generator, self.failing = generator, failing
        self.streams: list[object] = []

    @contextmanager
    def capture(self, _: object, stream: object) -> Iterator[None]:
        self.streams.append(stream)
        self.generator.capturing = True
        yield
        if self.failing:
            raise RuntimeError("the capture was invalidated")
        self.generator.capturing = False

    def replay(self) -> None:
        """Do nothing, as the graph of another device would."""


class FakeStream:
    """Stands for a stream, which knows its device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, _: object) -> None:
        """Have nothing to wait for."""


def faked_cuda(monkeypatch: pytest.MonkeyPatch, failing: bool) -> FakeGraph:
    graph = FakeGraph(FakeGenerator(), failing)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", graph.capture)
    monkeypatch.setattr(torch.cuda, "default_generators", (graph.generator,))
    return graph


def test_a_capture_that_fails_leaves_no_generator_in_capture_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = faked_cuda(monkeypatch, failing=True)
    with pytest.warns(UserWarning, match=r"cannot be captured .*: the capture was invalidated"):
        assert losses(CapturedStep(step_of("batch")), 5) == losses(step_of("batch"), 5)
    assert not graph.generator.capturing


def test_a_step_is_captured_on_a_stream_of_its_own_batch_s_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = faked_cuda(monkeypatch, failing=False)
    with pytest.warns(UserWarning, match="a replay is not what a plain step is"):
        losses(CapturedStep(step_of("batch")), 1)
    (stream,) = graph.streams
    assert isinstance(stream, FakeStream)
    assert stream.device == torch.device("cpu")


class Counting(nn.Module):
    """Keeps a mean of all batches, which it counts in Python."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.batches = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches += 1
        self.mean.lerp_(x.detach().mean(), 1 / self.batches)
        return x


def test_a_norm_that_counts_in_python_is_not_trusted() -> None:
    step = step_of("none")
    norm = Counting()
    step.network.get_submodule("blocks.block1").register_module("norm", norm)

    def frozen(step: TrainingStep, images: torch.Tensor, labels: torch.Tensor) -> Step:
        """Stand for a graph, which goes through no Python: what is counted stays as it is."""
        step(images, labels)
        captured = norm.batches - 1

        def replay(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            counted, norm.batches = norm.batches, captured
            logits = step(images, labels)
            norm.batches = counted
            return logits

        return replay

    with pytest.warns(UserWarning, match=r"a replay is not what a plain step is: tensor \d+"):
        losses(CapturedStep(step, frozen), 1)


def test_what_a_norm_keeps_in_a_frozen_parameter_is_undone_as_well() -> None:
    step = step_of("batch")
    norm = step.network.get_submodule("blocks.block1.norm")
    norm.count = nn.Parameter(torch.tensor(0), requires_grad=False)
    norm.register_forward_hook(lambda layer, *_: layer.count.add_(1) and None)
    with rolled_back(step):
        losses(step, 3)
        assert norm.count == 3
    assert norm.count == 0


class Averaging(nn.Module):
    """Subtracts a running mean, whose buffers it replaces; the second is made late."""

    mean: torch.Tensor
    last: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("last", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x.detach().mean()
        self.mean = 0.9 * self.mean + 0.1 * self.last
        return x - self.mean


def averaging_step(device: str = "cpu") -> TrainingStep:
    step = step_of("none", device)
    block = step.network.get_submodule("blocks.block1")
    block.register_module("norm", Averaging().to(device))
    return step


def test_buffers_that_a_norm_replaces_are_undone_as_well() -> None:
    step = averaging_step()
    norm = step.network.get_submodule("blocks.block1.norm")
    assert isinstance(norm, Averaging)
    before = norm.mean
    with rolled_back(step):
        losses(step, 3)
        assert replaced_buffers(step.network, {"blocks.block1.norm.mean": before}) == [
            "blocks.block1.norm.mean",
            "blocks.block1.norm.last",
        ]
    assert norm.mean is before
    assert norm.mean == 0
    assert norm.last is None
    assert losses(step, 5) == losses(averaging_step(), 5)


@needs_gpu
def test_a_norm_that_replaces_a_buffer_is_not_captured() -> None:
    with pytest.warns(UserWarning, match=r"cannot be captured .*norm.mean is replaced, and not"):
        captured = losses(CapturedStep(averaging_step("cuda")), 5, "cuda")
    assert captured == pytest.approx(losses(averaging_step("cuda"), 5, "cuda"), rel=1e-3)


@needs_gpu
@pytest.mark.parametrize(
    "norm",
    [
        "none",
        "batch",
        "layer",
        "layer_chw",
        "group:4",
        "instance",
        "batch_renorm",
        "frn",
        "ghost:16",
        "ws+group:4",
    ],
)
def test_fifty_captured_steps_have_the_losses_of_plain_ones(norm: str) -> None:
    captured = losses(CapturedStep(step_of(norm, "cuda")), 50, "cuda")
    assert captured == losses(step_of(norm, "cuda"), 50, "cuda")


@needs_gpu
def test_a_norm_that_looks_at_a_value_trains_all_the_same() -> None:
    step = step_of("batch", "cuda")
    norm = step.network.get_submodule("blocks.block1.norm")

    def look(_: nn.Module, __: object, output: torch.Tensor) -> None:
        output.mean().item()

    norm.register_forward_hook(look)
    with pytest.warns(UserWarning, match="cannot be captured"):
        captured = losses(CapturedStep(step), 5, "cuda")
    assert captured == pytest.approx(losses(step_of("batch", "cuda"), 5, "cuda"), rel=1e-3)
    # the generator is not left in capture mode, in which it would refuse
    assert torch.rand(9, device="cuda").max() < 1


@needs_gpu
def test_a_run_on_a_gpu_learns_as_one_on_the_cpu(tmp_path: Path) -> None:
    spec = RunSpec("digits", "digits", "batch", epochs=4, recipe="digits")
    found = [
        train(spec, load_dataset("digits", tmp_path, torch.device(name)), torch.device(name))
        for name in ("cpu", "cuda")
    ]
    assert abs(found[0].test_accuracy - found[1].test_accuracy) < 0.03
