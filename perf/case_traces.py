"""How many cases train the same, to the bit, under two builds of torch: their traces side by side.

    python perf/case_traces.py FILE                # take the traces of the standard tier's cases
    python perf/case_traces.py FILE OTHER          # compare two such files

Each is run with the Python of its environment. MNIST and CIFAR-10 are read from $NORMBENCH_DATA.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch

from normbench.analysis.traces import first_difference
from normbench.cases.case import GridOptions
from normbench.cases.catalogue import SUITE, Catalogue
from normbench.check.trace import take_case_trace
from normbench.check.trace_record import Trace, Traced, case_trace_spec
from normbench.storage.environment import processor
from normbench.storage.traces import trace_text
from normbench.training.data import load_dataset


def take(file: Path, tier: str) -> None:
    options = GridOptions(tier=tier)
    catalogue = Catalogue(options)
    catalogue.add((SUITE / "cases").resolve())
    machine = " ".join(filter(None, processor().values()))
    with file.open("w", encoding="utf-8") as lines:
        for case in catalogue.cases:
            spec = case_trace_spec(case.spec)
            data = load_dataset(spec.dataset, options.data, torch.device("cpu"))
            lines.write(f"{trace_text(take_case_trace(Traced(case.id, spec), machine, data))}\n")


def read(file: Path) -> dict[str, Trace]:
    traces = map(Trace.of_dict, map(json.loads, file.read_text(encoding="utf-8").splitlines()))
    return {trace.name: trace for trace in traces}


def compare(now: dict[str, Trace], before: dict[str, Trace]) -> None:
    both = [name for name in now if name in before]
    sides = [next(iter(side.values())).ground for side in (before, now)]
    print(" -> ".join(f"torch {side['torch']}, {side['threads']} threads" for side in sides))
    equal, cases = Counter[str](), Counter[str]()
    for name in both:
        kind = f"{now[name].spec.dataset}, {now[name].spec.norm}"
        cases[kind] += 1
        equal[kind] += first_difference(now[name], before[name]) is None
    for kind in cases:
        print(f"{kind}: {equal[kind]} of {cases[kind]}")
    share = 100 * equal.total() / len(both)
    print(f"equal to the bit: {equal.total()} of {len(both)} cases, {share:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("other", type=Path, metavar="OTHER", nargs="?")
    parser.add_argument("--tier", default="standard", choices=("smoke", "standard", "full"))
    options = parser.parse_args()
    if options.other is None:
        take(options.file, options.tier)
    else:
        compare(read(options.other), read(options.file))


if __name__ == "__main__":
    main()
