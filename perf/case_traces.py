"""What the traces of cases tell apart, by which --bench-replay takes rows of earlier sessions.

    python perf/case_traces.py FILE                # take the traces of the standard tier's cases
    python perf/case_traces.py FILE OTHER          # compare those of two builds of torch
    python perf/case_traces.py FILE --faults       # plant each fault: which change no trace?

Each is run with the Python of its environment. MNIST and CIFAR-10 are read from $NORMBENCH_DATA.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch

from normbench.analysis.traces import same_training
from normbench.cases.case import Case, GridOptions
from normbench.cases.catalogue import SUITE, Catalogue
from normbench.check.faults import FAULTS, planted
from normbench.check.trace import take_case_trace
from normbench.check.trace_record import Trace, Traced, case_trace_spec
from normbench.storage.environment import processor_kind
from normbench.storage.traces import trace_text
from normbench.training.data import load_dataset
from normbench.training.datasets import DatasetUnavailable


def cases(tier: str) -> list[Case]:
    catalogue = Catalogue(GridOptions(tier=tier))
    catalogue.add((SUITE / "cases").resolve())
    return catalogue.cases


def trace(case: Case) -> Trace:
    spec = case_trace_spec(case.spec)
    data = load_dataset(spec.dataset, GridOptions().data, torch.device("cpu"))
    return take_case_trace(Traced(case.id, spec), processor_kind(), data)


def take(file: Path, tier: str) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for case in cases(tier):
            try:
                lines.write(f"{trace_text(trace(case))}\n")
            except DatasetUnavailable as error:
                print(f"{case.id} is left out: {error}")


def plant_faults(sound: dict[str, Trace], tier: str) -> None:
    """Tell of each fault which case's trace it changes first, if any."""
    # as a fault of one norm or recipe shows in its cases alone, the cheapest case of each kind
    kinds = {}
    for case in sorted(cases(tier), key=lambda case: -case.spec.batch_size):
        kinds[case.spec.recipe, case.spec.norm, case.spec.regularizer] = case
    missed = []
    for name, fault in FAULTS.items():
        with planted(name):
            seen = next((case.id for case in kinds.values() if differs(case, sound)), None)
        print(f"{name}: {seen or 'changes no trace'}", flush=True)
        missed += [] if seen else [f"{name} ({fault.told})"]
    print(f"{len(FAULTS) - len(missed)} of {len(FAULTS)} faults change a trace; not: {missed}")


def differs(case: Case, sound: dict[str, Trace]) -> bool:
    try:
        return not same_training(trace(case), sound[case.id])
    except Exception:  # no trace is none that is equal
        return True


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
        equal[kind] += same_training(now[name], before[name])
    for kind in cases:
        print(f"{kind}: {equal[kind]} of {cases[kind]}")
    share = 100 * equal.total() / len(both)
    print(f"equal to the bit: {equal.total()} of {len(both)} cases, {share:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("other", type=Path, metavar="OTHER", nargs="?")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--tier", default="standard", choices=("smoke", "standard", "full"))
    options = parser.parse_args()
    if options.faults:
        plant_faults(read(options.file), options.tier)
    elif options.other is None:
        take(options.file, options.tier)
    else:
        compare(read(options.other), read(options.file))


if __name__ == "__main__":
    main()
