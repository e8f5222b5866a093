"""A regularizer by what it does to a step of training, against its formula by autograd."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from normbench.check.formulas import PENALTIES, Penalty
from normbench.check.properties import Property, Standing
from normbench.models.networks import build_network
from normbench.models.regularizers import (
    REGULARIZERS,
    drop_branch,
    find_regularizer,
)
from normbench.spec import RunSpec, regularizer_name, regularizer_strengths
from normbench.training.checks import check_regularizer
from normbench.training.data import ImageData
from normbench.training.recipes import find_recipe
from normbench.training.trainer import Training

SECTION = "penalty"
IMAGES = 32
CLOSE = 1e-9  # in float64
EVERY_PARAMETER = ("l1", "l2", "decoupled")  # the other built-in ones leave out norms and biases
DEPTH = "stochastic-depth"

Tensors = dict[str, Tensor]


def regularizer_properties(name: str) -> Iterator[Property]:
    """Compare steps of the engine with and without the regularizer, in float64.

    Raises ValueError for a name that stands for none, and for one that cannot be applied.
    """
    strengths = regularizer_strengths(name)
    depth = strengths.pop(DEPTH, None)
    check_regularizer(regularizer_name(strengths), "digits", (1, 8, 8), 10)
    if depth is not None:
        check_regularizer(regularizer_name({DEPTH: depth}), "cifar10", (3, 32, 32), 10)
        yield from _depth_properties(depth)
    if strengths or depth is None:
        yield from _step_properties(strengths)


def _step_properties(strengths: Mapping[str, float]) -> Iterator[Property]:
    begun, plain = _step({})
    _, regularized = _step(strengths)
    applied = {n: plain[n] - regularized[n] for n in begun}
    yield from _own_properties(strengths, begun)
    yield _gradient(strengths, begun, applied)
    yield _reach(strengths, begun, applied)
    _, twice = _step({name: 2 * strength for name, strength in strengths.items()})
    yield _proportional(strengths, {n: plain[n] - twice[n] - 2 * applied[n] for n in begun})


def _gradient(strengths: Mapping[str, float], begun: Tensors, applied: Tensors) -> Property:
    """Hold what a step has done against the penalties' gradients, and decoupled weight decay."""
    rate, momentum = _rate()
    title = "gradient of the penalty in a step of training"
    penalties = {name: _penalty_of(name, strength) for name, strength in strengths.items()}
    unknown = [name for name, penalty in penalties.items() if penalty is None]
    if unknown:
        told = f"{', '.join(unknown)} has no penalty to hold it against"
        return Property(SECTION, title, Standing.NOT_CLAIMED, told)
    gradients = _gradients(begun, [penalty for penalty in penalties.values() if penalty])
    decay = strengths.get("decoupled", 0.0)
    # Nesterov's first step goes by 1 + momentum times the gradient
    expected = {n: rate * ((1 + momentum) * gradients[n] + decay * begun[n]) for n in begun}
    errors = {n: (applied[n] - expected[n]).abs().max().item() / rate for n in begun}
    worst = max(errors, key=lambda n: errors[n])
    scale = max(1.0, *(gradient.abs().max().item() for gradient in gradients.values()))
    if errors[worst] <= CLOSE * scale:
        told = f"within {errors[worst]:.1g} of autograd's in every parameter"
        return Property(SECTION, title, Standing.HOLDS, told)
    return Property(SECTION, title, Standing.BROKEN, f"off by {errors[worst]:.2g} in {worst}")


def _penalty_of(name: str, strength: float) -> Penalty | None:
    """Return the penalty by its formula, or of a user's regularizer as it computes it itself.

    None of one that is no penalty.
    """
    if name == "decoupled":
        return lambda _: torch.zeros((), dtype=torch.float64)
    if name in PENALTIES:
        return lambda parameters: strength * PENALTIES[name](parameters)
    own = find_regularizer(name, strength)

    def penalty(parameters: Mapping[str, Tensor]) -> Tensor:
        found = own.penalty(parameters)
        assert found is not None
        return found

    probe = {n: p.double() for n, p in build_network("digits", "batch").named_parameters()}
    return None if own.penalty(probe) is None else penalty


def _gradients(parameters: Tensors, penalties: list[Penalty]) -> Tensors:
    leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}
    zero = torch.zeros((), dtype=torch.float64)
    total = sum((penalty(leaves) for penalty in penalties), zero)
    if not total.requires_grad:
        return {n: torch.zeros_like(p) for n, p in parameters.items()}
    found = torch.autograd.grad(
        total, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(parameters, found, strict=True))


def _own_properties(strengths: Mapping[str, float], begun: Tensors) -> Iterator[Property]:
    """Hold the gradient of a user's penalty against its differences, along a random direction."""
    generator = torch.Generator().manual_seed(11)
    for name, strength in strengths.items():
        if name in REGULARIZERS or (penalty := _penalty_of(name, strength)) is None:
            continue
        direction = {
            n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in begun.items()
        }
        gradients = _gradients(begun, [penalty])
        slope = sum((gradients[n] * direction[n]).sum().item() for n in begun)
        h = 1e-6
        ends = [penalty({n: p + s * h * direction[n] for n, p in begun.items()}) for s in (1, -1)]
        difference = (ends[0] - ends[1]).item() / (2 * h)
        # of central differences: h squared, and rounding over h
        close = abs(slope - difference) <= 1e-5 * max(abs(slope), abs(ends[0].item()), 1e-12)
        told = f"{slope:.6g} by autograd, {difference:.6g} by central differences"
        standing = Standing.HOLDS if close and math.isfinite(slope) else Standing.BROKEN
        yield Property(SECTION, f"gradient of {name} by differences", standing, told)


