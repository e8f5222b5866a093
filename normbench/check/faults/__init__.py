"""Faults that can be planted on purpose, to measure what finds them.

No check knows of them: nothing in normbench.training, normbench.models, normbench.bench and the
other modules of this room imports this package.
"""

import difflib
from contextlib import AbstractContextManager

from normbench.check.faults import (
    data,
    evaluation,
    gradients,
    networks,
    norms,
    numerics,
    optimization,
)
from normbench.check.faults.planting import GATHERED, PARTS, Fault

__all__ = ["FAULTS", "PARTS", "Fault", "find_fault", "planted"]

_MODULES = (
    data,
    evaluation,
    gradients,
    networks,
    norms,
    numerics,
    optimization,
)  # imported for what they gather

FAULTS: dict[str, Fault] = dict(sorted(GATHERED.items()))


def find_fault(name: str) -> Fault:
    """Return the fault called ``name``; raises ValueError, which names the closest ones."""
    if name in FAULTS:
        return FAULTS[name]
    close = difflib.get_close_matches(name, FAULTS, n=3, cutoff=0.3)
    told = f"one of {', '.join(close)}" if close else f"one of {len(FAULTS)} names"
    raise ValueError(
        f"unknown fault {name!r}: expected {told}; `normbench sensitivity --list` prints them all"
    )


def planted(name: str) -> AbstractContextManager[None]:
    """Break one thing in this process while the context lasts; raises ValueError as find_fault."""
    return find_fault(name).plant()
