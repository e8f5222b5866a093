import importlib
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normbench.engine.runner  # what sessions hold of the engine is restored as well
from normbench.check.faults import FAULTS, PARTS, find_fault, planted
from normbench.models.networks import build_network
from normbench.models.norms import NormSite, norm_factory

del normbench

Computation = Callable[[], list[Tensor]]


def norm(
    name: str,
    images: int = 4,
    channels: int = 4,
    size: int = 3,
    features_last: bool = False,
    gradient_last: bool = False,
    training: bool = True,
    compiled: bool = False,
    dtype: torch.dtype = torch.float64,
    offset: float = 0.0,
) -> list[Tensor]:
    """Take two passes of a norm, and return what they leave."""
    torch.manual_seed(0)
    layer = norm_factory(name)(NormSite("test", channels, size, size)).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
        if channels * size > 1:
            layer(torch.randn(6, channels, size, size, dtype=dtype) + 1)
    layer.train(training)
    shape = (images, channels, size, size)
    features = (2 * torch.randn(shape, dtype=dtype) + offset).requires_grad_()
    gradient = torch.randn(shape, dtype=dtype)
    last, plain = torch.channels_last, torch.contiguous_format
    given = features.contiguous(memory_format=last if features_last else plain)
    call = torch.compile(layer, backend="aot_eager") if compiled else layer
    output = call(given)
    output.backward(gradient.contiguous(memory_format=last if gradient_last else plain))
    tensors = [output, features.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]
    return [t.detach().clone() for t in tensors if t is not None]


def other_channels() -> list[Tensor]:
    """Give a norm twice the channels that it was built for; a refusal leaves nothing."""
    layer = nn.InstanceNorm2d(3, affine=True)
    try:
        return [layer(torch.ones(2, 6, 2, 2))]
    except ValueError:
        return []


def one_value() -> list[Tensor]:
    layer = nn.BatchNorm2d(2)
    try:
        layer(torch.ones(1, 2, 1, 1))
    except ValueError:
        return []
    return [layer.running_var] if layer.running_var is not None else []


def network(name: str = "digits", training: bool = True) -> list[Tensor]:
    """Take a pass of a network as it begins, and return its logits and gradients."""
    torch.manual_seed(0)
    built = build_network(name, "batch", dropout=0.2).train(training)
    size, channels = built.image_size, built.image_channels
    logits = built(torch.randn(6, channels, size, size))
    F.cross_entropy(logits, torch.arange(6)).backward()
    return [logits.detach(), *(p.grad.clone() for p in built.parameters() if p.grad is not None)]


batch = partial(norm, "batch")
evaluated = partial(norm, "batch", training=False)
grouped = partial(norm, "group:2")
layered = partial(norm, "layer_chw")
instance = partial(norm, "instance")

# A small computation that each fault changes.
COMPUTATIONS: dict[str, Computation] = {
    "batch-running-variance-not-updated": batch,
    "batch-running-variance-biased": batch,
    "batch-square-for-root": batch,
    "batch-one-pass-variance": partial(batch, dtype=torch.float32, offset=1e4),
    "batch-negative-variance": partial(batch, dtype=torch.float32, offset=1e6),
    "batch-epsilon": batch,
    "batch-unequal-parts-running-variance": partial(batch, images=5),
    "batch-statistics-at-evaluation": evaluated,
    "batch-momentum": batch,
    "batch-momentum-exchanged": batch,
    "batch-evaluation-channels-last": partial(evaluated, features_last=True),
    "batch-evaluation-compiled": partial(evaluated, compiled=True),
    "batch-of-one-value": one_value,
    "group-fewer-groups": grouped,
    "group-unbiased-variance": grouped,
    "group-shift-lost": grouped,
    "group-evaluation-compiled": partial(grouped, training=False, compiled=True),
    "layer-epsilon-outside-the-root": layered,
    "layer-last-axis-alone": layered,
    "instance-channel-mismatch": other_channels,
    "instance-running-statistics-at-evaluation": partial(instance, training=False),
    "instance-over-the-batch": instance,
    "batch-weight-gradient-halved": batch,
    "group-weight-gradient-halved": grouped,
    "layer-weight-gradient-halved": layered,
    "batch-bias-gradient-lost": batch,
    "batch-gradient-in-plain-order": partial(batch, gradient_last=True),
    "batch-features-in-plain-order": partial(batch, features_last=True, gradient_last=True),
    "batch-gradient-of-unequal-parts": partial(batch, images=5),
    "batch-evaluation-gradient-of-training": evaluated,
    "batch-evaluation-weight-gradient": evaluated,
    "batch-half-not-a-number": partial(
        batch, features_last=True, gradient_last=True, dtype=torch.float16
    ),
    "batch-statistics-detached": batch,
    "group-gradient-layout": partial(grouped, gradient_last=True),
    "group-weight-gradient-channels-last": partial(grouped, features_last=True, gradient_last=True),
    "group-input-gradient": grouped,
    "layer-one-element": partial(layered, channels=1, size=1),
    "layer-deviation-detached": layered,
    "first-convolution-gradient-zero": network,
    "convolution-gradient-halved": network,
    "classifier-bias-gradient-lost": network,
    "activation-gradient-leaks": network,
    "pool-gradient-spread": network,
    "instance-gradient-of-one-image": partial(instance, images=1, gradient_last=True),
}


def attributes() -> dict[tuple[str, str], int]:
    """Return what every module of torch's that is patched, and of normbench, holds now."""
    owners: list[ModuleType | type] = [torch, torch.Tensor, torch.nn.functional]
    owners += [importlib.import_module("torch.optim.sgd")]
    owners += [torch.optim.lr_scheduler, torch.optim.lr_scheduler.OneCycleLR, torch.nn.init]
    owners += [cls for cls in vars(nn).values() if isinstance(cls, type)]
    modules = [m for n, m in sys.modules.items() if n.startswith("normbench.")]
    owners += modules
    owners += [c for m in modules for c in vars(m).values() if isinstance(c, type)]
    return {
        (f"{owner.__module__ if isinstance(owner, type) else ''}.{owner.__name__}", name): id(value)
        for owner in owners
        for name, value in list(vars(owner).items())
        if callable(value) or isinstance(value, (staticmethod, classmethod))
    }


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_every_fault_has_a_computation_that_it_changes() -> None:
    assert COMPUTATIONS.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_planted_fault_changes_its_computation_until_it_is_undone(name: str) -> None:
    compute = COMPUTATIONS[name]
    before, held = compute(), attributes()
    with planted(name):
        broken = compute()
    assert not equal(before, broken)
    assert equal(before, compute())
    assert attributes() == held


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_a_fault_says_what_it_breaks_and_stands_for(fault: object) -> None:
    known = find_fault(getattr(fault, "name", ""))
    assert known.part in PARTS
    assert known.told.endswith(".")
    assert len(known.told) < 140
    assert known.source == "" or known.source.startswith("[")


def test_a_fault_is_undone_though_what_it_broke_raised() -> None:
    held = attributes()
    with pytest.raises(RuntimeError, match="out of memory"), planted("batch-epsilon"):
        raise RuntimeError("out of memory")
    assert attributes() == held


def test_an_unknown_fault_is_told_with_the_closest_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown fault 'batch-epsilom': expected one of batch-eps"
    ):
        planted("batch-epsilom")
