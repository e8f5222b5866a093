"""--bench-plant: one thing broken on purpose, in the processes that run tests."""

from contextlib import ExitStack

import pytest

# with the rooms that it needs: a module that were first imported while a fault is planted might
# copy what stands in for torch's own, and keep it
import normbench.engine.runner  # noqa: F401
from normbench.check.faults import find_fault, planted


def plant(config: pytest.Config) -> None:
    """Plant the fault of --bench-plant until the session of this process is over.

    xdist's controller runs no test, and judges and draws with sound code.
    """
    if not hasattr(config, "workerinput") and config.getoption("dist", "no") != "no":
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)
    stack.enter_context(planted(config.getoption("--bench-plant")))


def header(config: pytest.Config) -> str:
    """Return what pytest's header says of the fault."""
    fault = find_fault(config.getoption("--bench-plant"))
    return f"normbench: the fault {fault.name} is planted: {fault.told}"
