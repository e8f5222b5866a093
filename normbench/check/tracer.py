"""The trace: fifty steps of the engine, each held against one step of an independent reference.

The engine trains in float32. From the state that it had before each of its steps, the reference
(normbench.check.reference) takes the same step in float64, and every tensor that the step leaves
is compared, so that errors do not add up over steps.

The bound. Let ``e`` be the difference of a tensor between engine and reference. To first order it
is a sum of independent rounding errors, each times a constant of the step, and so about normal:
``|e|^2`` is a quadratic form of normal numbers. Of all such forms of one mean, that of a single
number has the heaviest tail above 1.54 times the mean (Szekely and Bakirov, Extremal Probabilities
for Gaussian Quadratic Forms, 2003), hence ``P(|e| > c s) <= P(|z| > c)`` with ``s^2 = E |e|^2``.
``s`` over the tensor's norm is measured: the reference takes each fifth step again in Monte Carlo
arithmetic (normbench.check.rounding), which moves the result of every operation as float32 would.
As ``s`` is the root mean square of K such runs, Student's t with K degrees of freedom takes the
place of the normal ``z``. ``c`` is its quantile at ALARM over COMPARISONS: the chance of a false
alarm in a whole session, divided by a number of comparisons that is more than a session has.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn

from normbench.check.batches import epoch_lengths
from normbench.check.formulas import PENALTIES, formula_of
from normbench.check.recording import (
    RecordedStep,
    Recording,
    Snapshot,
)
from normbench.check.reference import (
    Choices,
    NormLayer,
    Reference,
    Settings,
    State,
    Stepped,
    cross_entropy,
    settings_of,
)
from normbench.check.rounding import Float32Rounding
from normbench.check.trace_record import nine_digits
from normbench.models.networks import network_class
from normbench.spec import RunSpec
from normbench.training.recipes import find_recipe

ALARM = 1e-6
COMPARISONS = 200_000
EVERY = 5  # how many steps there are to one of Monte Carlo arithmetic
EVALUATIONS = 10  # in Monte Carlo arithmetic, of EVALUATION_IMAGES images each
EVALUATION_IMAGES = 8
SEED = 1997


@dataclass(frozen=True)
class Comparison:
    """A tensor of a step beside the reference's: ``error`` and ``bound`` are norms.

    ``step`` is 0 for the evaluation; ``element`` tells the element that is furthest off, where the
    bound is exceeded.
    """

    step: int
    tensor: str
    error: float
    bound: float
    element: str = ""

    @property
    def share(self) -> float:
        """The error over its bound."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound > 0 else math.inf

    @property
    def broken(self) -> bool:
        # of a NaN as well
        return not self.error <= self.bound

    @property
    def place(self) -> str:
        return f"step {self.step}, {self.tensor}" if self.step else f"evaluation, {self.tensor}"

    def __str__(self) -> str:
        return (
            f"{self.place}: off by {self.error:.3g} in norm, where {self.bound:.3g} is the bound"
            f"{self.element}"
        )


def quantile(runs: int) -> float:
    """Return the ``c`` of the bound for a deviation that so many runs have measured."""
    return float(stats.t.isf(ALARM / COMPARISONS / 2, runs))


def unreferenced(spec: RunSpec) -> str:
    """Return why no reference can take the steps of a run; empty where it can."""
    for name in spec.strengths:
        if name not in PENALTIES and name != "decoupled":
            return f"the regularizer {name} has no formula: its steps are held against nothing"
    recipe = find_recipe(spec.recipe)
    if recipe.optimizer not in ("sgd", "muon") or recipe.gradient_clipping:
        return (
            "the reference takes steps of SGD and Muon, without clipping: these are held "
            "against nothing"
        )
    return ""


