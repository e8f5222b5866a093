"""L1 and L2 as the optimizer sees them, against the textbook's loss."""

import pytest
import torch

from normbench.models.regularizers import Regularizer


def parameters() -> torch.Tensor:
    values = torch.tensor([0.5, -2.0, 0.0, 3.0], dtype=torch.float64)
    return values.requires_grad_()


def test_the_penalty_is_what_the_textbook_says() -> None:
    # 0.1 * (0.5 + 2 + 0 + 3) + 0.2 / 2 * (0.25 + 4 + 0 + 9)
    penalty = Regularizer(l1=0.1, l2=0.2).penalty([parameters()])
    assert penalty.item() == pytest.approx(0.55 + 1.325, abs=1e-12)


def test_the_l1_gradient_equals_that_of_the_penalty() -> None:
    regularizer, p = Regularizer(l1=0.001), parameters()
    textbook = torch.autograd.grad(regularizer.penalty([p]), p)[0]
    gradient = torch.zeros_like(p)
    regularizer.add_l1_gradient_(gradient, p)
    torch.testing.assert_close(gradient, textbook, rtol=0, atol=0)
    assert gradient.tolist() == [0.001, -0.001, 0.0, 0.001]


def test_weight_decay_equals_the_gradient_of_the_l2_penalty() -> None:
    regularizer, p = Regularizer(l2=0.2), parameters()
    textbook = torch.autograd.grad(regularizer.penalty([p]), p)[0]
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    torch.optim.SGD([p], lr=1.0, weight_decay=regularizer.l2).step()
    torch.testing.assert_close(before - p.detach(), textbook)
