"""A norm layer in other types, compiled, with other numbers of threads, and on a GPU."""

import copy
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from normbench.check.layers import (
    Bound,
    Pass,
    Subject,
    drawn,
    epsilon_of,
    exact_pass,
    measured,
    run_layer,
)
from normbench.check.properties import Property, Standing

SECTION = "numerics"
IMAGES, CHANNELS, HEIGHT, WIDTH = 8, 6, 6, 6

Context = Callable[[], AbstractContextManager[object]]


def numerics_properties(subject: Subject, compiling: bool = True) -> Iterator[Property]:
    """Hold the layer in each type, compiled and spread, against its exact pass.

    Without ``compiling`` what takes most of the time is left out.
    """
    for dtype in (torch.bfloat16, torch.float16):
        autocast = partial(torch.autocast, "cpu", dtype)
        name = f"{_short(dtype)} layer and features"
        yield measured(SECTION, name, partial(_in_type, subject, name, dtype))
        name = f"{_short(dtype)} layer and features, channels_last"
        # 16-bit types have kernels of their own for each memory order
        last = partial(_in_type, subject, name, dtype, memory_order=torch.channels_last)
        yield measured(SECTION, name, last)
        name = f"float32 layer under autocast to {_short(dtype)}"
        yield measured(SECTION, name, partial(_in_type, subject, name, dtype, autocast))
    name = "float16 features of size 1,000 under autocast"
    large = partial(_in_type, subject, name, torch.float16, autocast, scale=1e3)
    yield measured(SECTION, name, large)
    name = "float64 in, float64 inside"
    yield measured(SECTION, name, partial(_double, subject, name))
    name = "threads, 1 and 2"
    yield measured(SECTION, name, partial(_threads, subject, name))
    for training, mode in ((True, "training"), (False, "evaluation")) if compiling else ():
        name = f"torch.compile, {mode}"
        yield measured(SECTION, name, partial(_compiled, subject, name, training))
    yield measured(SECTION, "CUDA", partial(_cuda, subject, "CUDA"))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(subject: Subject) -> tuple[int, int, int, int]:
    return IMAGES, CHANNELS * subject.multiple, HEIGHT, WIDTH


