"""Say whether torch and torchvision fit each other, and the environment that they stand in.

``python perf/torch_pair.py py312-torch214`` exits with 1 and one line if they do not: what was
asked for, what was installed, why it does not fit, and what to do. A tox environment starts with
it, since torchvision holds compiled operators for one build of torch, and pip may bring another.
"""

import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class PairError(ValueError):
    """torch and torchvision cannot be used together, or are not those that were asked for."""


@dataclass(frozen=True)
class Pair:
    """The versions of what is installed, with their builds: ``2.13.0+cpu``."""

    python: str
    torch: str
    torchvision: str


def installed_pair() -> Pair:
    """Return what is installed, without importing it, which may fail.

    Raises ``PairError`` if one of the two is not there.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Pair(platform.python_version(), version("torch"), version("torchvision"))
    except PackageNotFoundError as error:
        raise PairError(f"{error.name} is not installed; install the pair anew: tox -r") from None


def use_together() -> None:
    """Import both and run an operator that torchvision has compiled; raises what that raises."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
    if kept.tolist() != [1, 2]:
        raise RuntimeError(f"torchvision.ops.nms keeps the boxes {kept.tolist()}, and not [1, 2]")


def asked_for(environment: str) -> tuple[str | None, str | None]:
    """Return the versions of Python and torch in an environment's name, ``py312-torch214``."""
    found = (re.search(rf"(?:^|-){name}(\d)(\d+)(?:-|$)", environment) for name in ("py", "torch"))
    python, torch = (f"{match[1]}.{match[2]}" if match else None for match in found)
    return python, torch


def check_pair(environment: str, pair: Pair, use: Callable[[], None] = use_together) -> str:
    """Return one line that tells the pair; raises ``PairError`` if it does not fit.

    ``use`` imports both and runs an operator of torchvision.
    """
    python, torch = asked_for(environment)
    came = f"Python {pair.python} with torch {pair.torch} and torchvision {pair.torchvision}"
    for name, wanted, version in (("Python", python, pair.python), ("torch", torch, pair.torch)):
        if wanted is not None and ".".join(version.split(".")[:2]) != wanted:
            raise PairError(
                f"{environment} asks for {name} {wanted}, and its environment has {came}; "
                f"make it anew: tox -r -e {environment}"
            )
    try:
        use()
    except Exception as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise PairError(
            f"{environment}: {came} do not fit each other ({reason}): torchvision is compiled "
            "for one build of torch, and this torch is another; take a Python for which both come "
            f"of one build, or both from one index: PIP_EXTRA_INDEX_URL={CPU_INDEX} "
            f"tox -r -e {environment}"
        ) from error
    return f"{environment}: {came} fit each other"


def main(arguments: list[str]) -> int:
    """Print the pair's line; 1 if it does not fit."""
    try:
        print(check_pair(arguments[0] if arguments else "this environment", installed_pair()))
    except PairError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
