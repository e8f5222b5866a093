"""Alarms about what is right: checks and traces of the built-in norms, over seeds and threads.

    python -m tests.check.alarms [SEEDS]

prints a row of the table in docs/check.md for the torch that is installed. Every alarm is a false
one, or a fault of that torch.
"""

import sys
import time
from collections.abc import Iterator, Sequence

import torch
from tabulate import tabulate

from normbench.check.conformance import check_norm
from normbench.check.trace import take_trace
from normbench.check.trace_record import Traced, trace_spec

NORMS = ("none", "batch", "layer", "layer_chw", "group:2", "group:4", "instance")
RECIPES = ("digits", "mnist", "cifar10")
THREADS = (1, 2)


def alarms_of_checks(seeds: Sequence[int]) -> Iterator[list[str]]:
    """Yield what is broken of each norm, with each seed."""
    for norm in NORMS:
        for seed in seeds:
            yield check_norm(norm, compiling=False, costs=False, seed=seed).broken


def alarms_of_traces(seeds: Sequence[int]) -> Iterator[list[str]]:
    """Yield what is broken in a trace of each norm and seed; other recipes with the first one."""
    for norm in NORMS:
        for recipe in RECIPES:
            for seed in seeds if recipe == "digits" else seeds[:1]:
                spec = trace_spec(recipe, norm, "l1:0.001+l2:0.001").with_seed(seed)
                yield list(take_trace(Traced(f"{recipe}-{norm}", spec)).broken)


def main(seeds: Sequence[int]) -> None:
    rows = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        for kind, measure in (("checks", alarms_of_checks), ("traces", alarms_of_traces)):
            start = time.perf_counter()
            found = list(measure(seeds))
            for broken in filter(None, found):
                print(kind, threads, *broken, sep="\n  ")
            rows.append(
                {
                    "torch": torch.__version__,
                    "threads": threads,
                    "of": kind,
                    "combinations": len(found),
                    "alarms": sum(map(bool, found)),
                    "seconds": round(time.perf_counter() - start),
                }
            )
    print(tabulate(rows, headers="keys", tablefmt="pipe"))


if __name__ == "__main__":
    main(range(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
