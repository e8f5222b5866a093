"""A regularizer by what it does to a step of training, against its penalty by autograd."""

from collections.abc import Iterator

import torch
from torch import Tensor

from normbench.check.properties import Property, Standing
from normbench.models.networks import build_network
from normbench.spec import RunSpec, regularizer_strengths
from normbench.training.data import ImageData
from normbench.training.recipes import find_recipe
from normbench.training.trainer import Training

SECTION = "penalty"
IMAGES = 32
CLOSE = 1e-9  # in float64


def regularizer_properties(name: str) -> Iterator[Property]:
    """Compare steps of the engine with and without the regularizer, in float64.

    Raises ValueError for a name that stands for none.
    """
    l1, l2 = regularizer_strengths(name)
    begun, plain = _step(0, 0)
    _, regularized = _step(l1, l2)
    rate, momentum = _rate()
    # Nesterov's first step goes by 1 + momentum times the gradient
    applied = {n: (plain[n] - regularized[n]) / (rate * (1 + momentum)) for n in begun}
    expected = _penalty_gradients(begun, l1, l2)
    errors = {n: (applied[n] - expected[n]).abs().max().item() for n in begun}
    worst = max(errors, key=lambda n: errors[n])
    holds = errors[worst] <= CLOSE * max(1.0, *(e.abs().max().item() for e in expected.values()))
    told = (
        f"within {errors[worst]:.1g} of autograd's in every parameter"
        if holds
        else f"off by {errors[worst]:.2g} in {worst}"
    )
    standing = Standing.HOLDS if holds else Standing.BROKEN
    yield Property(SECTION, "gradient of the penalty in a step of training", standing, told)
    yield _reach(name, applied)
    yield _proportional(l1, l2, begun, applied)


def _reach(name: str, applied: dict[str, Tensor]) -> Property:
    """Tell which parameters the regularizer moves: all, as the published tables have it."""
    title = "acts on every parameter"
    left = [n for n, change in applied.items() if not bool((change.abs() > CLOSE).any())]
    if name == "none":
        moved = len(applied) - len(left)
        standing = Standing.BROKEN if moved else Standing.HOLDS
        return Property(SECTION, "acts on nothing", standing, f"{moved} parameters are moved")
    if left:
        return Property(SECTION, title, Standing.BROKEN, f"{', '.join(left)} are left out")
    told = "norms' weights and biases, and the classifier, included"
    return Property(SECTION, title, Standing.HOLDS, told)


def _proportional(
    l1: float, l2: float, begun: dict[str, Tensor], applied: dict[str, Tensor]
) -> Property:
    title = "in proportion to its strength"
    _, plain = _step(0, 0)
    _, twice = _step(2 * l1, 2 * l2)
    rate, momentum = _rate()
    gap = max(
        ((plain[n] - twice[n]) / (rate * (1 + momentum)) - 2 * applied[n]).abs().max().item()
        for n in begun
    )
    standing = Standing.HOLDS if gap <= CLOSE else Standing.BROKEN
    return Property(
        SECTION, title, standing, f"twice the strength, twice the gradient: {gap:.1g} off"
    )


def _spec(l1: float, l2: float) -> RunSpec:
    return RunSpec(
        "digits", "digits", "batch", l1=l1, l2=l2, batch_size=IMAGES, epochs=10, recipe="digits"
    )


def _rate() -> tuple[float, float]:
    """Return the learning rate of the first step, by the definition of the cycle, and momentum."""
    recipe = find_recipe("digits")
    return recipe.peak_learning_rate(IMAGES) / 25, recipe.momentum


def _step(l1: float, l2: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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
            network, _spec(l1, l2), find_recipe("digits"), data, torch.device("cpu")
        )
        before = {n: p.detach().clone() for n, p in network.named_parameters()}
        training.step(images.double() / 255, labels)
    return before, {n: p.detach().clone() for n, p in network.named_parameters()}


def _penalty_gradients(parameters: dict[str, Tensor], l1: float, l2: float) -> dict[str, Tensor]:
    """Return autograd's gradient of ``l1 * sum(|p|) + l2 / 2 * sum(p ** 2)``."""
    leaves = [p.clone().requires_grad_() for p in parameters.values()]
    penalty = sum(l1 * leaf.abs().sum() + l2 / 2 * (leaf**2).sum() for leaf in leaves)
    gradients = torch.autograd.grad(penalty, leaves)  # type: ignore[arg-type]
    return dict(zip(parameters, gradients, strict=True))
