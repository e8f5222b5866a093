"""Where runs go: devices and the workers that have them, threads, and memory."""

import ctypes
import itertools


def threads_per_worker(workers: int, cores: int) -> int:
    """Divide the cores among the workers: each gets at least one thread."""
    return max(1, cores // workers)


# Of mallopt: glibc's malloc.h, and the largest block that it can be told to keep.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT_BLOCK = 32 * 2**20


def tune_malloc() -> None:
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
            f"device {text!r}: torch sees {cuda_devices} CUDA devices here"
            + (f", {', '.join(sorted(missing))} not among them" if chosen else "")
            + "; use cpu or auto"
        )
    return tuple(dict.fromkeys(chosen))


class WorkerSlots:
    """Numbers from 0 up for the workers that run now: a new one gets the lowest that is free.

    Workers are known by id; a replacement of a crashed worker has a new id, and finds the slot
    that the crashed one has given back. Devices are dealt out by slot, in turn.
    """

    def __init__(self) -> None:
        self.assigned: dict[str, int] = {}

    def assign(self, worker: str) -> int:
        taken = set(self.assigned.values())
        slot = next(number for number in itertools.count() if number not in taken)
        self.assigned[worker] = slot
        return slot

    def release(self, worker: str) -> None:
        self.assigned.pop(worker, None)
