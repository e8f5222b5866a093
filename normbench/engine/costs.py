"""What a run costs: estimated before it has begun, and measured from its first epoch on."""

import functools
import statistics
from collections.abc import Iterable, Mapping, Sequence

from normbench.results import Epoch
from normbench.spec import RunSpec
from normbench.training.datasets import find_dataset, images_per_epoch

# Seconds of one core that an image takes, and that a step takes however few images it has: fitted
# to runs at batch sizes 32 and 64 on a 2.5 GHz Xeon. They order the runs; only ratios matter.
SECONDS_PER_IMAGE = {
    "digits": 5e-5,
    "mnist": 1.5e-4,
    "cifar10": 1e-3,
    "cifar10-best": 2e-3,
    "preact": 4e-4,
}
SECONDS_PER_STEP = 3e-3
NORM_FACTOR = {"none": 0.75, "instance": 1.6}
# What the check of one norm, regularizer or network takes, and a trace, on the same machine.
CHECK_SECONDS, TRACE_SECONDS = 20.0, 5.0

# For a network that is not listed, by the operations of a forward pass: the listed ones take 5.5
# to 9.2e-11.
SECONDS_PER_OPERATION = 7e-11


def estimated_seconds(spec: RunSpec) -> float:
    """Estimate what a run costs one core, to put the longest first."""
    return sum(estimated_epochs(spec))


def estimated_epochs(spec: RunSpec) -> list[float]:
    """Estimate what each epoch of a run costs one core."""
    per_image = seconds_per_image(spec.network, spec.dataset)
    per_image += SECONDS_PER_STEP / spec.batch_size
    factor = NORM_FACTOR.get(spec.norm, 1.0)
    return [images * per_image * factor for images in images_per_epoch(spec)]


def share_done(spec: RunSpec, epochs: int) -> float:
    """Return the part of a run's cost that is spent after so many epochs."""
    estimated = estimated_epochs(spec)
    return sum(estimated[:epochs]) / sum(estimated)


@functools.cache
def seconds_per_image(network: str, dataset: str) -> float:
    """Estimate what an image costs; the same in every process, as they have to agree on an order.

    A network of the user's own that cannot be built counts as the middle one of those listed.
    """
    if network in SECONDS_PER_IMAGE:
        return SECONDS_PER_IMAGE[network]
    try:
        operations = _operations(network, dataset)
    # whatever a user's network raises, which is told when it is checked
    except (Exception, SystemExit):
        return statistics.median_low(SECONDS_PER_IMAGE.values())
    return operations * SECONDS_PER_OPERATION


def _operations(network: str, dataset: str) -> int:
    """Count the operations of a forward pass of one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from normbench.models.networks import build_network, seen_shape

    facts = find_dataset(dataset)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        built = build_network(network, "none", 0.0, facts.shape, len(facts.classes))
        with FlopCounterMode(display=False) as counter:
            built.eval()(torch.zeros(1, *seen_shape(network, facts.shape)))
    return int(counter.get_total_flops())


def measured_factors(runs: Iterable[tuple[RunSpec, Sequence[Epoch]]]) -> Mapping[str, float]:
    """Return, by network, how many seconds an estimated one has been, in the epochs so far."""
    seconds: dict[str, float] = {}
    estimated: dict[str, float] = {}
    for spec, epochs in runs:
        if epochs:
            taken = sum(epoch.train_seconds + epoch.test_seconds for epoch in epochs)
            expected = sum(estimated_epochs(spec)[: len(epochs)])
            seconds[spec.network] = seconds.get(spec.network, 0.0) + taken
            estimated[spec.network] = estimated.get(spec.network, 0.0) + expected
    return {network: taken / estimated[network] for network, taken in seconds.items() if taken}
