"""xdist's order: the longest first where there are cases, and xdist's own where there are none."""

import argparse
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from xdist.scheduler import LoadScheduling

from normbench.engine.xdist import LongestFirstScheduling


class LongestFirst(LongestFirstScheduling):
    """The scheduler as it is once a worker has said that there are cases."""

    one_at_a_time = True


class FakeNode:
    """Stands for an xdist worker: notes what it is sent."""

    def __init__(self, name: str) -> None:
        self.gateway = argparse.Namespace(id=name)
        self.chunks: list[list[int]] = []
        self.shutting_down = False

    @property
    def sent(self) -> list[int]:
        return list(chain.from_iterable(self.chunks))

    def send_runtest_some(self, indices: list[int]) -> None:
        self.chunks.append(list(indices))

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(
    tests: int, workers: int, kind: type = LongestFirst, maxschedchunk: int | None = None
) -> tuple[Any, list[FakeNode]]:
    """Return a scheduler that has dealt out its first tests, and its workers."""
    option = argparse.Namespace(tx=[f"{workers}*popen"], maxschedchunk=maxschedchunk)
    config = argparse.Namespace(getvalue=lambda name: getattr(option, name))
    config.getoption = config.getvalue
    scheduler = kind(config)
    nodes = [FakeNode(f"gw{n}") for n in range(workers)]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, [f"t{n}" for n in range(tests)])
    scheduler.schedule()
    return scheduler, nodes


def simulate(scheduler: Any, nodes: Sequence[FakeNode], seconds: Sequence[float]) -> float:
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


def test_the_longest_are_dealt_one_each_before_a_second() -> None:
    _, (first, second) = scheduled(tests=10, workers=2)
    assert (first.sent, second.sent) == ([0, 3], [1, 2])


def test_every_test_runs_once_and_the_workers_end_close_together() -> None:
    seconds = [float(n) for n in range(30, 0, -1)]
    for workers in (2, 3, 4):
        end = simulate(*scheduled(tests=30, workers=workers), seconds)
        assert end <= 1.05 * sum(seconds) / workers


def test_fewer_tests_than_workers_are_all_run() -> None:
    assert simulate(*scheduled(tests=2, workers=4), [2.0, 1.0]) == 2.0


def test_a_crashed_workers_queue_goes_to_the_others_and_its_running_test_is_named() -> None:
    scheduler, (first, second) = scheduled(tests=6, workers=2)
    assert scheduler.remove_node(first) == "t0"
    assert 3 in scheduler.pending
    done = 0
    while done < len(second.sent):
        scheduler.mark_test_complete(second, second.sent[done])
        done += 1
    assert sorted(second.sent) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("tests", [0, 1, 3, 7, 40, 200])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("maxschedchunk", [None, 1, 5])
@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_where_there_are_no_cases_tests_are_dealt_out_as_xdist_does(
    tests: int, workers: int, maxschedchunk: int | None, seconds: float
) -> None:
    # not all of one length, so that the workers do not stay abreast
    lengths = [seconds * (1 + n % 3) for n in range(tests)]
    sent = []
    for kind in (LoadScheduling, LongestFirstScheduling):
        scheduler, nodes = scheduled(tests, workers, kind, maxschedchunk)
        if tests:
            simulate(scheduler, nodes, lengths)
        sent.append([node.chunks for node in nodes])
    assert sent[0] == sent[1]


def test_a_crashed_workers_tests_go_where_xdist_sends_them() -> None:
    sent = []
    for kind in (LoadScheduling, LongestFirstScheduling):
        scheduler, nodes = scheduled(40, 3, kind)
        assert scheduler.remove_node(nodes[0]) == "t0"
        sent.append([node.chunks for node in nodes])
    assert sent[0] == sent[1]


def test_workers_that_collected_different_tests_are_given_none() -> None:
    option = argparse.Namespace(tx=["2*popen"], maxschedchunk=None)
    config = argparse.Namespace(getvalue=lambda name: getattr(option, name))
    config.getoption = config.getvalue
    reports: list[Any] = []
    config.hook = argparse.Namespace(pytest_collectreport=lambda report: reports.append(report))
    scheduler = LongestFirst(config)
    nodes = [FakeNode("gw0"), FakeNode("gw1")]
    for node, names in zip(nodes, (["t0", "t1"], ["t0", "t2"]), strict=True):
        scheduler.add_node(node)
        scheduler.add_node_collection(node, names)
    scheduler.schedule()
    assert [node.sent for node in nodes] == [[], []]
    assert len(reports) == 1
