"""The machine and the software that figures were measured with."""

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def new_session_name() -> str:
    """Return a name that sorts by time, and differs between sessions that start in one second.

    Several may start in one process, one after the other, and in several processes at once.
    """
    return f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}"


def processor_name() -> str:
    """Return the CPU's model as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """Return the commit that ``folder`` is at, with ``+`` where files differ from it."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment(root: Path) -> dict[str, Any]:
    """Describe the machine and the software, as far as results depend on them."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": available_cores(),
        "gpus": gpus,
        "torch": torch.__version__,
        **{name: _version(name) for name in ("torchvision", "pytest", "pytest-xdist")},
        "commit": _commit(root),
    }
