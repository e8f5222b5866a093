"""The function that a norm layer computes: against its formula, and its gradient."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from normbench.check.formulas import standardized_weights
from normbench.check.layers import (
    Bound,
    Subject,
    call,
    drawn,
    epsilon_of,
    exact_pass,
    measured,
    run_layer,
)
from normbench.check.properties import Property, Standing
from normbench.check.reference import convolution
from normbench.models.norms import standardize_weights, standardizes_weights
from normbench.models.stacks import Stage

SECTION = "function"
# Of a relative error in float64.
EXACT = 1e-12
UNDEFINED = "not finite, in float64 as well: the layer is not defined for such features"


@dataclass(frozen=True)
class Condition:
    """Features to compute with: ``channels`` are multiplied by what the layer needs.

    ``features_last`` and ``gradient_last`` say which of the two lie in channels_last;
    ``strided`` features are every second column of wider ones.
    """

    name: str
    images: int = 4
    channels: int = 6
    height: int = 5
    width: int = 5
    scale: float = 1.0
    offset: float = 0.0
    features_last: bool = False
    gradient_last: bool = False
    strided: bool = False

    def shape(self, multiple: int) -> tuple[int, int, int, int]:
        return self.images, self.channels * multiple, self.height, self.width

    def draw(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """Return features and a gradient of the output, in float64 with float32's numbers."""
        generator = subject.generator()
        shape = self.shape(subject.multiple)
        features = (drawn(shape, generator) * self.scale + self.offset).float().double()
        return features, drawn(shape, generator)

    def arranged(self, tensor: Tensor, last: bool) -> Tensor:
        """Return a tensor in the memory order of the condition, or as a view of a wider one."""
        if last:
            return tensor.contiguous(memory_format=torch.channels_last)
        if self.strided:
            return torch.stack([tensor, torch.zeros_like(tensor)], -1).flatten(-2)[..., ::2]
        return tensor


CONDITIONS = (
    *(Condition(f"batch of {n}", images=n) for n in (1, 2, 5, 64)),
    Condition("odd channels", channels=9),
    Condition("prime channels", channels=7),
    Condition("one channel, or one a group", channels=1),
    Condition("1 x 1 maps", height=1, width=1),
    Condition("one image of 1 x 1", images=1, height=1, width=1),
    Condition("one element a channel and group", images=1, channels=1, height=1, width=1),
    Condition("maps that are not square", height=3, width=8),
    Condition("features channels_last, gradient contiguous", features_last=True),
    Condition("features contiguous, gradient channels_last", gradient_last=True),
    Condition("both channels_last", features_last=True, gradient_last=True),
    *(
        Condition(f"one image, {name}", images=1, features_last=f, gradient_last=g)
        for name, f, g in (
            ("features channels_last, gradient contiguous", True, False),
            ("features contiguous, gradient channels_last", False, True),
            ("both channels_last", True, True),
        )
    ),
    Condition("views that are not contiguous", strided=True),
    Condition("a mean of 10,000 deviations", offset=1e4),
    Condition("constant features", scale=0.0, offset=3.7),
    Condition("features of size 1e-6", scale=1e-6),
    Condition("features of size 1e6", scale=1e6),
)


SHAPE = Condition("gradients", images=2, channels=3, height=2, width=3)


def function_properties(subject: Subject) -> Iterator[Property]:
    """Hold output, gradients and buffers against the exact ones, in both modes and types.

    The exact ones are the formula's in float64; of a norm without a formula, the float32 layer is
    held against itself in float64, and gradient_properties against the finite difference.
    """
    for condition in CONDITIONS:
        yield measured(SECTION, condition.name, partial(_under, subject, condition))


