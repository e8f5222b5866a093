"""Who runs what, where: costs, threads and memory, GPU slots, and xdist's longest-first order."""

import ctypes
import os
from collections import Counter

import torch
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

from normbench.spec import RunSpec
from normbench.training.data import images_an_epoch

# Seconds of one core that an image takes, and that a step takes however few images it has: fitted
# to runs at batch sizes 32 and 64 on a 2.5 GHz Xeon. They order the runs; only ratios matter.
SECONDS_AN_IMAGE = {"digits": 5e-5, "mnist": 1.5e-4, "cifar10": 1e-3}
SECONDS_A_STEP = 3e-3
NORM_FACTOR = {"none": 0.75, "instance": 1.6}


def estimated_seconds(spec: RunSpec) -> float:
    """Estimate what a run costs one core, to put the longest first."""
    images = images_an_epoch(spec)
    per_epoch = images * SECONDS_AN_IMAGE[spec.network] + images / spec.batch_size * SECONDS_A_STEP
    return spec.epochs * per_epoch * NORM_FACTOR.get(spec.norm, 1.0)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_for_each(workers: int, cores: int) -> int:
    """Divide the cores among the workers: each gets at least one thread."""
    return max(1, cores // workers)


# Of mallopt: glibc's malloc.h, and the largest block that it can be told to keep.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT_BLOCK = 32 * 2**20


def keep_freed_memory() -> None:
    """Let this process reuse what it frees, where the C library is glibc.

    glibc hands large blocks back to the kernel as soon as they are free, and a training step
    frees all of its activations, so that each of their pages is mapped and zeroed anew in the next.
    Kept, three epochs of 10,000 images of CIFAR-10 took 13.7 to 14.1 seconds in place of 14.7 to
    15.1 (two runs at once on two cores of an AMD EPYC, layer, batch size 128).

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def parse_device(text: str, cuda_devices: int) -> tuple[str, ...]:
    """Return the devices that ``auto``, ``cpu``, ``cuda`` or ``cuda:0,2`` stands for.

    Indices count the devices that CUDA shows, so that CUDA_VISIBLE_DEVICES keeps its say.
    Raises ValueError for another text, and for a GPU that is not there.
    """
    everything = tuple(f"cuda:{index}" for index in range(cuda_devices))
    if text == "cpu" or (text == "auto" and not everything):
        return ("cpu",)
    if text == "auto":
        return everything
    kind, colon, indices = text.partition(":")
    listed = indices.split(",") if colon else []
    if kind != "cuda" or (colon and not all(i.isascii() and i.isdecimal() for i in listed)):
        raise ValueError(f"device {text!r}: expected auto, cpu, cuda, or cuda:0,2 with indices")
    chosen = tuple(f"cuda:{int(index)}" for index in listed) or everything
    if not chosen or (missing := set(chosen) - set(everything)):
        raise ValueError(
            f"device {text!r}: torch {torch.__version__} sees {cuda_devices} CUDA devices here"
            + (f", {', '.join(sorted(missing))} not among them" if chosen else "")
            + "; use cpu or auto"
        )
    return tuple(dict.fromkeys(chosen))


class DeviceSlots:
    """Which worker has which device: a new worker gets the one that the fewest others have.

    Workers are known by id; a replacement of a crashed worker has a new id, and finds the slot
    that the crashed one has given back.
    """

    def __init__(self, devices: tuple[str, ...]) -> None:
        self.devices = devices
        self.assigned: dict[str, str] = {}

    def assign(self, worker: str) -> str:
        load = Counter(self.assigned.values())
        device = min(self.devices, key=lambda name: load[name])
        self.assigned[worker] = device
        return device

    def release(self, worker: str) -> None:
        self.assigned.pop(worker, None)


class LongestFirstScheduling(LoadScheduling):
    """Deals out xdist's tests in the order in which they were collected, one at a time.

    A worker must know its next test before it begins one, so that two are always its own; to
    leave the long ones no short worker, the first round deals one each, and the second one in
    the opposite direction. Collection puts the longest first.
    """

    collection: list[str] | None

    def schedule(self) -> None:
        if self.collection is not None:
            for node in self.nodes:
                self.check_schedule(node)
            return
        if not self._check_nodes_have_same_collection():
            self.log("**Different tests collected, aborting run**")
            return
        collection: list[str] = next(iter(self.node2collection.values()))
        self.collection, self.pending[:] = collection, range(len(collection))
        for node in (*self.nodes, *reversed(self.nodes)):
            self._send_tests(node, 1)
        if not self.pending:
            for node in self.nodes:
                node.shutdown()

    def check_schedule(self, node: WorkerController, duration: float = 0) -> None:  # noqa: ARG002
        """Keep the worker at two tests; ``duration`` is xdist's, and of no use here."""
        if node.shutting_down:
            return
        if self.pending:
            self._send_tests(node, max(0, 2 - len(self.node2pending[node])))
        else:
            node.shutdown()
