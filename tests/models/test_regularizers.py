"""The regularizers, against their textbook forms in float64, and what a user's own may be."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from normbench.models.networks import build_network
from normbench.models.regularizers import (
    REGULARIZERS,
    RegularizerDoesNotFit,
    UnknownRegularizer,
    check_regularizers,
    drop_branch,
    find_regularizer,
)


def parameters() -> dict[str, Tensor]:
    """A kernel of two outputs, a matrix of more outputs than inputs, a norm's weight, a bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"kernel": (2, 3, 1, 2), "matrix": (4, 2), "scale": (1, 3, 1, 1), "bias": (4,)}
    made: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        made[name] = nn.Parameter(values)
        made[name].grad = torch.ones_like(values)
    return made


def changes(name: str, strength: float) -> dict[str, Tensor]:
    """Return what the regularizer adds to gradients that are all 1, its penalty's included."""
    given = parameters()
    regularizer = find_regularizer(name, strength)
    if (penalty := regularizer.penalty(given)) is not None:
        penalty.backward()
    with torch.no_grad():
        regularizer.change_gradients(given)
    return {n: p.grad - 1 for n, p in given.items() if p.grad is not None}


def test_l1_adds_the_sign_of_every_parameter() -> None:
    for name, change in changes("l1", 0.25).items():
        expected = 0.25 * torch.tensor(
            [math.copysign(1, value) for value in parameters()[name].flatten().tolist()]
        )
        assert change.flatten().tolist() == expected.tolist()


def test_l2_adds_every_parameter_and_l2_weights_those_of_layers_alone() -> None:
    everywhere, of_weights = changes("l2", 0.5), changes("l2-weights", 0.5)
    for name, parameter in parameters().items():
        torch.testing.assert_close(everywhere[name], 0.5 * parameter.detach())
        kept = name in ("kernel", "matrix")
        torch.testing.assert_close(of_weights[name], kept * 0.5 * parameter.detach())


def test_l2_is_what_sgd_has_as_weight_decay() -> None:
    by_hand, given = parameters(), parameters()
    for weight_decay, tensors in ((0.2, by_hand), (0.0, given)):
        if not weight_decay:
            with torch.no_grad():
                find_regularizer("l2", 0.2).change_gradients(tensors)
        torch.optim.SGD(tensors.values(), lr=1.0, weight_decay=weight_decay).step()
    for name in given:
        torch.testing.assert_close(given[name], by_hand[name])


def test_decoupled_weight_decay_is_that_of_adamw() -> None:
    # the gradients are 1, so that AdamW's first step goes by the learning rate in each element
    decayed, by_hand = parameters(), parameters()
    torch.optim.AdamW(by_hand.values(), lr=0.1, weight_decay=0.3).step()
    with torch.no_grad():
        find_regularizer("decoupled", 0.3).change_weights(decayed, 0.1)
    torch.optim.Adam(decayed.values(), lr=0.1).step()
    for name in by_hand:
        torch.testing.assert_close(decayed[name], by_hand[name])


def test_the_orthogonal_penalty_is_that_of_rows_or_of_columns_where_these_are_fewer() -> None:
    given = {name: p.detach() for name, p in parameters().items()}
    kernel, matrix = given["kernel"].reshape(2, 6), given["matrix"]
    expected = sum(
        (sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) - (i == j)) ** 2
        for rows in (kernel.tolist(), matrix.t().tolist())
        for i in range(2)
        for j in range(2)
    )
    penalty = find_regularizer("orthogonal", 0.1).penalty(given)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.1 * expected, rel=1e-12)


def test_orthogonal_rows_cost_nothing() -> None:
    rows, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    penalty = find_regularizer("orthogonal", 1.0).penalty({"w": rows[:4]})
    assert penalty is not None
    assert penalty.item() == pytest.approx(0, abs=1e-20)


def test_the_spectral_penalty_is_half_the_square_of_the_largest_singular_value() -> None:
    given = {name: p.detach() for name, p in parameters().items()}
    expected = 0.0
    for matrix in (given["kernel"].reshape(2, 6), given["matrix"].t()):
        # of a product of two rows, by the formula for the eigenvalues of a 2 x 2 matrix
        (a, b), (_, d) = (matrix @ matrix.t()).tolist()
        expected += ((a + d) + math.sqrt((a - d) ** 2 + 4 * b * b)) / 2
    penalty = find_regularizer("spectral", 0.3).penalty(given)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.3 / 2 * expected, rel=1e-12)


def test_stochastic_depth_drops_later_branches_more_often_and_keeps_their_expectation() -> None:
    network = build_network("cifar10", "batch")
    find_regularizer("stochastic-depth", 0.4).change_network(network)
    blocks = [block for block in network.modules() if hasattr(block, "drop_rate")]
    assert [block.drop_rate for block in blocks] == [0.2, 0.4]
    branch = torch.full((10_000, 2, 1, 1), 3.0)
    torch.manual_seed(0)
    dropped = drop_branch(branch, 0.4, training=True)
    # an image's branch is left out as a whole, or divided by the probability that it stays
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 5], rel=1e-6)
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    # four standard errors of a share of 0.4
    assert (dropped == 0).double().mean().item() == pytest.approx(0.4, abs=0.02)
    assert drop_branch(branch, 0.4, training=False) is branch
    images = torch.randn(3, 3, 32, 32)
    torch.manual_seed(1)
    first = network.train()(images)
    assert not torch.allclose(first, network(images))


