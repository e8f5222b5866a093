"""``normbench doctor``: each thing that may be amiss is told, with what to do."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from normbench.commands.diagnosis import Item, Standing, counted, diagnose, lines, pair_of
from normbench.commands.doctor_facts import (
    NOT_TRIED,
    DataSet,
    Facts,
    Folder,
    Gpu,
    Package,
    Plugin,
    Speed,
    Threads,
    Torch,
    Torchvision,
    cgroup_cores,
    probed,
)

SETS = ("digits", "mnist", "fashion-mnist", "kmnist", "svhn", "cifar10", "cifar10-jpeg")

# A machine that nothing is amiss with.
SOUND = Facts(
    python=(3, 12, 4),
    normbench="0.2.0",
    place="/site-packages/normbench",
    processor="Some CPU, avx2",
    packages=(
        Package("rich>=13.9", "15.0.0"),
        Package("torch>=2.11", "2.15.0+cpu"),
        Package("ruff>=0.9", "0.17.6", extra="test"),
        Package("tox>=4.24", None, extra="tox"),
    ),
    torch=Torch("2.15.0+cpu", threads=2),
    torchvision=Torchvision("0.29.2+cpu"),
    nvidia_driver=False,
    visible_devices=None,
    threads=Threads(cores=2),
    data_sets=tuple(DataSet(name, f"/data/{name}", there=True) for name in SETS),
    folders=(
        Folder("data folder", "/data", "$NORMBENCH_DATA", writable=True, free_gib=20.0),
        Folder("results folder", "/work/results", "the default", writable=True, free_gib=20.0),
    ),
    plugin=Plugin(),
    speed=Speed(30_000.0, "digits", 20_000.0, "AMD EPYC, 2 workers", same_machine=False),
)


def item(name: str, **changes: Any) -> Item:
    """Return the item of a name, of the sound machine with some of its facts changed."""
    found = {each.name: each for each in diagnose(dataclasses.replace(SOUND, **changes))}
    return found[name]


def data_set(name: str, **changes: Any) -> dict[str, tuple[DataSet, ...]]:
    changed = [dataclasses.replace(d, **changes) if d.name == name else d for d in SOUND.data_sets]
    return {"data_sets": tuple(changed)}


def folder(name: str, **changes: Any) -> dict[str, tuple[Folder, ...]]:
    changed = [dataclasses.replace(f, **changes) if f.name == name else f for f in SOUND.folders]
    return {"folders": tuple(changed)}


def test_a_sound_machine_has_a_line_for_each_item_and_no_remedy() -> None:
    items = diagnose(SOUND)
    assert counted(items) == {"ok": len(items), "warning": 0, "problem": 0}
    *told, counts = lines(items)
    assert len(told) == len(items)
    assert told[0] == "ok       Python          3.12.4"
    assert {line[25] for line in told} & {" "} == set()
    assert counts == "no problems, no warnings"
    extras = next(each for each in items if each.name == "extras")
    assert extras.told == "installed: test; not installed: tox"


BROKEN: list[tuple[str, dict[str, Any], str, str]] = [
    ("Python", {"python": (3, 10, 1)}, "3.10.1: expected 3.11 or later", "make an environment of"),
    (
        "packages",
        {"packages": (Package("rich>=13.9", "12.0"), Package("pandas>=2.2", None))},
        "rich is 12.0, pandas is missing",
        "pip install 'rich>=13.9' 'pandas>=2.2'",
    ),
    (
        "torch",
        {"torch": Torch(error="ImportError: libcudart.so.13: cannot open")},
        "cannot be used: ImportError: libcudart.so.13",
        "pip install --force-reinstall torch",
    ),
    (
        "torch",
        {"packages": (Package("torch>=2.11", "2.9.1"),)},
        "torch is 2.9.1",
        "pip install 'torch>=2.11'",
    ),
    (
        "torchvision",
        {
            "torch": Torch("2.13.0+cpu"),
            "torchvision": Torchvision("0.29.0", "RuntimeError: operator torchvision::nms"),
        },
        "0.29.0 does not work with torch 2.13.0+cpu, so that MNIST and CIFAR-10 cannot be loaded",
        "pip install 'torchvision==0.28.*'",
    ),
    (
        "torchvision",
        {
            "torch": Torch("2.13.0+cpu"),
            "torchvision": Torchvision("0.28.0", "RuntimeError: operator torchvision::nms"),
        },
        "operator torchvision::nms",
        "their versions pair, so their builds differ; *--force-reinstall torch==2.13.0 'torchv",
    ),
    (
        "torchvision",
        {"torchvision": Torchvision(None, "ModuleNotFoundError: No module named 'torchvision'")},
        "missing does not work with torch 2.15.0+cpu",
        "pip install 'torchvision>=0.29.1'",
    ),
    (
        "cuda:1",
        {
            "torch": Torch(
                "2.15.0",
                cuda="13.2",
                gpus=(
                    Gpu("NVIDIA H100", "9.0", 79.2),
                    Gpu("Tesla K80", "3.7", 11.2, "no kernel image is available"),
                ),
            )
        },
        "Tesla K80, 11 GiB, compute capability 3.7, cannot be used: no kernel image",
        "install a torch built for this GPU",
    ),
    (
        "mnist",
        data_set("mnist", error="/data/MNIST/raw/x has 9 bytes: expected 10; remove the file"),
        "/data/MNIST/raw/x has 9 bytes: expected 10",
        "remove the file",
    ),
    (
        "results folder",
        folder("results folder", writable=False),
        "/work/results (the default), 20.0 GiB free, cannot be written to",
        "let it be written to, or name another one with --bench-results DIR",
    ),
    (
        "plugin",
        {"plugin": Plugin(suite_error="it does not list --bench-tier", addopts="-p no:normbench")},
        "normbench run cannot start pytest: it does not list --bench-tier",
        "PYTEST_ADDOPTS is '-p no:normbench': unset it",
    ),
    (
        "speed",
        {"speed": Speed(error="RuntimeError: out of memory")},
        "the digits cannot be trained: RuntimeError: out of memory",
        "see what `normbench run --bench-tier smoke",
    ),
]

DOUBTFUL: list[tuple[str, dict[str, Any], str, str]] = [
    ("Python", {"python": (3, 15, 0)}, "has not been tested with", "take 3.11 to 3.13"),
    ("packages", {"packages": None}, "normbench is not installed here", "pip install -e ."),
    (
        "GPU",
        {"nvidia_driver": True},
        "an NVIDIA driver is here, and torch sees no GPU",
        "install a torch built for CUDA",
    ),
    (
        "GPU",
        {"nvidia_driver": True, "torch": Torch("2.15.0", cuda="13.2"), "visible_devices": "-1"},
        "torch sees no GPU",
        "CUDA_VISIBLE_DEVICES is '-1': unset it",
    ),
    (
        "GPU",
        {"nvidia_driver": True, "torch": Torch("2.15.0", cuda="13.2")},
        "torch sees no GPU",
        "whether the driver works, and serves CUDA 13.2",
    ),
    (
        "threads",
        {"threads": Threads(cores=8, quota=2.5)},
        "8 cores, of which the cgroup of this process allows 2.5",
        "run with -n 2 and OMP_NUM_THREADS=1",
    ),
    ("threads", {"threads": Threads(2, omp="16")}, "OMP_NUM_THREADS=16", "set it to 1 to 2"),
    ("threads", {"threads": Threads(2, omp="all")}, "OMP_NUM_THREADS=all", "unset OMP_NUM_THREADS"),
    ("mnist", data_set("mnist", there=False), "not in /data/mnist", "name the folder around it"),
    ("mnist", data_set("mnist", there=None), "is there; not tried, as", "mend that first"),
    ("data folder", folder("data folder", free_gib=0.2), "0.2 GiB free", "free some, or name"),
    (
        "data folder",
        {**folder("data folder", writable=False), **data_set("mnist", there=False)},
        "cannot be written to",
        "name another one with --bench-data DIR",
    ),
    (
        "plugin",
        {"plugin": Plugin(error="it does not list --bench-tier", autoload_disabled=True)},
        "normbench run finds it, and pytest does not in this folder: it does not list",
        "unset PYTEST_DISABLE_PLUGIN_AUTOLOAD, or add -p normbench.plugin",
    ),
    (
        "plugin",
        {"plugin": Plugin(error="it does not list --bench-tier", entry_point=False)},
        "pytest does not",
        "pytest_plugins = ['normbench.plugin']",
    ),
    (
        "speed",
        {"speed": Speed(8_000.0, "digits", 10_000.0, "Some CPU, 2 workers", same_machine=True)},
        "8,000 digits a second on one core, 0.80 of what the baseline digits had on an equal ",
        "look for what slows it down",
    ),
    (
        "speed",
        {"threads": Threads(2, load=7.5)},
        "1.50 of what the baseline digits had on another machine (AMD EPYC, 2 workers): seconds "
        "do not compare; the cores are busy, with a load of 7.5",
        "measure seconds while nothing else runs",
    ),
]


@pytest.mark.parametrize(
    ("standing", "name", "changes", "told", "remedy"),
    [
        *((Standing.PROBLEM, *case) for case in BROKEN),
        *((Standing.WARNING, *case) for case in DOUBTFUL),
    ],
)
def test_what_is_amiss_is_told_with_its_remedy(
    standing: Standing, name: str, changes: dict[str, Any], told: str, remedy: str
) -> None:
    found = item(name, **changes)
    assert found.standing is standing
    assert told in found.told
    place = 0
    for part in remedy.split("*"):
        place = found.remedy.index(part, place) + len(part)
    assert "\n" not in found.told + found.remedy


def test_what_is_not_needed_is_no_warning() -> None:
    original = item("cifar10", **data_set("cifar10", there=False))
    assert original.standing is Standing.OK
    assert original.told.endswith("the cases of cifar10 train on cifar10-jpeg in its place")
    for name in ("cifar10-jpeg", "kmnist", "svhn"):
        assert item(name, **data_set(name, there=False)).standing is Standing.OK
    assert item("fashion-mnist", **data_set("fashion-mnist", there=False)).remedy
    neither = tuple(dataclasses.replace(d, there=False) for d in SOUND.data_sets)
    assert item("cifar10", data_sets=neither).standing is Standing.WARNING
    # of data that is there, nothing is written
    assert item("data folder", **folder("data folder", writable=False)).standing is Standing.OK


def test_a_broken_torch_is_one_problem_and_what_hangs_on_it_is_not_tried() -> None:
    items = diagnose(
        dataclasses.replace(
            SOUND,
            torch=Torch(None, "ImportError: broken"),
            torchvision=Torchvision("0.29.2", "ImportError: broken"),
            speed=Speed(error=NOT_TRIED),
        )
    )
    problems = [each.name for each in items if each.standing is Standing.PROBLEM]
    assert problems == ["torch"]
    assert {each.name for each in items if each.standing is Standing.WARNING} == {
        *("torchvision", "GPU", "speed")
    }


@pytest.mark.parametrize(
    ("torch", "pair"),
    [
        ("2.11.0", "torchvision==0.26.*"),
        ("2.13.1+cu130", "torchvision==0.28.*"),
        ("2.14.0", "torchvision>=0.29.1"),
        ("2.16.0.dev20261120+cpu", "torchvision>=0.29.1"),
        ("1.13.1", None),
    ],
)
def test_a_torch_has_its_torchvision(torch: str, pair: str | None) -> None:
    assert pair_of(torch) == pair


def test_the_narrowest_cgroup_counts(tmp_path: Path) -> None:
    own, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    inner = mounted / "outer" / "inner"
    inner.mkdir(parents=True)
    own.write_text("0::/outer/inner\n")
    assert cgroup_cores(own, mounted) is None
    (inner / "cpu.max").write_text("max 100000\n")
    assert cgroup_cores(own, mounted) is None
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert cgroup_cores(own, mounted) == 1.5
    (inner / "cpu.max").write_text("400000 100000\n")
    assert cgroup_cores(own, mounted) == 1.5


def test_a_limit_of_the_first_version_of_cgroups_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_cores(tmp_path / "none", tmp_path) is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    assert cgroup_cores(tmp_path / "none", tmp_path) == 3.0


ENDED = """
import json, os, signal
print(json.dumps({"begun": "torch"}))
print("a library's own line")
print(json.dumps({"part": "torch", "version": "2.15.0"}))
print(json.dumps({"begun": "torchvision"}), flush=True)
os.kill(os.getpid(), signal.SIGILL)
"""


def test_a_process_that_torch_has_ended_is_told_with_the_part_that_it_ended_in(
    tmp_path: Path,
) -> None:
    assert probed(tmp_path, (sys.executable, "-c", ENDED)) == {
        "torch": {"version": "2.15.0"},
        "torchvision": {"error": "the process that tried it was ended by SIGILL"},
    }


def test_a_torch_that_cannot_be_imported_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libtorch_cpu.so: no such file')\n")
    path = os.pathsep.join((str(broken.parent), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path, "NORMBENCH_DATA": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "normbench", "doctor", "--json", "--results", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert document["problems"] == 1
    items = {each["name"]: each for each in document["items"]}
    assert "libtorch_cpu.so: no such file" in items["torch"]["told"]
    assert items["torch"]["remedy"]
    assert items["plugin"]["standing"] == items["results folder"]["standing"] == "ok"
    assert items["mnist"]["told"] == f"not in {tmp_path}/data/MNIST/raw"
    assert document["facts"]["torch"]["error"]
