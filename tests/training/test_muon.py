"""Muon: kernels against singular value decompositions, and all else against SGD."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.models.networks import build_network
from normbench.spec import RunSpec
from normbench.training.data import load_dataset
from normbench.training.muon import KERNELS_DECAY, KERNELS_SHARE, Muon, orthogonalized
from normbench.training.optimizers import build_optimizer, build_schedule
from normbench.training.recipes import Recipe, recipe_spelling
from normbench.training.steps import FlatParameters
from normbench.training.trainer import Training

CPU = torch.device("cpu")


def by_singular_values(update: Tensor) -> Tensor:
    """Return what the steps make of a matrix, worked out on its singular values alone."""
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    made: Tensor = left @ values.diag() @ right
    return made


@pytest.mark.parametrize("shape", [(24, 216), (40, 9), (16, 16), (2, 1)])
def test_an_update_keeps_its_singular_vectors_alone(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    update = torch.randn(shape, generator=generator, dtype=torch.float64)
    made = orthogonalized(update)
    torch.testing.assert_close(made, by_singular_values(update), atol=1e-6, rtol=1e-4)
    values = torch.linalg.svdvals(made)
    assert 0.6 < values.min() <= values.max() < 1.3


def test_no_gradient_is_no_update() -> None:
    assert torch.equal(orthogonalized(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_kernels_are_orthogonalized_and_all_else_is_as_by_sgd() -> None:
    torch.manual_seed(0)
    network, other = (build_network("digits", "batch").double() for _ in range(2))
    other.load_state_dict(network.state_dict())
    flat = FlatParameters(network)
    optimizer = build_optimizer(Recipe(0.1, optimizer="muon"), flat, 0.1, 0.0)
    assert isinstance(optimizer, Muon)
    named = dict(other.named_parameters())
    sgd = torch.optim.SGD(named.values(), 0.1, 0.9, nesterov=True)
    momenta: dict[str, Tensor] = {}
    for _ in range(3):
        images = torch.randn(16, 1, 8, 8, dtype=torch.float64)
        labels = torch.randint(10, (16,))
        flat.gradient.zero_()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        sgd.zero_grad()
        F.cross_entropy(other(images), labels).backward()
        kernels = {name: p.detach().clone() for name, p in named.items() if p.ndim == 4}
        sgd.step()
        for name, kernel in kernels.items():
            gradient = named[name].grad
            assert gradient is not None
            momenta[name] = 0.9 * momenta.get(name, torch.zeros_like(gradient)) + gradient
            update = by_singular_values((gradient + 0.9 * momenta[name]).flatten(1))
            rows, columns = update.shape
            update = max(1.0, rows / columns) ** 0.5 * update.view_as(kernel)
            rate = 0.1 * KERNELS_SHARE
            named[name].data = (1 - 0.1 * rate) * kernel - rate * update
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, named[name], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("shape", [(24, 2, 3, 3), (40, 3, 1, 1)])
def test_kernels_take_the_steps_that_torchs_muon_takes_of_matrices(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape, generator=generator))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    other = torch.optim.Muon([matrix], KERNELS_SHARE, weight_decay=KERNELS_DECAY, momentum=0.9)
    optimizer = Muon([kernel], 1.0, 0.9)
    for _ in range(3):
        kernel.grad = torch.randn(shape, generator=generator)
        matrix.grad = kernel.grad.flatten(1)
        optimizer.step()
        other.step()
    began = torch.randn(shape, generator=generator.manual_seed(0)).flatten(1)
    moved, moved_too = kernel.detach().flatten(1) - began, matrix.detach() - began
    # torch's are in bfloat16
    assert (moved - moved_too).norm() < 0.05 * moved.norm()


def test_a_kernel_of_one_channel_or_weight_is_no_matrix_to_orthogonalize() -> None:
    shapes = (1, 2, 3, 3), (2, 1, 3, 3), (2, 1, 1, 1)
    parameters = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = Muon(parameters, 0.1, 0.9)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]
    one, two, _ = parameters
    one.grad, two.grad = torch.ones_like(one), None
    optimizer.step()
    torch.testing.assert_close(one.detach(), torch.full_like(one, 1 - 0.1 * 1.9))
    assert torch.equal(two, torch.ones_like(two))


def test_the_schedule_goes_over_both_rates() -> None:
    recipe = Recipe(0.2, optimizer="muon", warmup=0.5)
    flat = FlatParameters(build_network("digits", "batch"))
    optimizer = build_optimizer(recipe, flat, 0.2, 0.0)
    schedule = build_schedule(optimizer, recipe, 0.2, 9)
    rates = []
    for _ in range(9):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    for whole, share in rates:
        assert share == pytest.approx(KERNELS_SHARE * whole)
    assert max(rates)[0] == pytest.approx(0.2)


def test_a_run_by_muon_learns() -> None:
    recipe = recipe_spelling({"from": "digits", "optimizer": "muon", "learning_rate": 0.1})
    spec = RunSpec("digits", "digits", "layer", epochs=3, recipe=recipe)
    training = Training.begin(spec, load_dataset("digits", Path(), CPU), CPU)
    training.run(lambda _: None)
    assert training.epochs[-1].test_accuracy > 0.9
