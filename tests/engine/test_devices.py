"""Where runs go: devices, the slots of workers, threads, and memory."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from normbench.engine.devices import WorkerSlots, parse_device, threads_per_worker, tune_malloc
from normbench.storage.environment import available_cores


def print_pages_mapped_by_steps() -> None:
    """Print how many pages 20 steps mapped that each take and free eight blocks of 8 MiB."""

    def step() -> None:
        _ = [torch.ones(2 * 2**20) for _ in range(8)]

    tune_malloc()
    # glibc's own limits follow what it saw
    step()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_a_process_frees_it_takes_again() -> None:
    # in a process of its own: what others have freed before counts as well
    program = "import tests.engine.test_devices as t; t.print_pages_mapped_by_steps()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # a step's blocks are 16,384 pages: without it, 20 steps mapped 327,040 of them
    assert int(done.stdout) < 16_384


@pytest.mark.parametrize(
    ("text", "gpus", "devices"),
    [
        ("auto", 0, ("cpu",)),
        ("auto", 2, ("cuda:0", "cuda:1")),
        ("cpu", 2, ("cpu",)),
        ("cuda", 3, ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:0,2", 3, ("cuda:0", "cuda:2")),
        ("cuda:1,1", 2, ("cuda:1",)),
    ],
)
def test_a_device_stands_for_what_is_there(text: str, gpus: int, devices: tuple[str, ...]) -> None:
    assert parse_device(text, gpus) == devices


@pytest.mark.parametrize(
    ("text", "gpus", "message"),
    [
        ("gpu", 2, r"device 'gpu': expected auto, cpu, cuda, or cuda:0,2"),
        ("cuda:", 2, r"device 'cuda:': expected"),
        ("cuda:x", 2, r"device 'cuda:x': expected"),
        ("cuda", 0, r"sees 0 CUDA devices here; use cpu or auto"),
        ("cuda:0,2", 2, r"sees 2 CUDA devices here, cuda:2 not among them"),
    ],
)
def test_a_device_that_is_not_there_is_refused(text: str, gpus: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_device(text, gpus)


def test_a_replacement_takes_the_slot_that_a_crashed_worker_left() -> None:
    slots = WorkerSlots()
    assert [slots.assign(f"gw{n}") for n in range(4)] == [0, 1, 2, 3]
    slots.release("gw1")
    assert slots.assign("gw4") == 1
    slots.release("gw0")
    slots.release("gw2")
    # the lowest first, whoever left it
    assert [slots.assign("gw5"), slots.assign("gw6"), slots.assign("gw7")] == [0, 2, 4]


def test_a_worker_that_has_no_slot_leaves_none() -> None:
    slots = WorkerSlots()
    slots.release("gw0")
    assert slots.assign("gw1") == 0


def test_cores_are_divided_and_no_worker_is_left_without() -> None:
    assert [threads_per_worker(n, cores=8) for n in (1, 2, 3, 8, 16)] == [8, 4, 2, 1, 1]
    assert available_cores() >= 1
