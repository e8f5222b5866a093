"""What `normbench doctor` makes of the facts: an item each, how it stands, and a remedy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from packaging.requirements import Requirement
from packaging.version import Version

from normbench.analysis.thresholds import SLOW
from normbench.commands.doctor_facts import (
    NOT_TRIED,
    DataSet,
    Facts,
    Folder,
    Package,
    Plugin,
    Speed,
    Threads,
    Torch,
    Torchvision,
)
from normbench.training.datasets import DATASETS, ENVIRONMENT_VARIABLE

# The Pythons that the tests run on.
FIRST_PYTHON, LAST_PYTHON = (3, 11), (3, 13)

# Below it a folder may fill up within a session: MNIST and CIFAR-10 take 0.4 GiB.
LEAST_FREE_GIB = 1.0

# The torchvision that pairs with a torch, up to the first torch whose torchvision takes later ones.
PAIRS = {(2, 11): "==0.26.*", (2, 12): "==0.27.*", (2, 13): "==0.28.*"}
FIRST_FREE, FREE = (2, 14), ">=0.29.1"


class Standing(StrEnum):
    """How an item stands: a PROBLEM keeps the suite, or a part of it, from running."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Item:
    """One line of the diagnosis; ``remedy`` says what to do where it is not OK."""

    name: str
    standing: Standing
    told: str
    remedy: str = ""


def diagnose(facts: Facts) -> list[Item]:
    """Return an item for each thing that the suite depends on."""
    return [
        _python(facts),
        Item("normbench", Standing.OK, f"{facts.normbench}, in {facts.place}"),
        *_packages(facts.packages),
        _torch(facts.torch, facts.packages or ()),
        _torchvision(facts.torchvision, facts.torch),
        *_devices(facts),
        _threads(facts.threads, facts.torch),
        *_data_sets(facts.data_sets),
        *(_folder(folder, facts.data_sets) for folder in facts.folders),
        *_plugin(facts.plugin),
        _speed(facts.speed, facts.threads),
    ]


def _python(facts: Facts) -> Item:
    version = ".".join(map(str, facts.python))
    first, last = (".".join(map(str, v)) for v in (FIRST_PYTHON, LAST_PYTHON))
    if facts.python[:2] < FIRST_PYTHON:
        remedy = f"make an environment of Python {first} to {last}"
        return Item("Python", Standing.PROBLEM, f"{version}: expected {first} or later", remedy)
    if facts.python[:2] > LAST_PYTHON:
        told = f"{version}, which normbench has not been tested with"
        return Item("Python", Standing.WARNING, told, f"if something fails, take {first} to {last}")
    return Item("Python", Standing.OK, version)


def _packages(packages: Sequence[Package] | None) -> list[Item]:
    """Tell of what pip should have installed, and of the extras."""
    if packages is None:
        return [
            Item(
                "packages",
                Standing.WARNING,
                "normbench is not installed here, so that what it needs is not known",
                "pip install -e . in its folder",
            )
        ]
    # torch and torchvision have items of their own
    needed = [p for p in packages if not p.extra and p.name not in ("torch", "torchvision")]
    found = _missing("packages", [package for package in needed if not package.fits])
    extras = dict.fromkeys(package.extra for package in packages if package.extra)
    missing = {p.extra for p in packages if not p.fits}
    there = [extra for extra in extras if extra not in missing]
    absent = [extra for extra in extras if extra in missing]
    listed = (
        f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    )
    return [
        found or Item("packages", Standing.OK, f"all {len(needed)} that normbench needs"),
        Item("extras", Standing.OK, listed),
    ]


def _missing(name: str, packages: Sequence[Package]) -> Item | None:
    if not packages:
        return None
    told = ", ".join(f"{p.name} is {p.version or 'missing'}" for p in packages)
    wanted = " ".join(f"'{p.requirement}'" for p in packages)
    return Item(name, Standing.PROBLEM, told, f"pip install {wanted}")


def _torch(torch: Torch, packages: Sequence[Package]) -> Item:
    if torch.error:
        told = f"{torch.version or ''} cannot be used: {torch.error}".lstrip()
        remedy = "install it again: pip install --force-reinstall torch torchvision"
        return Item("torch", Standing.PROBLEM, told, remedy)
    old = [package for package in packages if package.name == "torch" and not package.fits]
    if found := _missing("torch", old):
        return found
    build = f"built for CUDA {torch.cuda}" if torch.cuda else "built without CUDA"
    return Item("torch", Standing.OK, f"{torch.version}, {build}")


def pair_of(torch: str) -> str | None:
    """Return the requirement of the torchvision that pairs with a torch; None for an unknown one.

    Source: torchvision's README lists the pairs up to 2.14.0 with 0.29.0; 0.29.1 and later take
    any torch from 2.14 on.
    """
    version = Version(torch)
    release = version.major, version.minor
    paired = FREE if release >= FIRST_FREE else PAIRS.get(release)
    return f"torchvision{paired}" if paired else None


