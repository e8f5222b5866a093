"""The engine as it trains, with all that each of its steps was given and has left."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normbench.check.formulas import formula_of
from normbench.models.sites import norm_layers
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.training.checkpoints import Checkpoint
from normbench.training.data import ImageData
from normbench.training.recipes import Recipe
from normbench.training.steps import CapturedStep, Step
from normbench.training.trainer import Evaluation, Training, train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Snapshot:
    """A training's state between two steps, by the names in the network, in the engine's types."""

    parameters: Mapping[str, Tensor]
    momenta: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of it, each tensor by what it is."""
        return {
            **{f"parameter {name}": tensor for name, tensor in self.parameters.items()},
            **{f"momentum of {name}": tensor for name, tensor in self.momenta.items()},
            **{f"buffer {name}": tensor for name, tensor in self.buffers.items()},
        }


@dataclass(frozen=True)
class RecordedStep:
    """One step: its batch, the state before and after, and what the network answered.

    ``inputs`` are those of the layers that have kinks, by their names in the network; ``norms``
    are copies of the norm layers before the step, where they were asked for.
    """

    images: Tensor
    labels: Tensor
    before: Snapshot
    after: Snapshot
    logits: Tensor
    inputs: Mapping[str, Tensor]
    norms: Mapping[str, nn.Module]


class RecordedTraining(Training):
    """A training that keeps a RecordedStep of each of its steps, and its last evaluation.

    Only ``step`` is wrapped, and layers are listened to: what is computed stays as it is. Of a norm
    without a formula, copies of its layers are kept with each step. All that is kept lies on the
    CPU, wherever the training runs.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: RunSpec,
        recipe: Recipe,
        data: ImageData,
        device: torch.device,
    ) -> None:
        super().__init__(network, spec, recipe, data, device)
        self.steps: list[RecordedStep] = []
        self.evaluation: Evaluation | None = None
        self._inputs: dict[str, Tensor] = {}
        # a CUDA graph writes to these at each replay, and calls no layer
        self._captured: dict[str, Tensor] = {}
        self.keeps_norms = formula_of(spec.norm) is None
        self.untold = self.step
        self.step = self._recorded
        for name, layer in network.named_modules():
            if name.rpartition(".")[2] == "pool" or isinstance(layer, nn.ReLU):
                layer.register_forward_pre_hook(self._listener(name))

    def _listener(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            on_gpu = inputs[0].is_cuda and torch.cuda.is_current_stream_capturing()
            (self._captured if on_gpu else self._inputs)[name] = inputs[0].detach()

        return note

    def _recorded(self, images: Tensor, labels: Tensor) -> Tensor:
        images, labels = images.clone(), labels.clone()
        before, norms = self.snapshot(), self.norm_layers() if self.keeps_norms else {}
        self._inputs = {}
        logits = self.untold(images, labels)
        inputs = self._captured if _replays(self.untold) else self._inputs
        kept = {name: tensor.to(CPU, copy=True) for name, tensor in inputs.items()}
        batch, after = (images.cpu(), labels.cpu()), self.snapshot()
        self.steps.append(RecordedStep(*batch, before, after, logits.cpu(), kept, norms))
        return logits

    def run(
        self, on_epoch: Callable[[Epoch], None], checkpoint: Checkpoint | None = None
    ) -> Evaluation:
        self.evaluation = super().run(on_epoch, checkpoint)
        return self.evaluation

    def snapshot(self) -> Snapshot:
        """Return a copy of the training's state; the momenta are zero before the first step."""
        trained = {n: p.detach() for n, p in self.network.named_parameters() if p.requires_grad}
        frozen = {n: p.detach() for n, p in self.network.named_parameters() if not p.requires_grad}
        momenta = self._momenta(trained)
        buffers = {**dict(self.network.named_buffers()), **frozen}
        return Snapshot(
            *({n: t.to(CPU, copy=True) for n, t in d.items()} for d in (trained, momenta, buffers))
        )

    def _momenta(self, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the momenta of SGD and Muon; zeros where there are none yet, or other ones."""
        states = self.optimizer.state
        if self.recipe.optimizer == "sgd" and states:
            # it has all parameters as one vector, of which the network's are views
            ((flat, state),) = states.items()
            start = flat.storage_offset()
            if (momentum := state.get("momentum_buffer")) is not None:
                return {
                    name: momentum.as_strided(p.shape, p.stride(), p.storage_offset() - start)
                    for name, p in trained.items()
                }
        named = dict(self.network.named_parameters())
        kept = {name: states.get(named[name], {}).get("momentum_buffer") for name in trained}
        return {n: torch.zeros_like(p) if (k := kept[n]) is None else k for n, p in trained.items()}

    def norm_layers(self) -> dict[str, nn.Module]:
        """Return copies of the norm layers by their names in the network."""
        return {
            name: copy.deepcopy(layer).to(CPU) for name, layer in norm_layers(self.network).items()
        }


@dataclass(frozen=True)
class Recording:
    """A run of the engine from its beginning to its result."""

    result: RunResult
    training: RecordedTraining

    @property
    def steps(self) -> list[RecordedStep]:
        return self.training.steps

    @property
    def test_images(self) -> Tensor:
        """The images that were evaluated, as the network took them."""
        return self.training.test_images.cpu()

    @property
    def evaluation(self) -> Evaluation:
        """The last evaluation, of a run that has come to its end."""
        last = self.training.evaluation
        assert last is not None
        return Evaluation(last.logits.cpu(), last.labels.cpu())


def _replays(step: Step) -> bool:
    """Tell whether a step replays a CUDA graph."""
    return isinstance(step, CapturedStep) and step.replay is not step.step


def record(
    spec: RunSpec,
    data: ImageData,
    kind: type[RecordedTraining] = RecordedTraining,
    device: torch.device = CPU,
) -> Recording:
    """Train as ``spec`` says and keep every step; raises what trainer.train raises."""
    begun: list[RecordedTraining] = []

    def begin(spec: RunSpec, data: ImageData, device: torch.device) -> Training:
        begun.append(kind.begin(spec, data, device))
        return begun[-1]

    result = train(spec, data.to(device), device, begin=begin)
    return Recording(result, begun[-1])
