"""A step of training and an evaluation in float64, from their definitions: an independent engine.

It shares no code with the rooms that train; it reads a network's stages and activation, and a
recipe's numbers. Norms are those of normbench.check.formulas. Nothing here calls torch.nn or
torch.optim; convolution is a matrix product of unfolded features, and gradients are autograd's.
Networks are without dropout.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from normbench.check.formulas import PENALTIES, standardized_weights
from normbench.models.norms import brings_activation, standardizes_weights
from normbench.models.stacks import ConvolutionalNetwork, Stage
from normbench.training.recipes import Recipe

# Maps a layer's name in the network, its features, the state by the names in the network, and
# whether it is training, to its output and the buffers that it has afterwards.
NormLayer = Callable[[str, Tensor, Mapping[str, Tensor], bool], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class State:
    """What a step begins from, or ends at, by the names in the network: float64, but for counters.

    ``momenta`` are those of SGD, zero before the first step.
    """

    parameters: Mapping[str, Tensor]
    momenta: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What the loss and the update depend on."""

    strengths: Mapping[str, float]
    optimizer: str
    momentum: float
    label_smoothing: float
    learning_rate: float


class Choices:
    """On which side of its kink each element is: of a ReLU at 0, of a max-pool between two maxima.

    At a kink the gradient jumps, so that rounding decides on it where an element is as close to
    one as rounding goes. There, and nowhere else, ``seen`` decides: what another engine has had as
    the inputs of the layers; ``within`` says how close that is, over the root mean square of a
    layer's input. ``taken`` are choices to be taken again.
    """

    def __init__(
        self,
        seen: Mapping[str, Tensor] | None = None,
        within: Mapping[str, float] | None = None,
        taken: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.seen, self.within = seen or {}, within or {}
        self.taken: dict[str, Tensor] = dict(taken or {})
        self.inputs: dict[str, Tensor] = {}

    def _distance(self, layer: str, features: Tensor) -> float:
        return self.within.get(layer, 0.0) * _root_mean_square(features)

    def positive(self, layer: str, features: Tensor) -> Tensor:
        """Return where the features of a ReLU count as positive."""
        self.inputs[layer] = features.detach()
        if layer not in self.taken:
            positive = features > 0
            if layer in self.seen:
                near = features.abs() <= self._distance(layer, features)
                positive = torch.where(near, self.seen[layer] > 0, positive)
            self.taken[layer] = positive
        return self.taken[layer]

    def largest(self, layer: str, features: Tensor, size: int) -> Tensor:
        """Return the index of each window's maximum, the first of several."""
        self.inputs[layer] = features.detach()
        if layer not in self.taken:
            windows = windowed(features.detach(), size)
            if layer in self.seen:
                close = windows.amax(-1, keepdim=True) - 2 * self._distance(layer, features)
                windows = windowed(self.seen[layer].double(), size).where(
                    windows >= close, torch.tensor(-math.inf, dtype=torch.float64)
                )
            self.taken[layer] = windows.argmax(-1, keepdim=True)
        return self.taken[layer]


def _root_mean_square(tensor: Tensor) -> float:
    return (tensor.detach().square().mean() ** 0.5).item()


def windowed(features: Tensor, size: int) -> Tensor:
    """Return the ``size`` x ``size`` windows of ``(N, C, H, W)``: ``(N, C, h, w, size * size)``."""
    images, channels, height, width = features.shape
    high, wide = height // size, width // size
    cut = features[:, :, : high * size, : wide * size]
    windows = cut.reshape(images, channels, high, size, wide, size).permute(0, 1, 2, 4, 3, 5)
    return windows.reshape(images, channels, high, wide, size * size)


def max_pool(layer: str, features: Tensor, size: int, choices: Choices) -> Tensor:
    """Return the maximum of each ``size`` x ``size`` window."""
    chosen = choices.largest(layer, features, size)
    return windowed(features, size).gather(-1, chosen).squeeze(-1)


def convolution(features: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage) -> Tensor:
    """``y[o] = sum_{i, a, b} w[o, i, a, b] x[i, s h + a - p, s w + b - p]``, within each group."""
    images, _, height, _ = features.shape
    outputs, kernel, groups = len(weight), stage.kernel, stage.groups
    size = (height + 2 * stage.padding - kernel) // stage.stride + 1
    columns = unfold(features, kernel, padding=stage.padding, stride=stage.stride)
    terms = columns.shape[1] // groups
    product = torch.matmul(
        weight.reshape(groups, outputs // groups, terms),
        columns.reshape(images, groups, terms, -1),
    )
    convolved = product.reshape(images, outputs, size, size)
    return convolved if bias is None else convolved + bias.reshape(-1, 1, 1)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``mean_i sum_k q_ik (log sum_j exp z_ij - z_ik)``, ``q = (1 - s) onehot + s / classes``.

    Source: Szegedy et al., Rethinking the Inception Architecture, 2015, section 7.
    """
    images, classes = logits.shape
    largest = logits.detach().amax(1, keepdim=True)
    total = (logits - largest).exp().sum(1, keepdim=True).log() + largest
    target = torch.full_like(logits.detach(), label_smoothing / classes)
    target[torch.arange(images), labels] += 1 - label_smoothing
    return (target * (total - logits)).sum() / images


def one_cycle_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step, the first being 0, of ``steps``.

    Half a cosine from ``peak / 25`` up to the peak in a fraction ``warmup`` of ``steps + 1``, and
    half a cosine down to ``peak / 25 / 10**4``, which is reached after the last step.

    Source: Smith and Topin, Super-Convergence, 2018; torch.optim.lr_scheduler.OneCycleLR's
    documentation for the numbers.
    """
    top = warmup * (steps + 1) - 1
    low, least = peak / 25, peak / 25 / 1e4
    first, last, done = (
        (low, peak, step / top) if step <= top else (peak, least, (step - top) / (steps - top))
    )
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def scheduled_rate(recipe: Recipe, step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step by the recipe's schedule.

    But for the one cycle: ``peak (i + 1) / (w + 1)`` in the first ``w`` steps, the part ``warmup``
    of all; then half a cosine or a line down to 0 after the last step, or the peak.
    """
    if recipe.schedule == "one-cycle":
        return one_cycle_rate(step, steps, peak, recipe.warmup)
    rising = round(recipe.warmup * steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    left = 1 - (step - rising) / max(1, steps - rising)
    if recipe.schedule == "linear":
        return peak * left
    return peak * (1 - math.cos(math.pi * left)) / 2 if recipe.schedule == "cosine" else peak


@dataclass(frozen=True)
class Stepped:
    """What a step has come to: the logits before it, the loss, and the state after it."""

    logits: Tensor
    loss: float
    after: State


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _parted(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of a vector, in the shapes of the tensors that were joined."""
    parts = vector.split([tensor.numel() for tensor in like.values()])
    return {n: part.reshape(t.shape) for (n, t), part in zip(like.items(), parts, strict=True)}


@dataclass(frozen=True)
class Reference:
    """A network with its norm, as it is trained and evaluated in float64.

    ``activation`` is "Identity" where the norm brings its own; ``standardized`` says whether the
    norm standardizes the weights of the convolutions.
    """

    stages: Sequence[Stage]
    activation: str
    norm: NormLayer = field(repr=False)
    standardized: bool = False

    @classmethod
    def of(
        cls, network: type[ConvolutionalNetwork], norm: NormLayer, layer: nn.Module
    ) -> "Reference":
        """Return the reference of a network with a norm, whose ``layer`` says what it asks for."""
        activation = "Identity" if brings_activation(layer) else network.activation.__name__
        return cls(network.stages, activation, norm, standardizes_weights(layer))

    def logits(
        self,
        images: Tensor,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        training: bool,
        choices: Choices,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the network's logits, and the buffers that its norms have afterwards."""
        state = {**parameters, **buffers}
        features, after = images, dict(buffers)
        for number, stage in enumerate(self.stages, start=1):
            block = f"blocks.block{number}"
            weight, bias = (state.get(f"{block}.convolution.{n}") for n in ("weight", "bias"))
            assert weight is not None
            weight = standardized_weights(weight) if self.standardized else weight
            output = convolution(features, weight, bias, stage)
            if stage.pool > 1:
                output = max_pool(f"{block}.pool", output, stage.pool, choices)
            output, stored = self.norm(f"{block}.norm", output, state, training)
            after |= {f"{block}.norm.{name}": tensor for name, tensor in stored.items()}
            output = self._activated(f"{block}.activation", output, choices)
            features = features + output if stage.residual else output
        largest = max_pool("pool", features, features.shape[-1], choices).flatten(1)
        logits = largest @ state["classifier.weight"].t() + state["classifier.bias"]
        return logits, after

    def _activated(self, layer: str, features: Tensor, choices: Choices) -> Tensor:
        """``max(0, x)`` for ReLU, ``x / (1 + exp(-x))`` for SiLU, ``x`` where there is none."""
        if self.activation == "Identity":
            return features
        if self.activation == "ReLU":
            zero = torch.zeros((), dtype=features.dtype)
            return torch.where(choices.positive(layer, features), features, zero)
        if self.activation == "SiLU":
            return features / (1 + (-features).exp())
        raise ValueError(
            f"the activation {self.activation} has no reference: expected ReLU or SiLU; write its "
            "definition down in normbench.check.reference"
        )

    def step(
        self, state: State, images: Tensor, labels: Tensor, settings: Settings, choices: Choices
    ) -> Stepped:
        """Take one step of SGD with Nesterov momentum, or Muon's, on the regularized loss.

        ``v <- m v + g`` and ``p <- p - r (g + m v)``, where ``g`` is the gradient of the
        cross-entropy and the penalties of normbench.check.formulas. Decoupled weight decay makes
        ``p <- p - r d p`` of the parameters before. Muon orthogonalizes ``g + m v`` of kernels.

        Source: Sutskever et al., On the Importance of Initialization and Momentum, 2013, in the
        form that torch.optim.SGD's documentation gives.
        """
        leaves = {n: p.detach().clone().requires_grad_() for n, p in state.parameters.items()}
        logits, after = self.logits(images, leaves, state.buffers, True, choices)
        loss = cross_entropy(logits, labels, settings.label_smoothing)
        objective = loss
        for name, strength in settings.strengths.items():
            if name in PENALTIES:
                objective = objective + strength * PENALTIES[name](leaves)
        gradients = torch.autograd.grad(objective, list(leaves.values()), allow_unused=True)
        # all parameters as one vector: the operations are many and small otherwise
        before = _joined(state.parameters.values())
        g = _joined(
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves.values(), gradients, strict=True)
        )
        velocity = settings.momentum * _joined(state.momenta[name] for name in leaves) + g
        decay = settings.strengths.get("decoupled", 0.0)
        before = before * (1 - settings.learning_rate * decay)
        update = g + settings.momentum * velocity
        moved = _parted(before - settings.learning_rate * update, leaves)
        if settings.optimizer == "muon":
            befores, updates = _parted(before, leaves), _parted(update, leaves)
            for name, kernel in befores.items():
                if kernel.ndim == 4 and len(kernel) > 1 and kernel[0].numel() > 1:
                    moved[name] = muon_step(kernel, updates[name], settings.learning_rate)
        buffers = {name: tensor.detach() for name, tensor in after.items()}
        return Stepped(
            logits.detach(), loss.item(), State(moved, _parted(velocity, leaves), buffers)
        )


def muon_step(kernel: Tensor, update: Tensor, learning_rate: float) -> Tensor:
    """Return a kernel W of ``(O, I, K, K)`` after a step of Muon, U being the update as a matrix.

    ``W - r (0.1 W + sqrt(max(1, O / (I K K))) P(P(P(P(P(U / |U|))))))``, where r is 0.15 of the
    learning rate, and ``P(X) = 3.4445 X - 4.775 X X' X + 2.0315 X X' X X' X``.

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
    """
    matrix = update.reshape(len(update), -1)
    columns = matrix.shape[1]
    direction = matrix / (matrix.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        gram = direction.T @ direction
        third = direction @ gram
        direction = 3.4445 * direction - 4.775 * third + 2.0315 * (third @ gram)
    direction = max(1.0, len(update) / columns) ** 0.5 * direction.reshape(kernel.shape)
    moved: Tensor = kernel - 0.15 * learning_rate * (0.1 * kernel + direction)
    return moved


def settings_of(
    recipe: Recipe, strengths: Mapping[str, float], batch_size: int, step: int, steps: int
) -> Settings:
    """Return what a recipe says of the step, the first being 0, of a run of ``steps``.

    The recipe has the peak at a batch size of 64; with the batch size it goes linearly (Goyal et
    al., Accurate, Large Minibatch SGD, 2017), by its square root, or not at all.
    """
    power = {"linear": 1.0, "square-root": 0.5, "none": 0.0}[recipe.scaling]
    peak = recipe.learning_rate * (batch_size / 64) ** power
    return Settings(
        strengths=strengths,
        optimizer=recipe.optimizer,
        momentum=recipe.momentum,
        label_smoothing=recipe.label_smoothing,
        learning_rate=scheduled_rate(recipe, step, steps, peak),
    )