def _under(subject: Subject, condition: Condition) -> Property:
    dtypes = (torch.float64, torch.float32) if subject.formula else (torch.float32,)
    worst, told = 0.0, ""
    for dtype in dtypes:
        for training in (True, False):
            share, why = _excess(subject, condition, dtype, training)
            if share >= worst:
                mode = "training" if training else "evaluation"
                place = f"in {mode}, {str(dtype).removeprefix('torch.')}: "
                worst, told = share, why if why == UNDEFINED else place + why
    against = "the formula" if subject.formula else "itself in float64"
    if worst > 1:
        told += f", against {against}"
        if subject.is_random:
            told = "the layer's output differs from call to call"
        return Property(SECTION, condition.name, Standing.BROKEN, told)
    if told == UNDEFINED:
        return Property(SECTION, condition.name, Standing.NOT_CLAIMED, UNDEFINED)
    return Property(
        SECTION, condition.name, Standing.HOLDS, f"at most {worst:.1%} of the bound from {against}"
    )


def _excess(
    subject: Subject, condition: Condition, dtype: torch.dtype, training: bool
) -> tuple[float, str]:
    features, gradient = condition.draw(subject)
    layer = subject.trained(condition.shape(subject.multiple), dtype).train(training)
    bound = Bound.of(features, dtype, epsilon_of(layer))
    before = copy.deepcopy(layer)
    seen = run_layer(
        layer,
        condition.arranged(features.to(dtype), condition.features_last),
        condition.arranged(gradient.to(dtype), condition.gradient_last),
    )
    expected = exact_pass(subject)(before, features, gradient, training)
    if not expected.finite:
        # a layer whose formula has no value here is to refuse it
        return (math.inf, "it returned what is not defined") if subject.formula else (0, UNDEFINED)
    return bound.excess(seen, expected, gradient)


def gradient_properties(subject: Subject) -> Iterator[Property]:
    """Hold each gradient in float64 against finite differences, in both modes.

    What lies at a kink of the function is told apart by trying several places and steps.
    """
    trained = [
        n
        for n, p in subject.layer(SHAPE.shape(subject.multiple)).named_parameters()
        if p.requires_grad
    ]
    for training in (True, False):
        for tensor in ("the input", *trained):
            title = f"gradient of {tensor}, {'training' if training else 'evaluation'}"
            judge = partial(_judged, subject, title, tensor, training)
            yield measured(SECTION, title, judge)


def _judged(subject: Subject, title: str, tensor: str, training: bool) -> Property:
    error = math.inf
    for draw in (1, 2, 3):
        # one place that is right will do: another may lie at a kink
        error = min(error, _gradient_error(subject, tensor, training, draw))
        if error <= 1:
            break
    if error <= 1:
        told = "as finite differences have it"
        return Property(SECTION, title, Standing.HOLDS, told)
    told = (
        f"differs from the finite differences by {error:.2g} times their error: it is not that of "
        "the forward pass, of which a part may be detached"
    )
    if subject.claims.stops_gradients:
        return Property(SECTION, title, Standing.NOT_CLAIMED, f"{told}, as the norm declares")
    return Property(SECTION, title, Standing.BROKEN, told)


def _gradient_error(subject: Subject, tensor: str, training: bool, draw: int) -> float:
    """Return how far a tensor's gradient is from finite differences, over what those may err."""
    shape = SHAPE.shape(subject.multiple)
    generator = subject.generator(draw)
    features, gradient = drawn(shape, generator), drawn(shape, generator)
    layer = subject.trained(shape).train(training)
    of_input = tensor == "the input"
    at = features if of_input else layer.get_parameter(tensor).detach().clone()
    exact = run_layer(layer, features, gradient).tensors
    found = exact["input gradient" if of_input else f"gradient of {tensor}"]
    differences = _Differences(subject, training, shape, gradient)
    return differences.error(tensor, at, found, features, generator)