class Tracer:
    """Holds a recording against the reference."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.spec = recording.training.spec
        self.recipe = find_recipe(self.spec.recipe)
        self.norm = norm_layer(self.spec.norm)
        # one of the norm's layers, for what it asks of the network
        self.layer = next(iter(recording.training.norm_layers().values()))
        self.generator = torch.Generator().manual_seed(SEED)

    def reference(self, norms: Mapping[str, nn.Module]) -> Reference:
        norm = self.norm or own_norm_layer(norms)
        return Reference.of(network_class(self.spec.network), norm, self.layer)

    def _settings(self, index: int) -> Settings:
        spec = self.spec
        # of the spec, and not those that the engine has taken: the schedule is as long as the run
        images = spec.train_images or len(self.recording.training.data.train_labels)
        lengths = epoch_lengths(self.recipe, images, spec.epochs)
        steps = sum(length // spec.batch_size for length in lengths)
        return settings_of(self.recipe, spec.strengths, spec.batch_size, index, steps)

    def _stepped(self, index: int, choices: Choices) -> Stepped:
        recorded = self.recording.steps[index]
        return self.reference(recorded.norms).step(
            state_of(recorded.before),
            recorded.images.double(),
            recorded.labels,
            self._settings(index),
            choices,
        )

    def loss(self, index: int) -> float:
        """Return a step's cross-entropy, of the engine's logits."""
        step, smoothing = self.recording.steps[index], self.recipe.label_smoothing
        return nine_digits(cross_entropy(step.logits.double(), step.labels, smoothing).item())

    def comparisons(self) -> Iterator[Comparison]:
        """Yield every comparison of every step, then that of the evaluation."""
        steps = self.recording.steps
        deviations, runs = self.deviations()
        bounds = {name: quantile(runs) * deviation for name, deviation in deviations.items()}
        for index, recorded in enumerate(steps):
            choices = Choices(recorded.inputs, bounds)
            expected = tensors_of(self._stepped(index, choices))
            seen = {"logits": recorded.logits, **recorded.after.tensors}
            yield from compared(index + 1, seen, expected, bounds)
        yield self._evaluation()

    def unrepeatable(self) -> Iterator[str]:
        """Tell of a reference that comes out differently twice, as of a norm that draws numbers.

        Its own differences would be taken for rounding, and the bound be too wide to see anything.
        """
        first, second = (tensors_of(self._stepped(0, Choices())) for _ in range(2))
        for name, tensor in first.items():
            if not torch.equal(tensor, second[name]):
                yield (
                    f"step 1, {name}: the norm itself, in float64, comes out differently when the "
                    "step is taken again: expected it to be deterministic, and to draw nothing"
                )
                return

    def deviations(self) -> tuple[dict[str, float], int]:
        """Measure what rounding does to each tensor, over its norm; return by how many runs."""
        found: dict[str, list[float]] = {}
        indices = range(0, len(self.recording.steps), EVERY)
        for index in indices:
            choices = Choices()
            exact = self._stepped(index, choices)
            again = Choices(taken=choices.taken)
            with Float32Rounding(self.generator):
                moved = self._stepped(index, again)
            pairs = [(tensors_of(exact), tensors_of(moved)), (choices.inputs, again.inputs)]
            for right, rounded in pairs:
                for name, tensor in right.items():
                    found.setdefault(name, []).append(relative(rounded[name], tensor))
        runs = len(indices)
        return {
            n: math.sqrt(sum(v * v for v in values) / runs) for n, values in found.items()
        }, runs

    def _evaluation(self) -> Comparison:
        """Compare the logits of the last evaluation, at the state after the last step."""
        recording, last = self.recording, self.recording.steps[-1].after
        images = recording.test_images.double()
        norms = recording.training.norm_layers() if self.norm is None else {}
        reference, state = self.reference(norms), state_of(last)

        def answers(images: Tensor) -> Tensor:
            choices = Choices()
            return reference.logits(images, state.parameters, state.buffers, False, choices)[0]

        def logits(images: Tensor) -> Tensor:
            if not recording.training.recipe.test_time_flip:
                return answers(images)
            return (answers(images) + answers(images.flip(3))) / 2

        with torch.no_grad():
            expected = logits(images)
            few = images[:EVALUATION_IMAGES]
            squares = 0.0
            for _ in range(EVALUATIONS):
                with Float32Rounding(self.generator):
                    moved = logits(few)
                squares += relative(moved, expected[: len(few)]) ** 2
        bound = quantile(EVALUATIONS) * math.sqrt(squares / EVALUATIONS)
        seen = {"logits": recording.evaluation.logits}
        (found,) = compared(0, seen, {"logits": expected}, {"logits": bound})
        return found


def norm_layer(norm: str) -> NormLayer | None:
    """Return the built-in norm called ``norm`` by its formula; None for a user's own."""
    formula = formula_of(norm)
    if formula is None:
        return None

    def layer(
        name: str, features: Tensor, state: Mapping[str, Tensor], training: bool
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        prefix = f"{name}."
        own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        return formula(features, own, training)

    return layer


def own_norm_layer(norms: Mapping[str, nn.Module]) -> NormLayer:
    """Return norms that have no formula as what they compute themselves in float64.

    ``norms`` are copies of the layers by their names in the network.
    """
    copies = {name: layer.double() for name, layer in norms.items()}

    def layer(
        name: str, features: Tensor, state: Mapping[str, Tensor], training: bool
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        own = copies[name].train(training)
        with torch.no_grad():
            for buffer, tensor in own.named_buffers():
                tensor.copy_(state[f"{name}.{buffer}"])
        parameters = {n: state[f"{name}.{n}"] for n, p in own.named_parameters() if p.requires_grad}
        output: Tensor = torch.func.functional_call(own, parameters, (features,))
        return output, {n: b.detach().clone() for n, b in own.named_buffers()}

    return layer


def state_of(snapshot: Snapshot) -> State:
    """Return a snapshot in float64."""
    return State(
        *(
            {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
            for tensors in (snapshot.parameters, snapshot.momenta, snapshot.buffers)
        )
    )


def tensors_of(stepped: Stepped) -> dict[str, Tensor]:
    """Return what a step of the reference has left, each tensor by what it is."""
    after = stepped.after
    found = Snapshot(after.parameters, after.momenta, after.buffers).tensors
    return {"logits": stepped.logits, **found}


def relative(seen: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over that of what is expected; 0 where that is 0."""
    size = expected.double().norm().item()
    return (seen.double() - expected.double()).norm().item() / size if size else 0.0


def compared(
    step: int,
    seen: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    bounds: Mapping[str, float],
) -> Iterator[Comparison]:
    """Compare tensors by their names; ``bounds`` are over the norm of what is expected."""
    for name, right in expected.items():
        if name not in seen or seen[name].shape != right.shape:
            shape = tuple(seen[name].shape) if name in seen else "none"
            shapes = f": expected a shape of {tuple(right.shape)}, seen {shape}"
            yield Comparison(step, name, math.inf, 0.0, shapes)
            continue
        right, came = right.double(), seen[name].double()
        difference = came - right
        error = difference.norm().item()
        bound = bounds.get(name, 0.0) * right.norm().item()
        told = "" if error <= bound else _furthest(difference, right, came)
        yield Comparison(step, name, error, bound, told)


def _furthest(difference: Tensor, right: Tensor, came: Tensor) -> str:
    flat = difference.abs().nan_to_num(math.inf).flatten().argmax()
    element = tuple(int(i) for i in torch.unravel_index(flat, right.shape))
    place = f" at [{', '.join(map(str, element))}]" if element else ""
    return f": expected {right[element].item():.9g}{place}, seen {came[element].item():.9g}"


def unmoved(steps: Sequence[RecordedStep]) -> Iterator[str]:
    """Tell of what changed between two steps, where nothing is to change."""
    for index, (before, after) in enumerate(itertools.pairwise(steps), start=1):
        then = after.before.tensors
        for name, tensor in before.after.tensors.items():
            if name not in then or not torch.equal(tensor, then[name]):
                yield f"{name} changed between step {index} and step {index + 1}, as by evaluation"
