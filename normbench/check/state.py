"""A norm layer as a module: copied and stored, called again, and left as it was."""

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from normbench.check.layers import Pass, Refused, Subject, call, drawn, measured, run_layer
from normbench.check.properties import Property, Standing

SECTION = "module"
CLOSE = 1e-5

Check = Callable[["_Module"], str]


class _Module:
    """The layer in float32 with features and gradients for it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.shape = (6, 3 * subject.multiple, 4, 5)
        generator = subject.generator()
        self.features, self.others, self.gradient = (
            drawn(self.shape, generator).float() for _ in range(3)
        )

    def layer(self) -> nn.Module:
        return self.subject.trained(self.shape, torch.float32)

    def outcome(self, layer: nn.Module) -> Pass:
        return run_layer(layer, self.features, self.gradient)

    def differences(self, layer: nn.Module, other: nn.Module) -> str:
        """Tell where two layers do not do the same to the bit, in both modes; "" where they do."""
        for training in (True, False):
            one, two = (self.outcome(each.train(training)).tensors for each in (layer, other))
            for name in one:
                if name not in two or not torch.equal(one[name], two[name]):
                    mode = "training" if training else "evaluation"
                    return f"the {name} differs in {mode}"
        return ""


def module_properties(subject: Subject) -> Iterator[Property]:
    """Hold the layer to what every module is expected to do."""
    module = _Module(subject)
    for name, check in CHECKS.items():
        yield measured(SECTION, name, partial(_checked, module, name, check))


def _checked(module: _Module, name: str, check: Check) -> Property:
    wrong = check(module)
    standing = Standing.BROKEN if wrong else Standing.HOLDS
    return Property(SECTION, name, standing, wrong or "as it should be")


def _state_dict(module: _Module) -> str:
    layer, other = module.layer(), module.subject.layer(module.shape, torch.float32)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    try:
        other.load_state_dict(torch.load(stored, weights_only=True))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise Refused(" ".join(str(error).split())[:200]) from error
    return module.differences(layer, other)


def _deepcopy(module: _Module) -> str:
    layer = module.layer()
    twin = copy.deepcopy(layer)
    shared = {t.data_ptr() for t in layer.state_dict().values() if t.numel()}
    if any(t.data_ptr() in shared for t in twin.state_dict().values() if t.numel()):
        return "the copy shares memory with the layer"
    return module.differences(layer, twin)


def _pickle(module: _Module) -> str:
    layer = module.layer()
    try:
        twin = pickle.loads(pickle.dumps(layer))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    return module.differences(layer, twin)


def _two_forwards(module: _Module) -> str:
    """A backward pass after two forward passes gives the sum of what each gives alone."""
    both, apart = module.layer(), module.layer()
    outputs = [call(both, each) for each in (module.features, module.others)]
    if not outputs[0].requires_grad:
        return ""
    both.zero_grad()
    ((outputs[0] + outputs[1]) * module.gradient).sum().backward()
    return _sums(both, _alone(module, apart))


def _accumulation(module: _Module) -> str:
    """Two backward passes leave the sum of what each gives alone."""
    both, apart = module.layer(), module.layer()
    both.zero_grad()
    for each in (module.features, module.others):
        output = call(both, each)
        if not output.requires_grad:
            return ""
        (output * module.gradient).sum().backward()
    return _sums(both, _alone(module, apart))


def _alone(module: _Module, layer: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for each in (module.features, module.others):
        tensors = run_layer(layer, each, module.gradient).tensors
        for name, tensor in tensors.items():
            if name.startswith("gradient of "):
                found[name] = found.get(name, torch.zeros_like(tensor)) + tensor
    return found


def _sums(layer: nn.Module, expected: dict[str, Tensor]) -> str:
    for name, parameter in layer.named_parameters():
        if not parameter.requires_grad:
            continue
        right = expected[f"gradient of {name}"]
        seen = torch.zeros_like(right) if parameter.grad is None else parameter.grad
        error = (seen - right).abs().max().item()
        if not error <= CLOSE * (1 + right.abs().max().item()) * module_size(right):
            return f"the gradient of {name} is off by {error:.2g}"
    return ""


def module_size(gradient: Tensor) -> float:
    """Return how many times a term the sum that a gradient is may err by rounding."""
    return max(1.0, math.sqrt(gradient.numel()))


def _no_grad(module: _Module) -> str:
    with_gradients, without = module.layer(), module.layer()
    one = call(with_gradients, module.features.clone())
    with torch.no_grad():
        two = call(without, module.features.clone())
    if two.requires_grad:
        return "the output asks for gradients under no_grad"
    if not torch.equal(one, two):
        return "the output is another one under no_grad"
    states = with_gradients.state_dict(), without.state_dict()
    changed = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    return f"{', '.join(changed)} is another one under no_grad" if changed else ""


def _deterministic(module: _Module) -> str:
    for _ in range(3):
        if told := module.differences(module.layer(), module.layer()):
            return f"{told} from one call to the next"
    return ""


def _input_untouched(module: _Module) -> str:
    for training in (True, False):
        features, gradient = module.features.clone(), module.gradient.clone()
        layer = module.layer().train(training)
        with torch.no_grad():
            call(layer, features)
        if not torch.equal(features, module.features):
            return "the features are changed in place"
        given = features.requires_grad_().clone()
        output = call(layer, given)
        if output.requires_grad:
            output.backward(gradient)
        if not torch.equal(gradient, module.gradient):
            return "the output's gradient is changed in place"
        if not torch.equal(given, module.features):
            return "the features are changed in place in the backward pass"
    return ""


def _random_numbers(module: _Module) -> str:
    before = torch.get_rng_state()
    call(module.layer(), module.features)
    # building a layer draws its first weights
    torch.set_rng_state(before)
    layer = module.layer()
    between = torch.get_rng_state()
    call(layer, module.features)
    return "" if torch.equal(between, torch.get_rng_state()) else "a call draws random numbers"


def _wrong_channels(module: _Module) -> str:
    """Features of other channels than the layer was built for have to be refused."""
    layer = module.layer()
    if not any(True for _ in layer.parameters()):
        return ""
    wider = torch.cat([module.features, module.features], 1)
    try:
        with torch.no_grad():
            output = call(layer, wider)
    except Refused:
        return ""
    return f"took {wider.shape[1]} channels for {module.shape[1]} and returned {output.shape}"


CHECKS: dict[str, Check] = {
    "state_dict stored and loaded": _state_dict,
    "deepcopy": _deepcopy,
    "pickle": _pickle,
    "two forward passes before a backward pass": _two_forwards,
    "gradients accumulate": _accumulation,
    "the same under no_grad": _no_grad,
    "deterministic": _deterministic,
    "no random numbers drawn": _random_numbers,
    "input and gradient not written to": _input_untouched,
    "other channels refused": _wrong_channels,
}
