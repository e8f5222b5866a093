"""How much runs of one configuration scatter over their seeds."""

from collections.abc import Mapping, Sequence

from normbench.analysis.statistics import Variance, moderated_variances
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.training.datasets import find_dataset


def variances(samples: Mapping[RunSpec, Sequence[float]]) -> dict[RunSpec, Variance]:
    """Return the variance of each configuration, moderated over those of its data and recipe."""
    groups: dict[tuple[str, str, str], dict[RunSpec, Sequence[float]]] = {}
    for spec, sample in samples.items():
        group = (spec.dataset, spec.network, spec.recipe)
        groups.setdefault(group, {})[spec] = sample
    found: dict[RunSpec, Variance] = {}
    for (dataset, _, _), group_samples in groups.items():
        step = 1 / find_dataset(dataset).test_images
        found |= moderated_variances(group_samples, resolution=step)
    return found


class Spread:
    """The variance of a run of each configuration of a baseline."""

    def __init__(self, baseline: Baseline) -> None:
        self._samples = {case.spec: case.accuracies for case in baseline.cases.values()}
        self._known = variances(self._samples)

    def variance(self, spec: RunSpec) -> Variance:
        """Return the variance of one run of ``spec``, whatever its seed, over the seeds.

        Of a configuration that the baseline does not have, it is what those of the same data set
        and recipe have in common.
        """
        configuration = spec.with_seed(0)
        if configuration not in self._known:
            return variances({**self._samples, configuration: []})[configuration]
        return self._known[configuration]
