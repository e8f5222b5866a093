"""What `normbench doctor` looks at, gathered without importing what may be broken."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import normbench
from normbench.commands.run import suite_settings
from normbench.storage.environment import available_cores, processor
from normbench.training.datasets import (
    DATASETS,
    ENVIRONMENT_VARIABLE,
    default_root,
    whole_name,
)

# The error of what was not come to.
NOT_TRIED = "not tried, as something above it failed"

# The sets of which the others are held-out parts.
SETS = tuple(name for name in DATASETS if whole_name(name) == name)

# What pytest lists once it has found the plugin.
OPTION = "--bench-tier"

# Of the part that only torch can tell of, on a slow disk; and of pytest's start.
PROBE_SECONDS, PYTEST_SECONDS = 300, 300


@dataclass(frozen=True)
class Package:
    """A requirement by its text, such as ``rich>=13.9``, and the version that is installed.

    ``extra`` is the extra that asks for it; empty for what normbench always needs.
    """

    requirement: str
    version: str | None
    extra: str = ""

    @property
    def name(self) -> str:
        return Requirement(self.requirement).name

    @property
    def fits(self) -> bool:
        allowed = Requirement(self.requirement).specifier
        return self.version is not None and allowed.contains(self.version, prereleases=True)


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch sees; ``error`` says why it cannot add two numbers."""

    name: str
    capability: str
    memory_gib: float
    error: str = ""


@dataclass(frozen=True)
class Torch:
    """torch as a process of its own finds it; ``error`` says why it cannot be used.

    ``cuda`` is the CUDA that it was built for, None for a build without it.
    """

    version: str | None = None
    error: str = ""
    cuda: str | None = None
    mps: bool = False
    threads: int = 0
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Torchvision:
    """torchvision, and why it cannot be used with the torch that is here."""

    version: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Threads:
    """The cores of this process, and what limits it.

    ``quota`` is the number of cores that the cgroup allows, None where it sets no limit;
    ``load`` is how many processes want to run, over the last minute.
    """

    cores: int
    quota: float | None = None
    omp: str | None = None
    load: float = 0.0


@dataclass(frozen=True)
class DataSet:
    """A data set, where it was looked for, and whether it is there; ``error`` says what is damaged.

    ``there`` is None where it could not be looked into.
    """

    name: str
    place: str
    there: bool | None
    error: str = ""


@dataclass(frozen=True)
class Folder:
    """A folder that is written to, or would be made; ``named_by`` says where its path is from."""

    name: str
    path: str
    named_by: str
    writable: bool
    free_gib: float


@dataclass(frozen=True)
class Plugin:
    """Whether pytest takes --bench-tier: as `normbench run` starts it, and as a user does here.

    The errors say what pytest said, and are empty where it does.
    """

    suite_error: str = ""
    error: str = ""
    entry_point: bool = True
    autoload_disabled: bool = False
    addopts: str = ""


@dataclass(frozen=True)
class Speed:
    """How fast a case of the digits trains here, beside a baseline's, in images per second.

    ``same_machine`` is None where the baseline does not say enough of its own.
    """

    images_per_second: float = 0.0
    baseline: str = ""
    baseline_images_per_second: float = 0.0
    baseline_processor: str = ""
    same_machine: bool | None = None
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is looked at."""

    python: tuple[int, int, int]
    normbench: str
    place: str
    processor: str
    packages: tuple[Package, ...] | None
    torch: Torch
    torchvision: Torchvision
    nvidia_driver: bool
    visible_devices: str | None
    threads: Threads
    data_sets: tuple[DataSet, ...]
    folders: tuple[Folder, ...]
    plugin: Plugin
    speed: Speed = Speed()


def gather(data: Path | None, results: Path | None) -> Facts:
    """Look at everything; ``data`` and ``results`` are the folders that the user has named."""
    root, named_by = _data_root(data)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    plugin = _plugin()
    told = probed(root)
    torch = _torch(told.get("torch", {}))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    results_by = "--results" if results else "the default"
    return Facts(
        python=sys.version_info[:3],
        normbench=normbench.__version__,
        place=str(Path(normbench.__file__).parent),
        processor=_processor(),
        packages=_packages(),
        torch=torch,
        torchvision=_torchvision(told.get("torchvision", {})),
        nvidia_driver=shutil.which("nvidia-smi") is not None,
        visible_devices=visible,
        threads=Threads(available_cores(), cgroup_cores(), os.environ.get("OMP_NUM_THREADS"), load),
        data_sets=tuple(_data_sets(root, told.get("data", {}))),
        folders=(
            _folder("data folder", root, named_by),
            _folder("results folder", results or Path("results"), results_by),
        ),
        plugin=plugin,
        speed=_speed(told.get("speed", {}), torch),
    )


def _data_root(data: Path | None) -> tuple[Path, str]:
    if data is not None:
        return data, "--data"
    named = f"${ENVIRONMENT_VARIABLE}" if os.environ.get(ENVIRONMENT_VARIABLE) else ""
    return default_root(), named or "the platform's cache folder"


def _processor() -> str:
    told = processor()
    sets = (told["instruction_sets"] or "").split()
    widest = next((s for s in ("avx512f", "avx2", "sve", "asimd", "neon") if s in sets), None)
    return f"{told['processor']}{f', {widest}' if widest else ''}"


def _packages() -> tuple[Package, ...] | None:
    """Return what normbench's own metadata asks for; None where it is not installed."""
    try:
        listed = requires("normbench") or []
    except PackageNotFoundError:
        return None
    found = []
    for text in listed:
        requirement = Requirement(text)
        extra = _extra(requirement)
        if extra or requirement.marker is None or requirement.marker.evaluate():
            requirement.marker = None
            found.append(Package(str(requirement), _version(requirement.name), extra))
    return tuple(found)


