"""Scheduling: devices and their slots, threads, and xdist's order."""

import argparse
import dataclasses
import platform
import resource
import subprocess
import sys

import pytest
import torch

from normbench.engine.costs import estimated_seconds
from normbench.engine.devices import DeviceSlots, parse_device, threads_per_worker, tune_malloc
from normbench.engine.xdist import LongestFirstScheduling
from normbench.spec import RunSpec
from normbench.storage.environment import available_cores

SPEC = RunSpec("mnist", "mnist", "batch", batch_size=64, epochs=8)


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
def test_what_a_process_frees_it_takes_again():
    # in a process of its own: what others have freed before counts as well
    program = "import tests.engine.test_scheduling as t; t.print_pages_mapped_by_steps()"
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
def test_a_device_stands_for_what_is_there(text, gpus, devices):
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
def test_a_device_that_is_not_there_is_refused(text, gpus, message):
    with pytest.raises(ValueError, match=message):
        parse_device(text, gpus)


def test_workers_share_the_gpus_evenly_and_a_replacement_takes_the_free_slot():
    slots = DeviceSlots(("cuda:0", "cuda:1"))
    assert [slots.assign(f"gw{n}") for n in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    slots.release("gw1")
    assert slots.assign("gw4") == "cuda:1"
    slots.release("gw0")
    slots.release("gw2")
    assert [slots.assign("gw5"), slots.assign("gw6")] == ["cuda:0", "cuda:0"]


def test_all_workers_share_one_device():
    slots = DeviceSlots(("cpu",))
    assert {slots.assign(f"gw{n}") for n in range(4)} == {"cpu"}


def test_cores_are_divided_and_none_is_left_without():
    assert [threads_per_worker(n, cores=8) for n in (1, 2, 3, 8, 16)] == [8, 4, 2, 1, 1]
    assert available_cores() >= 1


def test_estimates_rank_runs_as_their_work_does():
    cost = estimated_seconds(SPEC)
    assert estimated_seconds(dataclasses.replace(SPEC, epochs=16)) == pytest.approx(2 * cost)
    assert estimated_seconds(dataclasses.replace(SPEC, batch_size=32)) > cost
    assert estimated_seconds(dataclasses.replace(SPEC, norm="none")) < cost


class FakeNode:
    """Stands for an xdist worker: notes what it is sent."""

    def __init__(self, name: str) -> None:
        self.gateway = type("Gateway", (), {"id": name})()
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent.extend(indices)

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(tests: int, workers: int) -> tuple[LongestFirstScheduling, list[FakeNode]]:
    """Return a scheduler that has dealt out its first tests, and its workers."""
    option = argparse.Namespace(tx=[f"{workers}*popen"], maxschedchunk=None)
    config = argparse.Namespace(getvalue=lambda name: getattr(option, name))
    config.getoption = config.getvalue
    scheduler = LongestFirstScheduling(config)
    nodes = [FakeNode(f"gw{n}") for n in range(workers)]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, [f"t{n}" for n in range(tests)])
    scheduler.schedule()
    return scheduler, nodes


def simulate(scheduler, nodes, seconds: list[float]) -> float:
    """Play the workers through the scheduler; return when the last test ends."""
    clock = dict.fromkeys(nodes, 0.0)
    done = dict.fromkeys(nodes, 0)
    while any(done[node] < len(node.sent) for node in nodes):
        busy = [node for node in nodes if done[node] < len(node.sent)]
        node = min(busy, key=lambda n: clock[n] + seconds[n.sent[done[n]]])
        index = node.sent[done[node]]
        clock[node] += seconds[index]
        done[node] += 1
        scheduler.mark_test_complete(node, index, seconds[index])
    assert sorted(i for node in nodes for i in node.sent) == list(range(len(seconds)))
    assert scheduler.tests_finished
    assert all(node.shutting_down for node in nodes)
    return max(clock.values())


def test_the_longest_are_dealt_one_each_before_a_second():
    _, (first, second) = scheduled(tests=10, workers=2)
    assert (first.sent, second.sent) == ([0, 3], [1, 2])


def test_every_test_runs_once_and_the_workers_end_close_together():
    seconds = [float(n) for n in range(30, 0, -1)]
    for workers in (2, 3, 4):
        end = simulate(*scheduled(tests=30, workers=workers), seconds)
        assert end <= 1.05 * sum(seconds) / workers


def test_fewer_tests_than_workers_are_all_run():
    assert simulate(*scheduled(tests=2, workers=4), [2.0, 1.0]) == 2.0


def test_a_crashed_workers_queue_goes_to_the_others_and_its_running_test_is_named():
    scheduler, (first, second) = scheduled(tests=6, workers=2)
    assert scheduler.remove_node(first) == "t0"
    assert 3 in scheduler.pending
    done = 0
    while done < len(second.sent):
        scheduler.mark_test_complete(second, second.sent[done])
        done += 1
    assert sorted(second.sent) == [1, 2, 3, 4, 5]