def _drawn(subject: Subject, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = subject.generator()
    features = (drawn(_shape(subject), generator) * scale).float().double()
    return features, drawn(_shape(subject), generator)


def _in_type(
    subject: Subject,
    name: str,
    dtype: torch.dtype,
    autocast: Context | None = None,
    scale: float = 1.0,
    memory_order: torch.memory_format = torch.contiguous_format,
) -> Property:
    """Hold a pass with features of a type against the exact one with the same numbers.

    The layer is of that type too, or stays in float32 under autocast.
    """
    features, gradient = (
        each.to(dtype).contiguous(memory_format=memory_order) for each in _drawn(subject, scale)
    )
    layer = subject.trained(_shape(subject), torch.float32 if autocast else dtype)
    worst = (0.0, "")
    for training in (True, False):
        before = copy.deepcopy(layer).train(training)
        with autocast() if autocast else nullcontext():
            seen = run_layer(copy.deepcopy(layer).train(training), features.clone(), gradient)
        expected = exact_pass(subject)(before, features.double(), gradient.double(), training)
        bound = Bound.of(features, dtype, epsilon_of(layer))
        worst = max(worst, bound.excess(seen, expected, gradient), key=lambda found: found[0])
    share, told = worst
    if share > 1:
        # of features so large, their squares are beyond float16
        if subject.formula is not None or scale == 1:
            return Property(SECTION, name, Standing.BROKEN, told)
        told += ": in mixed precision, training would have to keep features smaller"
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    told = f"at most {share:.1%} of the bound from the exact pass, {_short(seen.output.dtype)} out"
    return Property(SECTION, name, Standing.HOLDS, told)


def _double(subject: Subject, name: str) -> Property:
    """Tell whether the layer computes in float64 when it is asked to."""
    features, gradient = _drawn(subject)
    layer = subject.trained(_shape(subject))
    one, other = (
        run_layer(copy.deepcopy(layer), each, gradient).output
        for each in (features.clone(), features * (1 + 1e-10))
    )
    if one.dtype != torch.float64:
        return Property(SECTION, name, Standing.BROKEN, f"returned {_short(one.dtype)}")
    again = run_layer(copy.deepcopy(layer), features.clone(), gradient).output
    if not torch.equal(one, again):
        told = "its output differs from call to call, so that this cannot be told"
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    noise = (one - other).abs().max().item()
    if noise > 3e-9 * (1 + one.abs().max().item()):
        told = "it computes in float32 inside: its gradients cannot be checked to more digits"
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    return Property(SECTION, name, Standing.HOLDS, "no digits are lost")


@contextmanager
def _thread_count(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads(subject: Subject, name: str) -> Property:
    """Hold two threads against one, on features that are enough for both."""
    shape = (32, CHANNELS * subject.multiple, 24, 24)
    generator = subject.generator()
    features, gradient = drawn(shape, generator), drawn(shape, generator)
    passes = []
    for count in (1, 2):
        with _thread_count(count):
            layer = subject.trained(shape, torch.float32)
            passes.append(_exact(run_layer(layer, features.float(), gradient.float())))
    bound = Bound.of(features, torch.float32, epsilon_of(layer))
    one, two = passes
    return _against(name, bound.excess(two, one, gradient), "one thread")


def _exact(seen: Pass) -> Pass:
    return Pass({name: tensor.cpu().double() for name, tensor in seen.tensors.items()})


def _against(name: str, found: tuple[float, str], other: str) -> Property:
    share, told = found
    if share > 1:
        return Property(SECTION, name, Standing.BROKEN, f"{told}, from {other}")
    told = f"at most {share:.1%} of the bound from {other}"
    return Property(SECTION, name, Standing.HOLDS, told)


def _compiled(subject: Subject, name: str, training: bool) -> Property:
    """Hold the layer compiled for one shape against itself."""
    if (missing := _missing_compiler()) is not None:
        return Property(SECTION, name, Standing.SKIPPED, missing)
    features, gradient = _drawn(subject)
    plain = subject.trained(_shape(subject), torch.float32).train(training)
    twin = copy.deepcopy(plain)
    expected = _exact(run_layer(plain, features.float(), gradient.float()))
    with _quiet_compiler():
        seen = run_layer(_Compiled(twin), features.float(), gradient.float())
    named = {n.replace("layer.", ""): t for n, t in seen.tensors.items()}
    bound = Bound.of(features, torch.float32, epsilon_of(plain))
    return _against(name, bound.excess(Pass(named), expected, gradient), "the plain layer")


class _Compiled(nn.Module):
    """A layer that is called through what torch.compile makes of it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.train(layer.training)
        self._call = torch.compile(layer)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self._call(features)
        return output


def _missing_compiler() -> str | None:
    """Say why nothing can be compiled here; None where it can."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if sys.platform == "win32" or shutil.which(compiler.split()[0]) is None:
        return f"there is no C++ compiler {compiler!r} here: install one, or name it in $CXX"
    return None


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Compile in this process alone, from scratch, with nothing said of it."""
    from torch._inductor import config

    torch.compiler.reset()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # torch's own trace heeds its level alone
    trace = logging.getLogger("torch.__trace")
    level = trace.level
    trace.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), config.patch(compile_threads=1):
            warnings.simplefilter("ignore")
            yield
    finally:
        trace.setLevel(level)
        logging.disable(disabled)


def _cuda(subject: Subject, name: str) -> Property:
    """Hold the layer on the GPU against the exact pass, in both modes and memory orders."""
    if not torch.cuda.is_available():
        return Property(SECTION, name, Standing.SKIPPED, "there is no GPU here")
    features, gradient = _drawn(subject)
    worst = (0.0, "")
    for training in (True, False):
        layer = subject.trained(_shape(subject), torch.float32).train(training)
        expected = exact_pass(subject)(copy.deepcopy(layer), features, gradient, training)
        bound = Bound.of(features, torch.float32, epsilon_of(layer))
        for order in (torch.contiguous_format, torch.channels_last):
            x, g = (
                each.float().cuda().contiguous(memory_format=order) for each in (features, gradient)
            )
            seen = _exact(run_layer(copy.deepcopy(layer).cuda(), x, g))
            worst = max(worst, bound.excess(seen, expected, gradient), key=lambda each: each[0])
    return _against(name, worst, "the exact pass")