def _extra(requirement: Requirement) -> str:
    """Return the extra that asks for a requirement, which its marker names; empty for none."""
    _, _, named = str(requirement.marker or "").partition("extra == ")
    return named.split()[0].strip("\"')") if named else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cgroup_cores(
    own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return how many cores this process's cgroup allows; None without a limit.

    Of version 2 each folder above counts as well. Source: the kernel's cgroup-v2.rst, cpu.max, and
    sched-bwc.rst for version 1.
    """
    limits = [_quota(mounted / "cpu" / "cpu.cfs_quota_us", mounted / "cpu" / "cpu.cfs_period_us")]
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("0::"):
            folder = mounted / line.removeprefix("0::").lstrip("/")
            limits += [_quota(each / "cpu.max") for each in (folder, *folder.parents)]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _quota(*files: Path) -> float | None:
    """Return a quota over its period, which one file holds or two; None without a limit."""
    try:
        quota, period = " ".join(file.read_text(encoding="utf-8") for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def probed(data: Path, command: Sequence[str] = ()) -> dict[str, Mapping[str, Any]]:
    """Return what the probe tells, by part; of the part that ended its process, an error.

    ``command`` is another program than the probe, which is given the data root all the same.
    """
    program = command or (sys.executable, "-m", "normbench.commands.doctor_probe")
    try:
        done = subprocess.run(
            [*program, str(data)],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        lines, end = done.stdout.splitlines(), _end(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as stopped:
        printed = stopped.stdout or b""
        lines = (printed if isinstance(printed, str) else printed.decode()).splitlines()
        end = f"it took more than {PROBE_SECONDS} seconds"
    told: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        # a library may print there as well, behind Python's back
        with suppress(ValueError):
            facts = json.loads(line)
            name = facts.pop("begun", None) or facts.pop("part")
            told[name] = facts or {"error": end}
    return told


def _end(code: int, errors: str) -> str:
    """Say how a process ended that did not come to its end."""
    if code < 0:
        return f"the process that tried it was ended by {signal.Signals(-code).name}"
    last = errors.strip().splitlines()[-1:]
    return f"the process that tried it ended with {code}: {''.join(last)}"


def _torch(told: Mapping[str, Any]) -> Torch:
    gpus = tuple(Gpu(**gpu) for gpu in told.get("gpus", ()))
    known = {"version": _version("torch"), **(told or {"error": NOT_TRIED})}
    return Torch(**{**known, "gpus": gpus})


def _torchvision(told: Mapping[str, Any]) -> Torchvision:
    found = {"version": _version("torchvision"), **(told or {"error": NOT_TRIED})}
    return Torchvision(**found)


def _data_sets(root: Path, told: Mapping[str, Any]) -> Iterable[DataSet]:
    sets = told.get("sets", {})
    for name in SETS:
        folder = DATASETS[name].folder
        place = str(root / folder) if folder else "comes with scikit-learn"
        found = {"there": None, **sets.get(name, {})}
        # what torchvision looks into is not found without it
        if folder and not found["there"]:
            found["there"] = None if (root / folder).is_dir() else False
        yield DataSet(name, place, **found)


def _folder(name: str, path: Path, named_by: str) -> Folder:
    """Try a folder, or the nearest one around it where it has not been made yet."""
    path = path.absolute()
    there = next(each for each in (path, *path.parents) if each.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            writable = True
    except OSError:
        writable = False
    free = shutil.disk_usage(there).free / 2**30
    return Folder(name, str(path), named_by, writable, free)


def _plugin() -> Plugin:
    """Have pytest list its options, as `normbench run` starts it, and as it starts here."""
    return Plugin(
        suite_error=_pytest_error(*suite_settings(Path.cwd())),
        error=_pytest_error(),
        entry_point=any(e.name == "normbench.plugin" for e in entry_points(group="pytest11")),
        autoload_disabled=bool(os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")),
        addopts=os.environ.get("PYTEST_ADDOPTS", ""),
    )


def _pytest_error(*settings: str) -> str:
    """Return what keeps pytest from the plugin's options; empty where nothing does."""
    command = [sys.executable, "-m", "pytest", *settings, "--help"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PYTEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"pytest --help took more than {PYTEST_SECONDS} seconds"
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        return f"pytest --help ended with {done.returncode}: {''.join(told[-1:])}"
    return "" if OPTION in done.stdout else f"it does not list {OPTION}"


def _speed(told: Mapping[str, Any], torch: Torch) -> Speed:
    return Speed(error=NOT_TRIED) if torch.error or not told else Speed(**told)
