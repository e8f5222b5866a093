"""The machine and the software that figures were measured with."""

import os
import platform
import re
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


# What tells processors of one name apart: "AMD EPYC" is several kinds, of which one has AVX-512.
PROCESSOR = ("processor", "cpu_family", "cpu_model", "cpu_stepping", "instruction_sets")

# The instruction sets that decide which kernels torch takes, as Linux and macOS call them.
INSTRUCTION_SETS = re.compile(r"avx\w*|fma|f16c|amx_\w+|neon|asimd\w*|sve\w*|i8mm|bf16")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str | None]:
    """Return the CPU's name, and what tells it from others of that name, where Linux says so."""
    told: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            told.setdefault(key.strip(), value.strip())
    except (OSError, UnicodeDecodeError):
        pass
    flags = (told.get("flags") or told.get("Features") or "").split()
    found = (
        told.get("model name") or platform.processor() or platform.machine(),
        told.get("cpu family") or told.get("CPU implementer"),
        told.get("model") or told.get("CPU part"),
        told.get("stepping") or told.get("CPU revision"),
        " ".join(sorted(filter(INSTRUCTION_SETS.fullmatch, flags))) or None,
    )
    return dict(zip(PROCESSOR, found, strict=True))


def processor_kind() -> str:
    """Return in one text all that tells this kind of processor from others."""
    return " ".join(filter(None, processor().values()))


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
        **processor(),
        "cores": available_cores(),
        "gpus": gpus,
        "torch": torch.__version__,
        **{name: _version(name) for name in ("torchvision", "pytest", "pytest-xdist")},
        "commit": _commit(root),
    }