@pytest.mark.parametrize("name", [*REGULARIZERS, "l2"])
def test_each_says_what_it_is(name: str) -> None:
    assert REGULARIZERS[name].summary().endswith(".")


GROUP_LASSO = """
import torch
from normbench.models.regularizers import Regularizer

def group_lasso(strength):
    def penalty(parameters):
        kernels = [p for p in parameters.values() if p.ndim == 4]
        return strength * sum(k.flatten(1).norm(dim=1).sum() for k in kernels)
    return penalty

class Clipped(Regularizer):
    def change_gradients(self, parameters):
        for parameter in parameters.values():
            parameter.grad.clamp_(-self.strength, self.strength)

class Noise(Regularizer):
    def change_network(self, network):
        network.register_forward_hook(lambda module, given, output: output + self.strength)

class Centred(Regularizer):
    elementwise = True
    def change_weights(self, parameters, learning_rate):
        for parameter in parameters.values():
            parameter.sub_(learning_rate * self.strength)

def of_nothing(): ...
def raising(strength): raise OSError("no such file")
def number(strength): return strength
def vector(strength): return lambda parameters: next(iter(parameters.values())).abs()
def infinite(strength): return lambda parameters: parameters["classifier.bias"].sum() * float("nan")
def constant(strength): return lambda parameters: torch.tensor(float(strength))
def forgetful(strength): return lambda parameters: None

class Assigning(Regularizer):
    def change_gradients(self, parameters):
        for parameter in parameters.values():
            parameter.grad = parameter.grad + self.strength

class Dividing(Regularizer):
    def change_gradients(self, parameters):
        for parameter in parameters.values():
            parameter.grad.div_(0)

class Misspelt(Regularizer):
    def change_gradient(self, parameters): ...

class Returning(Regularizer):
    def change_network(self, network):
        return torch.nn.Sequential(network)

class Freezing(Regularizer):
    def change_network(self, network):
        network.requires_grad_(False)

def failing(strength): return lambda parameters: parameters["nowhere"].sum()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    (tmp_path / "own_regularizers.py").write_text(GROUP_LASSO)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_regularizers", raising=False)
    return "own_regularizers:{}".format


@pytest.mark.parametrize("name", ["group_lasso", "Clipped", "Noise", "Centred"])
def test_a_users_own_may_be_a_penalty_or_change_gradients_weights_or_the_network(
    own: Callable[[str], str], name: str
) -> None:
    check_regularizers({own(name): 0.5}, build_network("digits", "batch"))


def test_a_users_penalty_is_differentiated(own: Callable[[str], str]) -> None:
    found = changes(own("group_lasso"), 0.1)
    kernel = parameters()["kernel"].detach()
    rows = kernel.reshape(2, 6)
    lengths = torch.tensor([math.hypot(*row) for row in rows.tolist()], dtype=torch.float64)
    expected = 0.1 * rows / lengths.view(2, 1)
    torch.testing.assert_close(found["kernel"], expected.reshape(kernel.shape))
    assert not found["matrix"].any()


@pytest.mark.parametrize(
    ("name", "strength", "error", "told"),
    [
        ("l3", 1, UnknownRegularizer, r"unknown regularizer 'l3': expected one of l1, l2, l2-weig"),
        ("no.such:thing", 1, UnknownRegularizer, r"unknown regularizer 'no.such:thing': No module"),
        (
            "of_nothing",
            1,
            UnknownRegularizer,
            r"cannot be called with its strength: too many",
        ),
        (
            "raising",
            1,
            RegularizerDoesNotFit,
            r"not be built with the strength 1: OSError: no",
        ),
        (
            "number",
            1,
            UnknownRegularizer,
            r"returned a int: expected a normbench.models.regu",
        ),
        (
            "vector",
            1,
            RegularizerDoesNotFit,
            r"returned a penalty of \(16, 1, 3, 3\): expected a",
        ),
        ("infinite", 1, RegularizerDoesNotFit, r"returned a penalty of nan for a new network"),
        ("constant", 1, RegularizerDoesNotFit, r"returned a penalty that depends on no parameter"),
        (
            "failing",
            1,
            RegularizerDoesNotFit,
            r"cannot be applied to DigitsNet: KeyError: 'now",
        ),
        ("stochastic-depth", 0.1, RegularizerDoesNotFit, r"needs a network with residual blocks"),
        ("stochastic-depth", 1, RegularizerDoesNotFit, r"expected a probability below 1"),
    ],
)
def test_what_cannot_regularize_is_told_before_anything_trains(
    own: Callable[[str], str], name: str, strength: float, error: type[ValueError], told: str
) -> None:
    spelled = own(name) if name in GROUP_LASSO and ":" not in name and "-" not in name else name
    with pytest.raises(error, match=told):
        check_regularizers({spelled: strength}, build_network("digits", "batch"))
