"""normbench: does this normalization layer, this regularizer, this torch build still train?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normbench.results import RunFailed, RunResult, Runs
    from normbench.spec import RunSpec

__all__ = ["RunFailed", "RunResult", "RunSpec", "Runs"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import a public name once it is asked for: foreign projects load the plugin too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "spec" if name == "RunSpec" else "results"
    return getattr(importlib.import_module(f"normbench.{module}"), name)
