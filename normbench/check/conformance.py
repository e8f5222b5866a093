"""Whether a norm, a regularizer or a network is what it says it is."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch

from normbench.check.costs import cost_properties
from normbench.check.function import (
    function_properties,
    gradient_properties,
    weights_properties,
)
from normbench.check.invariances import affine_properties, invariance_properties
from normbench.check.layers import Subject
from normbench.check.networks import network_properties
from normbench.check.numerics import numerics_properties
from normbench.check.properties import Checked, Property
from normbench.check.regularizers import regularizer_properties
from normbench.check.state import module_properties
from normbench.check.statistics import statistics_properties


def check_norm(name: str, *, compiling: bool = True, costs: bool = True, seed: int = 0) -> Checked:
    """Check the norm called ``name``: its function, statistics, invariances, numerics and costs.

    Without ``compiling`` and ``costs`` it takes a few seconds, else up to a minute. ``seed`` is
    that of the features, and of what a layer draws when it is built. Raises UnknownNorm, and
    NormDoesNotFit for a norm that can stand in no network.
    """
    return _checked("norm", name, _norm_properties(Subject(name, seed), compiling, costs))


def _norm_properties(subject: Subject, compiling: bool, costs: bool) -> Iterator[Property]:
    yield from function_properties(subject)
    yield from gradient_properties(subject)
    yield from weights_properties(subject)
    yield from statistics_properties(subject)
    yield from invariance_properties(subject)
    yield from affine_properties(subject)
    yield from module_properties(subject)
    yield from numerics_properties(subject, compiling)
    if costs:
        yield from cost_properties(subject)


def check_regularizer(name: str) -> Checked:
    """Check a regularizer as its name spells it; raises ValueError for a name that is none."""
    return _checked("regularizer", name, regularizer_properties(name))


def check_network(name: str, *, dataset: str | None = None) -> Checked:
    """Check the network called ``name``, built for the images of ``dataset``.

    Raises ValueError for a name that is none, and NetworkDoesNotFit as models.networks does.
    """
    return _checked("network", name, network_properties(name, dataset))


# How each kind is checked, by its name.
CHECKS: dict[str, Callable[[str], Checked]] = {
    "norm": check_norm,
    "regularizer": check_regularizer,
    "network": check_network,
}


def _checked(kind: str, subject: str, properties: Iterable[Property]) -> Checked:
    """Gather the properties, without the warnings of what is checked, on one thread."""
    start = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            found = tuple(properties)
    finally:
        torch.set_num_threads(threads)
    return Checked(kind, subject, found, round(time.perf_counter() - start, 3))