def _reach(strengths: Mapping[str, float], begun: Tensors, applied: Tensors) -> Property:
    """Tell which parameters the regularizer moves."""
    moved = [n for n, change in applied.items() if bool((change.abs() > CLOSE * 1e-3).any())]
    left = [n for n in begun if n not in moved]
    if not strengths:
        standing = Standing.BROKEN if moved else Standing.HOLDS
        return Property(SECTION, "acts on nothing", standing, f"{len(moved)} parameters are moved")
    if own := [name for name in strengths if name not in REGULARIZERS]:
        told = f"{len(moved)} of {len(begun)}" + (
            f"; {', '.join(left)} are left out" if left else ""
        )
        standing = Standing.NOT_CLAIMED if moved else Standing.BROKEN
        return Property(SECTION, f"parameters that {' and '.join(own)} acts on", standing, told)
    if any(name in EVERY_PARAMETER for name in strengths):
        title, expected = "acts on every parameter", list(begun)
        told = "norms' weights and biases, and the classifier, included"
    else:
        title = "acts on weights alone"
        expected = [n for n in begun if n.endswith("weight") and ".norm." not in n]
        told = "those of convolutions and the classifier; norms' and biases are left out"
    if moved == expected:
        return Property(SECTION, title, Standing.HOLDS, told)
    wrong = sorted(set(moved) ^ set(expected))
    how = "are left out" if wrong[0] in left else "are moved"
    return Property(SECTION, title, Standing.BROKEN, f"{', '.join(wrong)} {how}")


def _proportional(strengths: Mapping[str, float], gaps: Tensors) -> Property:
    gap = max(tensor.abs().max().item() for tensor in gaps.values()) / _rate()[0]
    built_in = all(name in REGULARIZERS for name in strengths)
    broken = Standing.BROKEN if built_in else Standing.NOT_CLAIMED
    return Property(
        SECTION,
        "in proportion to its strength",
        Standing.HOLDS if gap <= CLOSE else broken,
        f"twice the strength, twice the gradient: {gap:.1g} off",
    )


DRAWS = 20_000


def _depth_properties(strength: float) -> Iterator[Property]:
    """Hold stochastic depth against its rates and its expectation."""
    section = "stochastic depth"
    network = build_network("cifar10", "batch")
    find_regularizer(DEPTH, strength).change_network(network)
    blocks: list[Any] = [each for each in network.modules() if hasattr(each, "drop_rate")]
    rates = [float(block.drop_rate) for block in blocks]
    expected = [strength * n / len(rates) for n in range(1, len(rates) + 1)]
    right = all(math.isclose(*pair, rel_tol=1e-12) for pair in zip(rates, expected, strict=True))
    yield Property(
        section,
        "rates grow linearly up to the strength",
        Standing.HOLDS if right else Standing.BROKEN,
        ", ".join(f"{rate:g}" for rate in rates),
    )
    branch = torch.ones(DRAWS, 1, 1, 1, dtype=torch.float64)
    dropped = drop_branch(branch, strength, training=True)
    # of a Bernoulli variable with this probability, divided by it
    deviation = math.sqrt(strength / (1 - strength) / DRAWS)
    off = (dropped.mean().item() - 1) / deviation
    yield Property(
        section,
        "the branch keeps its expectation in training",
        Standing.HOLDS if abs(off) <= 5 else Standing.BROKEN,
        f"{off:+.1f} standard errors off over {DRAWS:,} images",
    )
    same = torch.equal(drop_branch(branch, strength, training=False), branch)
    yield Property(
        section,
        "the branch is left as it is in evaluation",
        Standing.HOLDS if same else Standing.BROKEN,
        "equal to the bit" if same else "it is changed",
    )


def _spec(strengths: Mapping[str, float]) -> RunSpec:
    name = regularizer_name(strengths)
    return RunSpec("digits", "digits", "batch", name, IMAGES, epochs=10, recipe="digits")


def _rate() -> tuple[float, float]:
    """Return the learning rate of the first step, by the definition of the cycle, and momentum."""
    recipe = find_recipe("digits")
    return recipe.peak_learning_rate(IMAGES) / 25, recipe.momentum


def _step(strengths: Mapping[str, float]) -> tuple[Tensors, Tensors]:
    """Return the parameters before and after the engine's first step on random images."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(256, (IMAGES, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) % 10
    data = ImageData("digits", images, labels, images, labels, mean=0.5, std=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build_network("digits", "batch").double()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                # away from zero, where the absolute value has a kink
                if name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter))
        training = Training(
            network, _spec(strengths), find_recipe("digits"), data, torch.device("cpu")
        )
        before = {n: p.detach().clone() for n, p in network.named_parameters()}
        training.step(images.double() / 255, labels)
    return before, {n: p.detach().clone() for n, p in network.named_parameters()}
