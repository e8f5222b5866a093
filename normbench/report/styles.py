"""The colour and the dash of each norm and regularizer, on the page and in figures alike."""

import math
import re
import zlib
from dataclasses import dataclass

from normbench.spec import regularizer_strengths

# Okabe and Ito, Color Universal Design, 2008: told apart with any kind of colour vision. Grey and
# olive stand for their black and yellow, which are lost on a dark and on a white page.
BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, GREY, OLIVE = "#e69f00", "#56b4e9", "#8c8c8c", "#b2a100"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY, OLIVE)

# Lengths of dashes and gaps, in line widths: they tell lines apart in print without colours.
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (4, 2),
    (1, 1.5),
    (6, 1.5, 1, 1.5),
    (2.5, 1),
    (8, 2),
    (3, 1, 1, 1, 1, 1),
    (1, 3),
)


@dataclass(frozen=True)
class LineStyle:
    """How a line is drawn; ``dash`` are lengths in line widths, none for a solid line."""

    colour: str
    dash: tuple[float, ...]


# Kin have a colour in common, and a dash each.
_NORMS = {
    "batch": (BLUE, 0),
    "batch_renorm": (BLUE, 1),
    "layer": (VERMILION, 0),
    "layer_chw": (VERMILION, 1),
    "rms": (VERMILION, 2),
    "instance": (PURPLE, 0),
    "frn": (PURPLE, 1),
    "grn": (PURPLE, 2),
    "none": (GREY, 0),
    "dynamic_tanh": (GREY, 1),
}
# The dash is that of the parameter.
_FAMILIES = {"group": GREEN, "ghost": SKY, "evonorm_s0": ORANGE, "ws+group": OLIVE}

# What is left for norms of one's own.
_OWN = tuple((colour, dash) for colour in (PURPLE, BLUE, VERMILION, GREY) for dash in range(3, 8))

_REGULARIZERS = {
    "l1": VERMILION,
    "l2": BLUE,
    "l2-weights": SKY,
    "decoupled": GREEN,
    "stochastic-depth": ORANGE,
    "orthogonal": PURPLE,
    "spectral": OLIVE,
}


def norm_style(norm: str) -> LineStyle:
    """Return how a norm is drawn, whichever others stand beside it.

    One of the user's own has a style by its name; two of them may have the same.
    """
    if norm in _NORMS:
        colour, dash = _NORMS[norm]
    elif (found := re.fullmatch(r"(.+):(\d+)", norm)) and found[1] in _FAMILIES:
        colour, dash = _FAMILIES[found[1]], round(math.log2(max(int(found[2]), 1))) % len(DASHES)
    else:
        colour, dash = _OWN[zlib.crc32(norm.encode()) % len(_OWN)]
    return LineStyle(colour, DASHES[dash])


def regularizer_style(regularizer: str) -> LineStyle:
    """Return how a regularizer is drawn: kinds have a colour, powers of ten of a strength a dash.

    Several at once, and those of the user's own, have a style by their name.
    """
    strengths = regularizer_strengths(regularizer)
    if not strengths:
        return LineStyle(GREY, ())
    ((kind, strength), *more) = strengths.items()
    if more or kind not in _REGULARIZERS or strength <= 0:
        number = zlib.crc32(regularizer.encode()) % (len(COLOURS) * len(DASHES))
        return LineStyle(COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS)])
    power = round(-math.log10(strength))
    return LineStyle(_REGULARIZERS[kind], DASHES[power % len(DASHES)])
