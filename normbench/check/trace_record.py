"""What a trace leaves behind; needs no torch, as reports and comparisons read it."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normbench.spec import NO_REGULARIZER, RunSpec
from normbench.training.datasets import training_images
from normbench.training.recipes import find_recipe

# What decides whether two traces of one spec have to be equal to the bit, beside the spec.
GROUND = ("torch", "processor", "threads", "device", "code", "fingerprint")


# Hexadecimal digits of a digest.
DIGITS = 8

# Fifty steps of all images, over whose epochs orders can be compared, with some left over that fill
# no batch; fewer with a recipe that selects images in the last epoch. The digits, of which there
# are the most traces, have the smaller batches.
EPOCHS, STEPS, LEFT_OVER = 2, 50, 3
BATCH_SIZE, BATCH_SIZES = 8, {"digits": 4}

# Of a case's own trace: as many steps an epoch as show a difference, at the least cost.
CASE_STEPS = 5


@dataclass(frozen=True)
class Traced:
    """A run that is traced, by what its trace is called."""

    name: str
    spec: RunSpec


# Of recipes whose name does not begin with a network's, and of those that are traced on the digits,
# in a sixth of the time: other recipes are traced on the images of their own data sets.
TRACED_NETWORKS = {
    "fashion-mnist": "mnist",
    "mnist-textbook": "digits",
    "mnist-batch-size": "digits",
    "cifar10-batch-size": "digits",
    "cifar10-best": "digits",
}


def trace_spec(recipe: str, norm: str, regularizer: str = NO_REGULARIZER) -> RunSpec:
    """Return the run that a trace of a built-in recipe takes, with its network and data set."""
    network = TRACED_NETWORKS.get(recipe, recipe.partition("-")[0])
    epochs = find_recipe(recipe).selection.after + 1
    return traced_as(RunSpec(network, network, norm, regularizer, epochs=epochs, recipe=recipe))


def traced_as(spec: RunSpec) -> RunSpec:
    """Return the run that a trace takes of what a case trains: the same in small batches."""
    batch_size, epochs = BATCH_SIZES.get(spec.dataset, BATCH_SIZE), _epochs(spec)
    small = dataclasses.replace(
        spec, batch_size=batch_size, epochs=epochs, dropout=0.0, seed=0, train_images=None
    )
    return dataclasses.replace(small, train_images=_images(small, max(1, STEPS // epochs)))


def case_trace_spec(spec: RunSpec) -> RunSpec:
    """Return the run that a trace of a configuration takes: two short epochs of its own kind.

    With a recipe that selects images there are as many more as it takes until it does. Of equal
    configurations that differ in their seeds alone, or in their epochs without a selection, it is
    the same one.
    """
    return shortened(spec, CASE_STEPS).with_seed(0)


def shortened(spec: RunSpec, steps: int) -> RunSpec:
    """Return a run of a few epochs of so many steps, and some images left over that fill none."""
    short = dataclasses.replace(spec, epochs=_epochs(spec))
    return dataclasses.replace(short, train_images=_images(short, steps))


def _images(spec: RunSpec, steps: int) -> int:
    """Return on how many images a trace trains: those that a recipe selects fill a batch."""
    selected = math.ceil(spec.batch_size / find_recipe(spec.recipe).selection.share)
    return min(max(steps * spec.batch_size + LEFT_OVER, selected), training_images(spec))


def _epochs(spec: RunSpec) -> int:
    """Return how many epochs a run's trace has: the first that selects images is one of them."""
    selection = find_recipe(spec.recipe).selection
    selects = selection.share < 1 and selection.after < spec.epochs
    return max(EPOCHS, selection.after + 1) if selects else EPOCHS


@dataclass(frozen=True)
class Trace:
    """Some steps of training, as the engine took them, and what an independent one says of them.

    ``losses`` are a step's cross-entropy with label smoothing, in float64 from the engine's
    logits. ``digests`` hold, of each tensor and after each step, eight hexadecimal digits of its
    float32 numbers, joined; ``norms`` its root of the sum of squares in float64, to nine digits.
    The last entry of ``logits`` is that of the evaluation. ``broken`` says what disagrees, a line
    each; ``beside`` says how it differs from baselines' traces, and ``equal_to`` names the
    baselines that it is equal to, to the bit. ``share`` is the largest error over its bound, and
    ``where`` says of what. ``note`` is what a reader has to know of the reference. ``ground`` has a
    text for each of GROUND. ``figures``, of a case's trace alone, is a digest of what its result
    says. What raised an exception has none of these.
    """

    name: str
    spec: RunSpec
    ground: Mapping[str, str]
    losses: tuple[float, ...]
    digests: Mapping[str, str]
    norms: Mapping[str, tuple[float, ...]]
    broken: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    equal_to: tuple[str, ...] = ()
    share: float = 0.0
    where: str = ""
    note: str = ""
    seconds: float = 0.0
    figures: str = ""

    def __repr__(self) -> str:
        """Show what a failed assertion should say, and not the trace's thousand figures."""
        return f"Trace({self.name}: {len(self.broken)} broken)"

    def to_dict(self) -> dict[str, Any]:
        """Return it in builtin types."""
        return {**dataclasses.asdict(self), "spec": self.spec.to_dict()}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Trace":
        """Return what to_dict was called on; raises ValueError where it is none."""
        try:
            known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
            spec = RunSpec.of_dict(values["spec"])
            norms = {name: tuple(map(float, row)) for name, row in values["norms"].items()}
            losses = tuple(map(float, values["losses"]))
            for name, row in norms.items():
                if len(values["digests"][name]) != DIGITS * len(row):
                    raise ValueError(f"{name} has not {DIGITS} digits of a digest for each norm")
                if len(row) not in (len(losses), len(losses) + (name == "logits")):
                    raise ValueError(f"{name} has {len(row)} norms beside {len(losses)} losses")
            return cls(
                **{
                    **known,
                    "spec": spec,
                    "ground": {key: str(values["ground"][key]) for key in GROUND},
                    "losses": losses,
                    "digests": {name: str(row) for name, row in values["digests"].items()},
                    "norms": norms,
                    "broken": tuple(map(str, values.get("broken", ()))),
                    "beside": tuple(map(str, values.get("beside", ()))),
                    "equal_to": tuple(map(str, values.get("equal_to", ()))),
                    "figures": str(values.get("figures", "")),
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            name = values.get("name", "") if isinstance(values, Mapping) else ""
            raise ValueError(f"the trace {name!s:.60} is damaged: {missing}") from error


def digest_at(trace: Trace, tensor: str, step: int) -> str:
    """Return the digest of a tensor after a step, the first being 0."""
    return trace.digests[tensor][DIGITS * step : DIGITS * (step + 1)]


def listed(broken: Sequence[str], most: int = 3) -> str:
    """Return the first of what is broken, and how many more there are."""
    more = f" (and {len(broken) - most} more)" if len(broken) > most else ""
    return "; ".join(broken[:most]) + more


def nine_digits(value: float) -> float:
    """Return a number to nine digits; what is not finite as the largest number that there is."""
    # a stored document holds neither infinity nor NaN
    return float(f"{value:.9g}") if math.isfinite(value) else sys.float_info.max