def _torchvision(torchvision: Torchvision, torch: Torch) -> Item:
    version = torchvision.version
    if not torchvision.error:
        return Item(
            "torchvision", Standing.OK, f"{version}, which works with torch {torch.version}"
        )
    if torch.error or torch.version is None:
        told = f"{version or 'missing'}; not tried, as torch cannot be used"
        return Item("torchvision", Standing.WARNING, told, "mend torch first")
    pair = pair_of(torch.version)
    told = (
        f"{version or 'missing'} does not work with torch {torch.version}, so that MNIST and "
        f"CIFAR-10 cannot be loaded: {torchvision.error}"
    )
    remedy = f"pip install '{pair}'" if pair else "install the torchvision that pairs with it"
    if version and pair and Requirement(pair).specifier.contains(version, prereleases=True):
        remedy = (
            "their versions pair, so their builds differ; have both from one index, with CUDA or "
            "without, as by pip install --force-reinstall "
            f"torch=={Version(torch.version).public} '{pair}'"
        )
    return Item("torchvision", Standing.PROBLEM, told, remedy)


def _devices(facts: Facts) -> list[Item]:
    """Tell of the processor, and of each GPU."""
    items = [Item("processor", Standing.OK, facts.processor)]
    for index, gpu in enumerate(facts.torch.gpus):
        told = f"{gpu.name}, {gpu.memory_gib:.0f} GiB, compute capability {gpu.capability}"
        if gpu.error:
            told = f"{told}, cannot be used: {gpu.error}"
            remedy = "install a torch built for this GPU, or train with --bench-device cpu"
            items.append(Item(f"cuda:{index}", Standing.PROBLEM, told, remedy))
        else:
            items.append(Item(f"cuda:{index}", Standing.OK, told))
    if not facts.torch.gpus:
        items.append(_no_gpu(facts))
    return items


def _no_gpu(facts: Facts) -> Item:
    if facts.torch.error:
        return Item("GPU", Standing.WARNING, NOT_TRIED, "mend that first")
    if not facts.nvidia_driver:
        mps = (
            "; Apple's MPS is there, and normbench does not train on it" if facts.torch.mps else ""
        )
        return Item("GPU", Standing.OK, f"none: runs go to the CPU{mps}")
    told = "an NVIDIA driver is here, and torch sees no GPU: runs go to the CPU"
    remedy = f"see with nvidia-smi whether the driver works, and serves CUDA {facts.torch.cuda}"
    if facts.torch.cuda is None:
        remedy = "install a torch built for CUDA (pytorch.org, Get Started), and its torchvision"
    elif facts.visible_devices is not None:
        remedy = f"CUDA_VISIBLE_DEVICES is {facts.visible_devices!r}: unset it, or name the GPUs"
    return Item("GPU", Standing.WARNING, told, remedy)


def _threads(threads: Threads, torch: Torch) -> Item:
    cores = f"{threads.cores} core{'' if threads.cores == 1 else 's'}"
    spread = f"-n {threads.cores} trains on all of them" if threads.cores > 1 else "no -n needed"
    if threads.quota is not None and threads.quota < threads.cores:
        workers = max(1, int(threads.quota))
        return Item(
            "threads",
            Standing.WARNING,
            f"{cores}, of which the cgroup of this process allows {threads.quota:g}",
            f"run with -n {workers} and OMP_NUM_THREADS=1, or allow the container more cores",
        )
    if threads.omp is None:
        alone = f"; without -n, torch takes {torch.threads} threads" if torch.threads else ""
        return Item("threads", Standing.OK, f"{cores}: {spread}{alone}")
    given = int(threads.omp) if re.fullmatch("[0-9]{1,6}", threads.omp) else 0
    if not 1 <= given <= threads.cores:
        told = f"{cores}, and OMP_NUM_THREADS={threads.omp}"
        remedy = f"unset OMP_NUM_THREADS, or set it to 1 to {threads.cores}"
        return Item("threads", Standing.WARNING, told, remedy)
    return Item("threads", Standing.OK, f"{cores}: {spread}; OMP_NUM_THREADS={threads.omp}")


def _data_sets(data_sets: Sequence[DataSet]) -> list[Item]:
    there = {data.name for data in data_sets if data.there and not data.error}
    return [_data_set(data, there) for data in data_sets]


# Of the suite: data sets that grids of the user's own may name.
WITHOUT_GRIDS = ("kmnist", "svhn")


