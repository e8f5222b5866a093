"""A norm layer under check: built for any features, run once, and held against what is right."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from normbench.check.formulas import EPSILON, Formula, formula_of
from normbench.check.properties import Property, Standing
from normbench.models.families import NormClaims, claims_of, norm_parameter
from normbench.models.norms import NormDoesNotFit, NormSite, bare_layer, check_layer, norm_factory

# Rounding errors that the outcome of one element goes through, beside those of the sums.
ROUNDINGS = 16
# Numbers of channels are multiples of the smallest of these that the layer can be built for.
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)

# That a layer has taken which is as training may leave it.
TRAINED_STEPS = 300


class Refused(Exception):
    """An error that the layer itself has raised."""


@dataclass(frozen=True)
class Pass:
    """What one forward and backward pass leaves: tensors by what they are.

    ``output``, ``input gradient``, ``gradient of NAME`` and ``buffer NAME``.
    """

    tensors: dict[str, Tensor]

    @property
    def output(self) -> Tensor:
        return self.tensors["output"]

    @property
    def finite(self) -> bool:
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors.values())


class Subject:
    """The norm called ``name``: how to build its layer bare, what it claims, and its formula.

    ``multiple`` is the number that its channels have to be a multiple of; all that is drawn at
    random for it follows from ``seed``.

    Raises UnknownNorm, and NormDoesNotFit for a norm that can stand in no network.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self._factory = norm_factory(name)
        self.claims: NormClaims = claims_of(name)
        self.formula: Formula | None = formula_of(name)
        parameter = norm_parameter(name)
        # images of a ghost batch; 0 where there are none
        self.ghost = parameter.get("S", 0)
        groups = parameter.get("G")
        self.multiple = self._least_multiple((groups,) if groups else MULTIPLES)

    def _least_multiple(self, multiples: tuple[int, ...]) -> int:
        """Return the number that the layer's channels are a multiple of."""
        misfits = []
        for multiple in multiples:
            try:
                for channels in (1, 3, 7):
                    site = NormSite("check", multiple * channels, 2, 3)
                    with torch.random.fork_rng(devices=[]):
                        check_layer(self.name, self._factory(site), site)
            except NormDoesNotFit as misfit:
                misfits.append(misfit)
            else:
                return multiple
        raise misfits[0]

    def generator(self, draw: int = 0) -> torch.Generator:
        """Return the random numbers of one ``draw``, below 1,000, the same each time."""
        return torch.Generator().manual_seed(1000 * self.seed + draw)

    @cached_property
    def is_random(self) -> bool:
        """Whether the layer in training comes out differently twice, from the same state."""
        shape = (4, 3 * self.multiple, 2, 3)
        features = drawn(shape, self.generator())
        layer = self.trained(shape)
        one, other = (call(copy.deepcopy(layer), features.clone()) for _ in range(2))
        return not torch.equal(one, other)

    def layer(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> nn.Module:
        """Build the layer for features of ``shape``, in training mode, as it begins."""
        torch.manual_seed(self.seed)
        built = self._factory(NormSite("check", *shape[1:]))
        return copy.deepcopy(bare_layer(built)).to(dtype).train()

    def placed(self, shape: tuple[int, ...]) -> nn.Module:
        """Build the layer in float32 as it stands in a network, with what is put around it."""
        return self._factory(NormSite("check", *shape[1:])).train()

    def trained(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> nn.Module:
        """Build the layer with parameters, and buffers, as training may leave them.

        The numbers are those of float32, so that layers of both types are the same.
        """
        layer = self.layer(shape)
        generator = self.generator()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(drawn(parameter.shape, generator) / 8)
            size = (max(2, shape[0] + shape[0] % 2), *shape[1:])
            if math.prod(size) // size[1] > 2:
                call(layer, drawn(size, generator) + 0.5)
            for name, buffer in layer.named_buffers():
                # what changes with the steps has changed by then
                if name == "num_batches_tracked" and buffer is not None:
                    buffer.add_(TRAINED_STEPS)
        return layer.float().to(dtype)


def drawn(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Draw normal numbers in float64, each of which float32 has as well."""
    return torch.randn(shape, generator=generator).double()


def measured(section: str, name: str, measure: Callable[[], Property]) -> Property:
    """Return the property that is measured; one whose measurement the layer refuses is UNSUPPORTED.

    An error at another place, as where autograd finds its tensors overwritten, breaks it.
    """
    try:
        return measure()
    except Refused as refused:
        return Property(section, name, Standing.UNSUPPORTED, str(refused))
    except Exception as error:
        return Property(section, name, Standing.BROKEN, f"raised {_told(error)}")


def call(layer: nn.Module, features: Tensor) -> Tensor:
    """Return the layer's output; raises Refused for what the layer raises."""
    try:
        output: Tensor = layer(features)
    except (Exception, SystemExit) as error:
        raise Refused(_told(error)) from error
    return output


def _told(error: BaseException) -> str:
    told = ": ".join(filter(str.strip, (type(error).__name__, str(error))))
    return " ".join(told.split())[:200]


def run_layer(layer: nn.Module, features: Tensor, gradient: Tensor) -> Pass:
    """Take a pass of the layer in the mode that it is in; raises Refused as it does.

    The memory orders of the features and of the output's gradient stay as they are given.
    """
    leaf = features.detach().requires_grad_()
    # in a network the features are no leaf, and may be written to; a view that is not dense stays
    copied = leaf.clone()
    output = call(layer, copied if copied.stride() == leaf.stride() else leaf)
    layer.zero_grad(set_to_none=True)
    if output.requires_grad:
        try:
            output.backward(_in_order_of(gradient, output))
        except RuntimeError as error:
            raise Refused(f"in the backward pass: {_told(error)}") from error
    none = torch.zeros(())
    tensors = {"output": output, "input gradient": none if leaf.grad is None else leaf.grad}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            gone = torch.zeros_like(parameter)
            tensors[f"gradient of {name}"] = gone if parameter.grad is None else parameter.grad
    tensors |= {f"buffer {n}": b for n, b in layer.named_buffers() if b.is_floating_point()}
    return Pass({name: tensor.detach().clone() for name, tensor in tensors.items()})


def _in_order_of(gradient: Tensor, output: Tensor) -> Tensor:
    return gradient.to(output.dtype) if gradient.dtype != output.dtype else gradient


def run_formula(
    formula: Formula, layer: nn.Module, features: Tensor, gradient: Tensor, training: bool
) -> Pass:
    """Take the same pass by the formula, in float64, from the state that the layer has."""
    state = {name: tensor.detach().double().clone() for name, tensor in _state(layer).items()}
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    leaves = {name: state[name].requires_grad_() for name in sorted(trained)}
    leaf = features.detach().double().requires_grad_()
    output, after = formula(leaf, state, training)
    wanted = [leaf, *leaves.values()]
    gradients = torch.autograd.grad(output, wanted, gradient.double(), allow_unused=True)
    found = [
        torch.zeros_like(at) if g is None else g for g, at in zip(gradients, wanted, strict=True)
    ]
    tensors = {"output": output, "input gradient": found[0]}
    tensors |= {f"gradient of {n}": g for n, g in zip(leaves, found[1:], strict=True)}
    tensors |= {
        f"buffer {n}": after.get(n, state[n])
        for n, b in layer.named_buffers()
        if b.is_floating_point()
    }
    return Pass({name: tensor.detach() for name, tensor in tensors.items()})


def _state(layer: nn.Module) -> dict[str, Tensor]:
    return {**dict(layer.named_parameters()), **dict(layer.named_buffers())}


@dataclass(frozen=True)
class Bound:
    """How far a pass in one type may be from the exact one, by the features that it was given.

    An element's outcome goes through some ROUNDINGS operations with a relative error of ``u``
    each, the type's unit roundoff; a sum of ``n`` terms adds about ``sqrt(n)`` errors of the type
    that sums are taken in (Higham and Mary, A New Approach to Probabilistic Rounding Error
    Analysis, 2019), which is float32 or better. Where the features' mean is ``k`` times their
    deviation, what is left when it is taken away carries ``1 + k`` times the error: ``k`` is the
    largest feature over ``deviation``, the root of the smallest variance of a channel, or of the
    channels of a place, plus the layer's epsilon. The gradient has it in its denominator.
    """

    unit: float
    condition: float
    deviation: float

    @classmethod
    def of(cls, features: Tensor, dtype: torch.dtype, epsilon: float = EPSILON) -> "Bound":
        exact = features.detach().double()
        # one type for the elements, and sums in float32 where that is the better one
        summed = min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        unit = ROUNDINGS * torch.finfo(dtype).eps / 2 + math.sqrt(exact.numel()) * summed / 2
        of_channel = exact.transpose(0, 1).flatten(1).var(1, correction=0)
        smallest = torch.minimum(of_channel.min(), exact.var(1, correction=0).min())
        deviation = (smallest + epsilon).sqrt().item()
        return cls(unit, 1 + exact.abs().max().item() / deviation, deviation)

    @property
    def relative(self) -> float:
        return self.unit * self.condition

    def excess(self, seen: Pass, expected: Pass, gradient: Tensor) -> tuple[float, str]:
        """Return the largest error over its bound, and a sentence that tells it.

        A tensor's error is its largest, over the largest size that an element of it has.
        """
        worst = (0.0, "")
        for name, exact in expected.tensors.items():
            error = (seen.tensors[name].double() - exact).abs().max().item() if exact.numel() else 0
            bound = self.relative * self._size(name, expected, gradient)
            share = error / bound if math.isfinite(error) else math.inf
            told = f"the {name} is off by {error:.2g}, where {bound:.2g} is the bound"
            if not seen.tensors[name].isfinite().all():
                told = f"the {name} is not finite"
            worst = max(worst, (share, told), key=lambda found: found[0])
        return worst

    def _size(self, name: str, expected: Pass, gradient: Tensor) -> float:
        """Return the size of a tensor's elements, and of the terms that an element is summed of."""
        size = expected.tensors[name].abs().max().item() if expected.tensors[name].numel() else 0.0
        largest = gradient.double().abs().max().item()
        if name.startswith("gradient of"):
            terms = largest * max(1.0, expected.output.abs().max().item())
            return max(size, terms * math.sqrt(gradient.numel()))
        if name == "input gradient":
            return max(size, largest, largest / self.deviation)
        return max(size, 1.0)


def epsilon_of(layer: nn.Module) -> float:
    """Return the layer's epsilon by the name that torch has for it, else torch's default."""
    epsilon = getattr(layer, "eps", EPSILON)
    return epsilon if isinstance(epsilon, float) and epsilon > 0 else EPSILON


Expected = Callable[[nn.Module, Tensor, Tensor, bool], Pass]


def exact_pass(subject: Subject) -> Expected:
    """Return what takes the exact pass: the formula, or the layer itself in float64."""

    def exact(layer: nn.Module, features: Tensor, gradient: Tensor, training: bool) -> Pass:
        if subject.formula is not None:
            return run_formula(subject.formula, layer, features, gradient, training)
        twin = copy.deepcopy(layer).double().train(training)
        plain = torch.contiguous_format
        features, gradient = (
            each.detach().double().clone(memory_format=plain) for each in (features, gradient)
        )
        return run_layer(twin, features, gradient)

    return exact


def named_states(layer: nn.Module) -> Mapping[str, Tensor]:
    """Return copies of the layer's floating buffers."""
    return {n: b.detach().clone() for n, b in layer.named_buffers() if b.is_floating_point()}
