"""The engine as it trains, with all that each of its steps was given and has left."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normbench.check.formulas import formula_of
from normbench.models.networks import ConvolutionalNetwork
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.training.checkpoints import Checkpoint
from normbench.training.data import ImageData
from normbench.training.recipes import Recipe
from normbench.training.trainer import Evaluation, Training, train


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
    without a formula, copies of its layers are kept with each step.
    """

    def __init__(
        self,
        network: ConvolutionalNetwork,
        spec: RunSpec,
        recipe: Recipe,
        data: ImageData,
        device: torch.device,
    ) -> None:
        super().__init__(network, spec, recipe, data, device)
        self.steps: list[RecordedStep] = []
        self.evaluation: Evaluation | None = None
        self._inputs: dict[str, Tensor] = {}
        self.keeps_norms = formula_of(spec.norm) is None
        self.untold = self.step
        self.step = self._recorded
        for name, layer in network.named_modules():
            if name.rpartition(".")[2] == "pool" or isinstance(layer, nn.ReLU):
                layer.register_forward_pre_hook(self._listener(name))

    def _listener(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._inputs[name] = inputs[0].detach()

        return note

    def _recorded(self, images: Tensor, labels: Tensor) -> Tensor:
        images, labels = images.clone(), labels.clone()
        before, norms = self.snapshot(), self.norm_layers() if self.keeps_norms else {}
        self._inputs = {}
        logits = self.untold(images, labels)
        inputs, self._inputs = self._inputs, {}
        self.steps.append(
            RecordedStep(images, labels, before, self.snapshot(), logits, inputs, norms)
        )
        return logits

    def run(
        self, on_epoch: Callable[[Epoch], None], checkpoint: Checkpoint | None = None
    ) -> Evaluation:
        self.evaluation = super().run(on_epoch, checkpoint)
        return self.evaluation

    def snapshot(self) -> Snapshot:
        """Return a copy of the training's state; the momenta are zero before the first step."""
        (flat,) = self.optimizer.param_groups[0]["params"]
        momentum = self.optimizer.state[flat].get("momentum_buffer")
        momentum = torch.zeros_like(flat) if momentum is None else momentum
        trained = {n: p.detach() for n, p in self.network.named_parameters() if p.requires_grad}
        frozen = {n: p.detach() for n, p in self.network.named_parameters() if not p.requires_grad}
        start = flat.storage_offset()
        # the optimizer has all parameters as one vector, of which the network's are views
        momenta = {
            name: momentum.as_strided(p.shape, p.stride(), p.storage_offset() - start)
            for name, p in trained.items()
        }
        buffers = {**dict(self.network.named_buffers()), **frozen}
        return Snapshot(
            *({n: t.clone() for n, t in d.items()} for d in (trained, momenta, buffers))
        )

    def norm_layers(self) -> dict[str, nn.Module]:
        """Return copies of the norm layers by their names in the network."""
        return {
            name: copy.deepcopy(layer)
            for name, layer in self.network.named_modules()
            if name.rpartition(".")[2] == "norm" and name.count(".") == 2
        }


@dataclass(frozen=True)
class Recording:
    """A run of the engine from its beginning to its result."""

    result: RunResult
    training: RecordedTraining

    @property
    def steps(self) -> list[RecordedStep]:
        return self.training.steps


def record(
    spec: RunSpec, data: ImageData, kind: type[RecordedTraining] = RecordedTraining
) -> Recording:
    """Train as ``spec`` says, on the CPU, and keep every step; raises what trainer.train raises."""
    begun: list[RecordedTraining] = []

    def begin(spec: RunSpec, data: ImageData, device: torch.device) -> Training:
        begun.append(kind.begin(spec, data, device))
        return begun[-1]

    result = train(spec, data, torch.device("cpu"), begin=begin)
    return Recording(result, begun[-1])
