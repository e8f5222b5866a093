"""Regularizers by name: what each adds to the loss, or does to gradients, weights or networks."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .factories import SPELLING, named_object, signature_problem, told

# A network's trained parameters by their names, or under some name all of them as one vector.
Parameters = Mapping[str, Tensor]


class UnknownRegularizer(ValueError):
    """A regularizer's name that is none of the known ones, or that leads to no factory."""


class RegularizerDoesNotFit(ValueError):
    """A regularizer of a strength that it cannot have, or that a network has no place for."""


class Regularizer:
    """What a run is regularized with, of one strength; by itself it does nothing.

    A regularizer overrides one method or several: it may change the network before it is trained,
    add a penalty to the loss, which autograd differentiates, change the gradients of a step, or
    the weights before the optimizer changes them. The parameters of a step have their gradients
    in ``.grad``, which are to be changed in place. What it has to remember from step to step
    belongs in buffers of the network: nothing else is there after an interruption, and what is
    kept on a class or in a module goes on into the next run.

    ``elementwise`` says that gradients and weights are changed element by element, all in one
    way: the methods are then given all parameters as one vector, which is faster.
    """

    elementwise: ClassVar[bool] = False

    def __init__(self, strength: float) -> None:
        self.strength = strength

    @classmethod
    def summary(cls) -> str:
        """Return what it is, in a sentence: the first paragraph of its docstring."""
        first, *_ = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
        return " ".join(first.split())

    def change_network(self, network: nn.Module) -> None:
        """Change a new network, such as by setting a rate, adding a layer or a hook.

        Raises RegularizerDoesNotFit where it has no place for that.
        """

    def penalty(self, parameters: Parameters) -> Tensor | None:
        """Return the penalty as a scalar, strength included; None where there is none."""

    def change_gradients(self, parameters: Parameters) -> None:
        """Change the gradients in place, after the backward pass; gradients are not recorded."""

    def change_weights(self, parameters: Parameters, learning_rate: float | Tensor) -> None:
        """Change the weights in place, before the optimizer does; gradients are not recorded."""


class L1(Regularizer):
    """``l1 * sum(|p|)`` over every parameter, as the published tables have it.

    Its gradient ``l1 * sign(p)`` is added directly: what autograd gives, without its graph.

    Source: Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.
    """

    elementwise = True

    def change_gradients(self, parameters: Parameters) -> None:
        for parameter in parameters.values():
            gradient_of(parameter).add_(parameter.sign(), alpha=self.strength)


class L2(Regularizer):
    """``l2 / 2 * sum(p ** 2)`` over every parameter: coupled weight decay, of gradient ``l2 * p``.

    SGD adds it on the way to its momentum, and is given the strength as its ``weight_decay``; for
    another optimizer it is added to the gradient here.

    Source: Krogh and Hertz, A Simple Weight Decay Can Improve Generalization, 1991.
    """

    elementwise = True

    def change_gradients(self, parameters: Parameters) -> None:
        for parameter in parameters.values():
            gradient_of(parameter).add_(parameter, alpha=self.strength)


class L2OfWeights(Regularizer):
    """``l2 / 2 * sum(w ** 2)`` over the weights of convolutions and linear layers alone.

    Norms' parameters and biases, which are no matrices and no kernels, are left out, as practice
    has it.

    Source: He et al., Bag of Tricks for Image Classification, 2018, section 3.1.
    """

    def change_gradients(self, parameters: Parameters) -> None:
        for parameter in weights_of(parameters):
            gradient_of(parameter).add_(parameter, alpha=self.strength)


class DecoupledWeightDecay(Regularizer):
    """``p <- p - learning_rate * strength * p`` before each step, past the momentum.

    It goes over every parameter, and by the learning rate of the step.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2.
    """

    elementwise = True

    def change_weights(self, parameters: Parameters, learning_rate: float | Tensor) -> None:
        for parameter in parameters.values():
            parameter.mul_(1 - learning_rate * self.strength)


class StochasticDepth(Regularizer):
    """Leaves out residual branches at random, the ``l``-th of ``L`` with probability ``p l / L``.

    ``p``, the strength, is that of the last block. A branch is left out for each image by itself,
    and in training is divided by the probability that it stays, so that nothing is to be scaled
    in evaluation. A network's block with a residual connection says that it can by an attribute
    ``drop_rate``, a number that is set here, and passes its branch through ``drop_branch``.

    Source: Huang et al., Deep Networks with Stochastic Depth, 2016, section 3; for each image by
    itself as in Larsson et al., FractalNet, 2017.
    """

    def __init__(self, strength: float) -> None:
        if strength >= 1:
            raise RegularizerDoesNotFit(
                f"stochastic-depth:{strength:g}: expected a probability below 1"
            )
        super().__init__(strength)

    def change_network(self, network: nn.Module) -> None:
        blocks: list[Any] = [each for each in network.modules() if hasattr(each, "drop_rate")]
        if not blocks:
            raise RegularizerDoesNotFit(
                "stochastic-depth needs a network with residual blocks (an attribute drop_rate "
                f"says that one can be left out), and {type(network).__name__} has none: choose "
                "another network or another regularizer"
            )
        for number, block in enumerate(blocks, start=1):
            block.drop_rate = self.strength * number / len(blocks)


