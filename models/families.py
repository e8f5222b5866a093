"""What is true of each norm that is known by a name, and what a user's own claims of itself."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .factories import named_object

AFFINE = ("none", "per channel", "per channel and one for all", "per element")
INVARIANCES = (
    *("scale", "shift", "image scale", "channel scale", "channel shift"),
    *("channel permutation", "image permutation"),
)
# The factory's attribute that holds what a user's norm claims.
CLAIMS_ATTRIBUTE = "normbench_claims"


@dataclass(frozen=True)
class NormClaims:
    """What a norm says of itself, which ``normbench check`` verifies; None where it says nothing.

    ``axes`` names the axes of ``(N, C, H, W)`` that one statistic is taken over, ``C/G`` meaning
    the channels of one group, and ``N/S`` the images of one ghost batch; ``affine`` says what has
    weights of its own, one of AFFINE; ``batch_independent`` says whether in training an image's
    output leaves out the other images of its batch; ``invariances`` are those of INVARIANCES, in
    training and with the parameters that it begins with: what scales or shifts the features leaves
    the output as it is, and what permutes them permutes it. ``unbiased`` says whether the running
    variance is stored with Bessel's correction; ``stops_gradients`` that parts of the forward pass
    are left out of the gradient on purpose.
    """

    axes: tuple[str, ...] | None = None
    affine: str | None = None
    batch_independent: bool | None = None
    invariances: tuple[str, ...] | None = None
    unbiased: bool | None = None
    stops_gradients: bool = False


@dataclass(frozen=True)
class NormFamily:
    """A kind of normalization, whatever its parameter: how it is spelled, and what it claims.

    ``activation`` is the one that it brings, by a formula of its features ``x``.
    """

    spelling: str
    claims: NormClaims
    paper: str
    activation: str = ""

    @property
    def example(self) -> str:
        """A name of the family."""
        return self.spelling.replace(":G", ":4").replace(":S", ":2")


_OF_IMAGE = ("scale", "shift", "image scale", "image permutation")
_OF_CHANNEL = ("channel scale", "channel shift", "channel permutation")
_MOVED = ("channel permutation", "image permutation")

# Before a norm's name: the weights of the convolutions are standardized as well.
STANDARDIZED = "ws+"
_WEIGHT_STANDARDIZATION = (
    "Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight "
    "Standardization, 2019"
)

FAMILIES: dict[str, NormFamily] = {
    family.spelling: family
    for family in (
        NormFamily(
            "none",
            NormClaims((), "none", True, _MOVED),
            "none",
        ),
        NormFamily(
            "batch",
            NormClaims(
                axes=("N", "H", "W"),
                affine="per channel",
                batch_independent=False,
                invariances=("scale", "shift", *_OF_CHANNEL, "image permutation"),
                unbiased=True,
            ),
            "Ioffe and Szegedy, Batch Normalization, 2015",
        ),
        NormFamily(
            "layer",
            NormClaims(("C", "H", "W"), "per channel", True, (*_OF_IMAGE, "channel permutation")),
            "Wu and He, Group Normalization, 2018, section 3.1: one group of all channels",
        ),
        NormFamily(
            "layer_chw",
            NormClaims(("C", "H", "W"), "per element", True, (*_OF_IMAGE, "channel permutation")),
            "Ba, Kiros and Hinton, Layer Normalization, 2016",
        ),
        NormFamily(
            "group:G",
            NormClaims(("C/G", "H", "W"), "per channel", True, _OF_IMAGE),
            "Wu and He, Group Normalization, 2018",
        ),
        NormFamily(
            "instance",
            NormClaims(("H", "W"), "per channel", True, (*_OF_IMAGE, *_OF_CHANNEL)),
            "Ulyanov, Vedaldi and Lempitsky, Instance Normalization, 2016",
        ),
        NormFamily(
            "rms",
            NormClaims(("C", "H", "W"), "per channel", True, ("scale", "image scale", *_MOVED)),
            "Zhang and Sennrich, Root Mean Square Layer Normalization, 2019",
        ),
        NormFamily(
            "frn",
            NormClaims(
                axes=("H", "W"),
                affine="per channel",
                batch_independent=True,
                invariances=("scale", "image scale", "channel scale", *_MOVED),
            ),
            "Singh and Krishnan, Filter Response Normalization Layer, 2020",
            activation="max(x, t), t trained",
        ),
        NormFamily(
            "grn",
            NormClaims(("C", "H", "W"), "per channel", True, _MOVED),
            "Woo et al., ConvNeXt V2, 2023: global response normalization",
        ),
        NormFamily(
            "batch_renorm",
            NormClaims(
                axes=("N", "H", "W"),
                affine="per channel",
                batch_independent=False,
                invariances=("scale", "shift", *_OF_CHANNEL, "image permutation"),
                stops_gradients=True,
            ),
            "Ioffe, Batch Renormalization, 2017",
        ),
        NormFamily(
            "ghost:S",
            NormClaims(
                axes=("N/S", "H", "W"),
                affine="per channel",
                batch_independent=False,
                invariances=("scale", "shift", *_OF_CHANNEL),
                unbiased=True,
            ),
            "Hoffer, Hubara and Soudry, Train Longer, Generalize Better, 2017: ghost batch "
            "normalization",
        ),
        NormFamily(
            "ws+group:G",
            NormClaims(("C/G", "H", "W"), "per channel", True, _OF_IMAGE),
            _WEIGHT_STANDARDIZATION,
        ),
        NormFamily(
            "evonorm_s0:G",
            NormClaims(("C/G", "H", "W"), "per channel", True, ("image permutation",)),
            "Liu et al., Evolving Normalization-Activation Layers, 2020",
            activation="x sigmoid(v x), v trained",
        ),
        NormFamily(
            "dynamic_tanh",
            NormClaims((), "per channel and one for all", True, _MOVED),
            "Zhu et al., Transformers without Normalization, 2025",
        ),
    )
}

# Of the others, standardized weights would blow up the features; some have them already.
NORMALIZING_THE_SCALE = [
    family.spelling
    for family in FAMILIES.values()
    if "scale" in (family.claims.invariances or ()) and not family.spelling.startswith(STANDARDIZED)
]

SPELLINGS = (
    f"{', '.join(FAMILIES)} (such as group:4), or package.module:factory for one of your own"
)


class UnknownNorm(ValueError):
    """A norm's name that is none of the known ones, or that leads to no factory."""


