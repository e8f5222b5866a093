"""What a run costs, estimated before it has begun."""

from normbench.spec import RunSpec
from normbench.training.datasets import images_per_epoch

# Seconds of one core that an image takes, and that a step takes however few images it has: fitted
# to runs at batch sizes 32 and 64 on a 2.5 GHz Xeon. They order the runs; only ratios matter.
SECONDS_PER_IMAGE = {"digits": 5e-5, "mnist": 1.5e-4, "cifar10": 1e-3}
SECONDS_PER_STEP = 3e-3
NORM_FACTOR = {"none": 0.75, "instance": 1.6}


def estimated_seconds(spec: RunSpec) -> float:
    """Estimate what a run costs one core, to put the longest first."""
    images = images_per_epoch(spec)
    per_epoch = (
        images * SECONDS_PER_IMAGE[spec.network] + images / spec.batch_size * SECONDS_PER_STEP
    )
    return spec.epochs * per_epoch * NORM_FACTOR.get(spec.norm, 1.0)