def drop_branch(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Return a residual branch, in training without a random part of the images of its batch.

    ``rate`` is the probability that an image's branch of ``(N, C, H, W)`` is left out. Raises
    nothing; with a rate of 0 it draws no random number.
    """
    if not training or not rate:
        return branch
    kept = torch.rand(len(branch), 1, 1, 1, device=branch.device, dtype=branch.dtype) >= rate
    return branch * (kept / (1 - rate))


class SoftOrthogonality(Regularizer):
    """``strength * sum(||W W^T - I||_F ** 2)`` over the weights of convolutions and linear layers.

    ``W`` is a weight as a matrix of a row an output; of one with more rows than columns, which
    cannot all be orthogonal to each other, the columns are taken.

    Source: Bansal, Chen and Wang, Can We Gain More from Orthogonality Regularizations, 2018,
    section 3.1.
    """

    def penalty(self, parameters: Parameters) -> Tensor | None:
        terms = []
        for weight in weights_of(parameters):
            rows = weight.flatten(1)
            shorter = rows if rows.shape[0] <= rows.shape[1] else rows.t()
            products = shorter @ shorter.t()
            terms.append((products - torch.eye(len(products), device=weight.device)).square().sum())
        return self.strength * torch.stack(terms).sum() if terms else None


class SpectralNorm(Regularizer):
    """``strength / 2 * sum(sigma(W) ** 2)``, ``sigma`` the largest singular value of a weight.

    ``W`` is a convolution's or linear layer's weight as a matrix of a row an output. The singular
    value is computed, not approached by power iteration: the matrices are small.

    Source: Yoshida and Miyato, Spectral Norm Regularization, 2017, equation 4.
    """

    def penalty(self, parameters: Parameters) -> Tensor | None:
        norms = [torch.linalg.matrix_norm(w.flatten(1), 2) for w in weights_of(parameters)]
        return self.strength / 2 * torch.stack(norms).square().sum() if norms else None


class OwnPenalty(Regularizer):
    """A user's function of the parameters, whose gradient is autograd's."""

    def __init__(self, strength: float, penalty: Callable[[Parameters], Tensor]) -> None:
        super().__init__(strength)
        self._penalty = penalty

    def penalty(self, parameters: Parameters) -> Tensor | None:
        return self._penalty(parameters)


REGULARIZERS: dict[str, type[Regularizer]] = {
    "l1": L1,
    "l2": L2,
    "l2-weights": L2OfWeights,
    "decoupled": DecoupledWeightDecay,
    "stochastic-depth": StochasticDepth,
    "orthogonal": SoftOrthogonality,
    "spectral": SpectralNorm,
}


def weights_of(parameters: Parameters) -> list[Tensor]:
    """Return the matrices and kernels among the parameters, without norms' and biases'.

    What is longer than 1 along one dimension alone, as ``(1, C, 1, 1)``, is a norm's.
    """
    return [p for p in parameters.values() if p.ndim in (2, 4) and sum(n > 1 for n in p.shape) > 1]


def gradient_of(parameter: Tensor) -> Tensor:
    """Return the gradient that a step has left in ``parameter.grad``."""
    assert parameter.grad is not None
    return parameter.grad


def find_regularizer(name: str, strength: float) -> Regularizer:
    """Return the regularizer called ``name``, of a strength above 0.

    A user's own, ``package.module:factory``, is called with the strength, and returns a
    Regularizer, or a function that is given the parameters by their names and returns the penalty,
    a scalar that autograd can differentiate. Raises UnknownRegularizer for a name that stands for
    none, and RegularizerDoesNotFit for a strength that it cannot have.
    """
    if name in REGULARIZERS:
        return REGULARIZERS[name](strength)
    if ":" not in name:
        raise UnknownRegularizer(
            f"unknown regularizer {name!r}: expected one of {', '.join(REGULARIZERS)}, or "
            f"{SPELLING} for one of your own"
        )
    factory = named_object(name, "regularizer", ", ".join(REGULARIZERS), UnknownRegularizer)
    if problem := signature_problem(factory, strength):
        raise UnknownRegularizer(
            f"regularizer {name!r} cannot be called with its strength: {problem}; expected a class "
            "or function of one number, such as `def group_lasso(strength): ...`"
        )
    try:
        made = factory(strength)
    except (Exception, SystemExit) as error:
        raise RegularizerDoesNotFit(
            f"regularizer {name!r} could not be built with the strength {strength:g}: "
            f"{told(error)}; correct the factory, or take another strength"
        ) from error
    if isinstance(made, Regularizer):
        return made
    if callable(made) and not isinstance(made, type | nn.Module):
        return OwnPenalty(strength, made)
    raise UnknownRegularizer(
        f"regularizer {name!r} returned a {type(made).__name__}: expected a "
        "normbench.models.regularizers.Regularizer, or a function that is given the parameters by "
        "their names and returns the penalty"
    )


def find_regularizers(strengths: Mapping[str, float]) -> list[Regularizer]:
    """Return the regularizers of these names and strengths; raises as find_regularizer does."""
    return [find_regularizer(name, strength) for name, strength in strengths.items()]


def check_regularizers(strengths: Mapping[str, float], network: nn.Module) -> None:
    """Raise what is wrong with regularizers for a network before anything trains.

    Changes the network, and leaves gradients in it. Raises as find_regularizer does, and
    RegularizerDoesNotFit for what cannot be applied to the network.
    """
    for name, strength in strengths.items():
        regularizer = find_regularizer(name, strength)
        _check_effect(name, regularizer)
        try:
            # a network of its own would be trained by nobody, and is easily returned in error
            change: Callable[[nn.Module], object] = regularizer.change_network
            if (returned := change(network)) is not None:
                raise RegularizerDoesNotFit(
                    f"regularizer {name!r} returns a {type(returned).__name__} from "
                    "change_network: expected it to change the network that it is given, and to "
                    "return nothing"
                )
            parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
            penalty = regularizer.penalty(parameters)
            _check_penalty(name, regularizer, penalty, parameters.values())
            given = {"": _joined(parameters)} if regularizer.elementwise else parameters
            _check_changes(name, regularizer, given)
        except RegularizerDoesNotFit:
            raise
        except (Exception, SystemExit) as error:
            raise RegularizerDoesNotFit(
                f"regularizer {name!r} cannot be applied to {type(network).__name__}: {told(error)}"
            ) from error


def _check_effect(name: str, regularizer: Regularizer) -> None:
    methods = ("change_network", "penalty", "change_gradients", "change_weights")
    if all(getattr(type(regularizer), m) is getattr(Regularizer, m) for m in methods):
        raise RegularizerDoesNotFit(
            f"regularizer {name!r} does nothing: expected a method out of {', '.join(methods)}"
        )


@torch.no_grad()
def _check_changes(name: str, regularizer: Regularizer, parameters: Parameters) -> None:
    gradients = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for known, parameter in parameters.items():
        parameter.grad = gradients[known]
    regularizer.change_gradients(parameters)
    for known, parameter in parameters.items():
        if parameter.grad is not gradients[known]:
            raise RegularizerDoesNotFit(
                f"regularizer {name!r} puts another tensor in the place of a gradient: expected it "
                "to be changed in place, as by parameter.grad.add_(...); the step would not see it"
            )
        if not bool(gradients[known].isfinite().all()):
            raise RegularizerDoesNotFit(
                f"regularizer {name!r} makes gradients that are not finite for a new network: "
                "expected finite numbers"
            )
    regularizer.change_weights(parameters, 0.0)


def _joined(parameters: Parameters) -> Tensor:
    if not parameters:
        raise RegularizerDoesNotFit(
            "the regularizers leave the network no parameter that is trained: expected one or more"
        )
    return torch.cat([p.detach().flatten() for p in parameters.values()])


def _check_penalty(
    name: str, regularizer: Regularizer, penalty: object, parameters: Iterable[Tensor]
) -> None:
    if penalty is None and not isinstance(regularizer, OwnPenalty):
        return
    if not isinstance(penalty, Tensor) or penalty.ndim or not penalty.is_floating_point():
        came = tuple(penalty.shape) if isinstance(penalty, Tensor) else type(penalty).__name__
        raise RegularizerDoesNotFit(
            f"regularizer {name!r} returned a penalty of {came}: expected a tensor of one number, "
            "without dimensions"
        )
    if not math.isfinite(penalty.item()):
        raise RegularizerDoesNotFit(
            f"regularizer {name!r} returned a penalty of {penalty.item()} for a new network: "
            "expected a finite number"
        )
    if not penalty.requires_grad:
        raise RegularizerDoesNotFit(
            f"regularizer {name!r} returned a penalty that depends on no parameter: expected one "
            "that autograd can differentiate; leave out no_grad, detach and item"
        )
    torch.autograd.grad(penalty, list(parameters), allow_unused=True)