def norm_family(name: str) -> NormFamily | None:
    """Return what is true of the norm called ``name``; None for a user's own."""
    kind, colon, _ = name.partition(":")
    for family in FAMILIES.values():
        if name == family.spelling or (colon and family.spelling.startswith(f"{kind}:")):
            return family
    plain = norm_family(name.removeprefix(STANDARDIZED)) if name.startswith(STANDARDIZED) else None
    if plain is None or plain.spelling not in NORMALIZING_THE_SCALE:
        return None
    spelling = STANDARDIZED + plain.spelling
    return dataclasses.replace(plain, spelling=spelling, paper=_WEIGHT_STANDARDIZATION)


def norm_parameter(name: str) -> dict[str, int]:
    """Return a built-in norm's parameter by its letter: ``{"G": 4}`` of group:4; else nothing.

    Raises UnknownNorm where it is no whole number of at least 1.
    """
    family = norm_family(name)
    kind, _, letter = family.spelling.partition(":") if family else ("", "", "")
    if not (family and letter):
        return {}
    text = name.partition(":")[2]
    # one spelling each: 04 would be another name of 4
    if not re.fullmatch(r"[1-9][0-9]*", text):
        raise UnknownNorm(
            f"unknown norm {name!r}: expected {kind}:{letter} with a whole number {letter} of "
            f"{_PARAMETERS[letter]}, at least 1, such as {family.example}"
        )
    return {letter: int(text)}


_PARAMETERS = {"G": "groups", "S": "images in a ghost batch"}


def claims_of(name: str) -> NormClaims:
    """Return what the norm called ``name`` claims.

    A user's factory claims by its attribute ``normbench_claims``, a dict of NormClaims' fields;
    without one it claims nothing. Raises UnknownNorm for a name that stands for no norm, and for
    claims that are none.
    """
    family = norm_family(name)
    if family is not None:
        return family.claims
    if ":" not in name:
        raise unknown_norm(name)
    return _declared(name, getattr(named_norm(name), CLAIMS_ATTRIBUTE, {}))


def _declared(name: str, declared: object) -> NormClaims:
    fields = {field.name: field for field in dataclasses.fields(NormClaims)}
    place = f"{CLAIMS_ATTRIBUTE} of {name}"
    if not isinstance(declared, Mapping):
        raise UnknownNorm(
            f"{place} is a {type(declared).__name__}: expected a dict with keys out of "
            f"{', '.join(fields)}"
        )
    for key, value in declared.items():
        if key not in fields:
            raise UnknownNorm(
                f"{place} has an unknown key {key!r}: expected one of {', '.join(fields)}"
            )
        expected = _CLAIMED.get(key, "True or False")
        if not _can_be_claimed(key, value):
            raise UnknownNorm(f"{place} has {key} = {value!r}: expected {expected}")
    listed: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in declared.items()
    }
    return NormClaims(**listed)


_AXES = ("N", "C", "C/G", "H", "W")
_CLAIMED = {
    "axes": f"a list of axes out of {', '.join(_AXES)}, such as ['C', 'H', 'W']",
    "affine": f"one of {', '.join(AFFINE)}",
    "invariances": f"a list out of {', '.join(INVARIANCES)}",
}


def _can_be_claimed(key: str, value: object) -> bool:
    if key == "affine":
        return value in AFFINE
    if key not in _CLAIMED:
        return isinstance(value, bool)
    allowed = _AXES if key == "axes" else INVARIANCES
    return isinstance(value, (list, tuple)) and all(each in allowed for each in value)


def unknown_norm(name: str) -> UnknownNorm:
    """Return what to raise for a name that stands for no norm, with what may have been meant."""
    alike = name.lower().replace("-", "_")
    plain = alike.partition(":")[0]
    lacking = next((f for f in FAMILIES.values() if f.spelling.startswith(f"{alike}:")), None)
    hint = ""
    if lacking is not None:
        hint = f"; it takes a parameter, as {lacking.example}"
    elif plain in FAMILIES:
        hint = f"; did you mean {plain}?"
    return UnknownNorm(f"unknown norm {name!r}: expected one of {SPELLINGS}{hint}")


def named_norm(name: str) -> Any:
    """Return what ``package.module:factory`` spells; raises UnknownNorm where it is nothing."""
    return named_object(name, "norm", ", ".join(FAMILIES), UnknownNorm)
