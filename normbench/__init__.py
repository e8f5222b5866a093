"""normbench: does this normalization layer, this regularizer, this torch build still train?"""

from normbench.results import RunFailed, RunResult, Runs
from normbench.spec import RunSpec

__all__ = ["RunFailed", "RunResult", "RunSpec", "Runs"]
__version__ = "0.1.0"
