"""The norm layers of timm, each with what its paper, or its documentation, claims."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm.layers as of_timm
from torch import nn

PER_CHANNEL = "per channel"
MOVED = ("channel permutation", "image permutation")
STANDARDIZED = ("scale", "shift", "image scale", "image permutation")


def norm(name: str, **claims: Any) -> Callable[[int], nn.Module]:
    """Return a factory of timm's layer of this name, with what it claims."""
    factory = partial(getattr(of_timm, name))
    factory.normbench_claims = claims  # type: ignore[attr-defined]
    return factory


def _of_batch(name: str, *invariances: str) -> Callable[[int], nn.Module]:
    return norm(
        name,
        axes=("N", "H", "W"),
        affine=PER_CHANNEL,
        batch_independent=False,
        invariances=(*invariances, *MOVED),
    )


def _of_groups(name: str) -> Callable[[int], nn.Module]:
    claimed = {"affine": PER_CHANNEL, "batch_independent": True}
    return norm(name, axes=("C/G", "H", "W"), invariances=("image permutation",), **claimed)


def _of_places(name: str, *invariances: str) -> Callable[[int], nn.Module]:
    claimed = {"affine": PER_CHANNEL, "batch_independent": True}
    return norm(name, axes=("C",), invariances=("scale", *MOVED, *invariances), **claimed)


def _of_maps(name: str) -> Callable[[int], nn.Module]:
    claimed = {"affine": PER_CHANNEL, "batch_independent": True}
    return norm(name, axes=("H", "W"), invariances=("scale", "channel scale", *MOVED), **claimed)


# Liu et al., Evolving Normalization-Activation Layers, 2020
EvoNorm2dB0 = _of_batch("EvoNorm2dB0", "scale")
EvoNorm2dB1 = _of_batch("EvoNorm2dB1")
EvoNorm2dB2 = _of_batch("EvoNorm2dB2")
EvoNorm2dS0 = _of_groups("EvoNorm2dS0")
EvoNorm2dS0a = _of_groups("EvoNorm2dS0a")
EvoNorm2dS1 = _of_groups("EvoNorm2dS1")
EvoNorm2dS1a = _of_groups("EvoNorm2dS1a")
EvoNorm2dS2 = _of_groups("EvoNorm2dS2")
EvoNorm2dS2a = _of_groups("EvoNorm2dS2a")
# Singh and Krishnan, Filter Response Normalization Layer, 2020
FilterResponseNormTlu2d = _of_maps("FilterResponseNormTlu2d")
FilterResponseNormAct2d = _of_maps("FilterResponseNormAct2d")
GroupNorm1 = norm(
    "GroupNorm1",
    axes=("C", "H", "W"),
    affine=PER_CHANNEL,
    batch_independent=True,
    invariances=(*STANDARDIZED, "channel permutation"),
)
LayerNorm2d = _of_places("LayerNorm2d", "shift", "image scale")
# Zhang and Sennrich, Root Mean Square Layer Normalization, 2019
RmsNorm2d = _of_places("RmsNorm2d", "image scale")
SimpleNorm2d = _of_places("SimpleNorm2d", "image scale")
# one normalization for each half of the batch
SplitBatchNorm2d = norm(
    "SplitBatchNorm2d",
    affine=PER_CHANNEL,
    batch_independent=False,
    invariances=("scale", "shift", "channel scale", "channel shift", "channel permutation"),
)