class _Differences:
    """Central differences of ``sum(gradient * output)``.

    With a noise ``d`` of the function and a step ``h`` they err by about ``d / h + h ** 2``, least
    at the cube root of the noise (Press et al., Numerical Recipes, section 5.7); smaller steps err
    more, and may stay on one side of a kink.
    """

    ELEMENTS = 24  # of a tensor, drawn at random

    def __init__(
        self, subject: Subject, training: bool, shape: tuple[int, ...], gradient: Tensor
    ) -> None:
        self.layer = subject.trained(shape).train(training)
        self.gradient = gradient

    def _value(self, name: str, at: Tensor, features: Tensor) -> float:
        layer = copy.deepcopy(self.layer)
        if name != "the input":
            with torch.no_grad():
                layer.get_parameter(name).copy_(at)
        with torch.no_grad():
            output = call(layer, at if name == "the input" else features)
        return (self.gradient * output).sum().item()

    def error(
        self, name: str, at: Tensor, gradient: Tensor, features: Tensor, generator: torch.Generator
    ) -> float:
        """Return the largest error of the gradient's elements over what the differences may err."""
        chosen = torch.randperm(at.numel(), generator=generator)[: self.ELEMENTS]
        noise = self._noise(name, at, features, generator)
        best = dict.fromkeys(chosen.tolist(), math.inf)
        for divisor in (1, 4, 16):
            step = noise ** (1 / 3) / divisor
            allowed = 100 * (noise / step + step**2) * (1 + gradient.abs().max().item())
            for index in [index for index, error in best.items() if error > 1]:
                difference = self._slope(name, at, index, step, features)
                error = abs(difference - gradient.flatten()[index].item()) / allowed
                best[index] = min(best[index], error)
        return max(best.values())

    def _slope(self, name: str, at: Tensor, index: int, step: float, features: Tensor) -> float:
        moved = at.clone()
        moved.view(-1)[index] += step
        after = self._value(name, moved, features)
        moved.view(-1)[index] -= 2 * step
        return (after - self._value(name, moved, features)) / (2 * step)

    def _noise(self, name: str, at: Tensor, features: Tensor, generator: torch.Generator) -> float:
        """Return how far the function jumps where its input hardly moves.

        A layer may compute in float32 whatever it is given. Second differences of steps so small
        are noise alone (More and Wild, Estimating Computational Noise, 2011).
        """
        directions = [drawn(at.shape, generator) * step for step in (1e-9, 1e-8, 3e-8, 1e-7)]
        value = self._value(name, at, features)
        second = [
            self._value(name, at + d, features) - 2 * value + self._value(name, at - d, features)
            for d in directions
        ]
        least = torch.finfo(torch.float64).eps * self.gradient.numel()
        return max(least, *map(abs, second))


# The reference convolves square maps.
SQUARE = Condition("weights", images=2, channels=3)


def weights_properties(subject: Subject) -> Iterator[Property]:
    """Hold the convolution before a norm that standardizes its weights against the formula."""
    shape = SQUARE.shape(subject.multiple)
    if standardizes_weights(subject.placed(shape)):
        name = "weights before it are standardized"
        yield measured(SECTION, name, partial(_standardized, subject, name, shape))


def _standardized(subject: Subject, name: str, shape: tuple[int, ...]) -> Property:
    """Compare a convolution's output, and the gradient of its weights, in float64."""
    generator, stage = subject.generator(), Stage(shape[1])
    images, gradient = drawn((shape[0], 3, *shape[2:]), generator), drawn(shape, generator)
    layer = nn.Conv2d(3, shape[1], stage.kernel, padding=stage.padding, bias=False).double()
    weights = layer.weight.detach().clone().requires_grad_()
    standardize_weights(nn.Sequential(layer, subject.placed(shape)))
    seen = layer(images)
    seen.backward(gradient)
    expected = convolution(images, standardized_weights(weights), None, stage)
    expected.backward(gradient)
    found = {
        "output": (seen, expected),
        "gradient of the weights": (layer.weight.grad, weights.grad),
    }
    for tensor, (one, other) in found.items():
        assert one is not None
        assert other is not None
        error = (one - other).abs().max().item()
        if not error <= EXACT * (1 + other.abs().max().item()):
            told = f"the convolution's {tensor} is off by {error:.2g}"
            return Property(SECTION, name, Standing.BROKEN, told)
    return Property(SECTION, name, Standing.HOLDS, "filter by filter, as the formula has it")