def _data_set(data: DataSet, there: set[str]) -> Item:
    if data.error:
        told, _, remedy = data.error.rpartition("; ")
        return Item(data.name, Standing.PROBLEM, told or data.error, remedy if told else "")
    if data.there:
        return Item(data.name, Standing.OK, data.place)
    if data.there is None:
        told = f"{data.place} is there; {NOT_TRIED}"
        return Item(data.name, Standing.WARNING, told, "mend that first")
    absent = f"not in {data.place}"
    if (stand_in := DATASETS[data.name].fallback) in there:
        told = f"{absent}; the cases of {data.name} train on {stand_in} in its place"
        return Item(data.name, Standing.OK, told)
    stands_in = any(dataset.fallback == data.name for dataset in DATASETS.values())
    if stands_in or data.name in WITHOUT_GRIDS:
        return Item(data.name, Standing.OK, f"{absent}; it is needed by nothing but its own grids")
    return Item(
        data.name,
        Standing.WARNING,
        absent,
        "its cases download it, and are skipped without a network; if you have it, name the folder "
        f"around it with --bench-data DIR or ${ENVIRONMENT_VARIABLE}",
    )


def _folder(folder: Folder, data_sets: Sequence[DataSet]) -> Item:
    is_data = folder.name == "data folder"
    option = "--bench-data DIR" if is_data else "--bench-results DIR"
    place = f"{folder.path} ({folder.named_by}), {folder.free_gib:.1f} GiB free"
    if not folder.writable:
        # what is there need not be written
        if is_data and all(data.there is not False for data in data_sets):
            return Item(folder.name, Standing.OK, f"{place}, cannot be written to")
        standing = Standing.WARNING if is_data else Standing.PROBLEM
        remedy = f"let it be written to, or name another one with {option}"
        return Item(folder.name, standing, f"{place}, cannot be written to", remedy)
    if folder.free_gib < LEAST_FREE_GIB:
        remedy = f"free some, or name a folder on another disk with {option}"
        return Item(folder.name, Standing.WARNING, place, remedy)
    return Item(folder.name, Standing.OK, place)


def _plugin(plugin: Plugin) -> list[Item]:
    """Tell whether `normbench run`, and pytest itself, find the plugin."""
    if plugin.suite_error:
        blamed = f"PYTEST_ADDOPTS is {plugin.addopts!r}: unset it; or " if plugin.addopts else ""
        return [
            Item(
                "plugin",
                Standing.PROBLEM,
                f"normbench run cannot start pytest: {plugin.suite_error}",
                f"{blamed}install normbench and pytest again",
            )
        ]
    if not plugin.error:
        return [Item("plugin", Standing.OK, "found by pytest, and by normbench run")]
    remedy = "look for -p no:normbench.plugin in the project's pytest settings"
    if plugin.autoload_disabled:
        remedy = "unset PYTEST_DISABLE_PLUGIN_AUTOLOAD, or add -p normbench.plugin"
    elif not plugin.entry_point:
        remedy = "install normbench, or add pytest_plugins = ['normbench.plugin'] to conftest.py"
    elif "no:normbench" in plugin.addopts:
        remedy = f"unset PYTEST_ADDOPTS, which is {plugin.addopts!r}"
    told = f"normbench run finds it, and pytest does not in this folder: {plugin.error}"
    return [Item("plugin", Standing.WARNING, told, remedy)]


def _speed(speed: Speed, threads: Threads) -> Item:
    if speed.error == NOT_TRIED:
        return Item("speed", Standing.WARNING, NOT_TRIED, "mend that first")
    if speed.error:
        told = f"the digits cannot be trained: {speed.error}"
        remedy = "see what `normbench run --bench-tier smoke -k batch-none-b64` says"
        return Item("speed", Standing.PROBLEM, told, remedy)
    told = f"{speed.images_per_second:,.0f} digits a second on one core"
    ratio = speed.images_per_second / speed.baseline_images_per_second
    told += f", {ratio:.2f} of what the baseline {speed.baseline} had"
    if speed.same_machine:
        told += f" on an equal machine ({speed.baseline_processor}): seconds compare"
    else:
        other = "another machine" if speed.same_machine is False else "a machine not told in full"
        told += f" on {other} ({speed.baseline_processor}): seconds do not compare"
    if threads.load >= threads.cores:
        busy = f"{told}; the cores are busy, with a load of {threads.load:.1f}"
        return Item("speed", Standing.WARNING, busy, "measure seconds while nothing else runs")
    if speed.same_machine and ratio < SLOW:
        remedy = "look for what slows it down: other programs, heat, a power limit, fewer threads"
        return Item("speed", Standing.WARNING, told, remedy)
    return Item("speed", Standing.OK, told)


def counted(items: Sequence[Item]) -> Mapping[Standing, int]:
    """Return how many items stand how."""
    return {standing: sum(item.standing is standing for item in items) for standing in Standing}


def lines(items: Sequence[Item]) -> list[str]:
    """Return a line for each item, with its remedy below where there is one, and the counts."""
    width = max(len(item.name) for item in items)
    told = []
    for item in items:
        told.append(f"{item.standing:<7}  {item.name:<{width}}  {item.told}")
        if item.remedy:
            told.append(f"{'':<{9 + width}}  remedy: {item.remedy}")
    counts = counted(items)
    numbers = ((counts[s], str(s)) for s in (Standing.PROBLEM, Standing.WARNING))
    return [*told, ", ".join(f"{n or 'no'} {what}{'' if n == 1 else 's'}" for n, what in numbers)]
