"""What only torch can tell `normbench doctor`: run in a process of its own, which it may end.

Prints a line of JSON for each part: its name as it is begun, and its facts once they are known. So
who reads it knows in which part a process ended that was killed, as a wrong build of torch may be.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The case that is timed, and the baseline of the package that has it.
TRAINED, BASELINE = "batch-none-b64", "digits"

# A run of it takes a third of a second; the median of so many counts, after one to warm up.
TIMED_RUNS = 3


def probe(data: Path, out: Callable[[dict[str, Any]], None]) -> None:
    """Look at each part in turn, and hand out what was found of it."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "torch": torch_facts,
        "torchvision": torchvision_facts,
        "data": lambda: data_facts(data),
        "speed": speed_facts,
    }
    for name, facts in parts.items():
        out({"begun": name})
        try:
            out({"part": name, **facts()})
        # whatever it raises is what is to be told
        except Exception as error:
            out({"part": name, "error": " ".join(f"{type(error).__name__}: {error}".split())})


def torch_facts() -> dict[str, Any]:
    """Return torch's version and what it was built for, and the GPUs, each tried."""
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
    }


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    found = {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": properties.total_memory / 2**30,
    }
    try:
        torch.ones(2, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        return {**found, "error": str(error).splitlines()[0]}
    return found


def torchvision_facts() -> dict[str, Any]:
    """Return torchvision's version; raises what it raises where it does not fit torch."""
    import torch
    import torchvision

    # of a torchvision of another build, the operators are not there
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return {"version": torchvision.__version__}


def data_facts(data: Path) -> dict[str, Any]:
    """Look for each data set in its folder; whole ones alone are without an error."""
    from normbench.training.datasets import DatasetDamaged, DatasetUnavailable
    from normbench.training.sources import SOURCES

    found: dict[str, dict[str, Any]] = {}
    for name, source in SOURCES.items():
        try:
            source.check(data)
            found[name] = {"there": True}
        except DatasetUnavailable:
            found[name] = {"there": False}
        except DatasetDamaged as error:
            found[name] = {"there": True, "error": str(error)}
    return {"sets": found}


def speed_facts() -> dict[str, Any]:
    """Train a case of the digits on one core, and find how fast the baseline's machine was."""
    import torch

    from normbench.analysis.comparison import same_machine
    from normbench.storage.baseline import PACKAGED, Baseline
    from normbench.storage.environment import environment
    from normbench.training.data import load_dataset
    from normbench.training.trainer import train

    # as each worker of the baseline's session
    torch.set_num_threads(1)
    baseline = Baseline.read(PACKAGED / f"{BASELINE}.json")
    before = next(case for spec, case in baseline.cases.items() if spec.label == TRAINED)
    cpu = torch.device("cpu")
    digits = load_dataset("digits", Path(), cpu)
    _, *runs = (train(before.spec.with_seed(seed), digits, cpu) for seed in range(1 + TIMED_RUNS))
    if bad := [run for run in runs if run.status != "ok"]:
        raise RuntimeError(f"{bad[0].status}: {bad[0].message}")
    here = environment(Path.cwd())
    now = Baseline.of_runs("now", "", 1, False, here, runs)
    workers = f"{baseline.workers} worker{'s' if baseline.workers > 1 else ''}"
    return {
        "images_per_second": now.cases[before.spec].images_per_second,
        "baseline": baseline.name,
        "baseline_images_per_second": before.images_per_second,
        "baseline_processor": f"{baseline.environment.get('processor')}, {workers}",
        "same_machine": same_machine(baseline, now),
    }


def main() -> None:
    out = sys.stdout
    # what libraries print is none of the facts
    sys.stdout = sys.stderr

    def tell(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=out, flush=True)

    probe(Path(sys.argv[1]), tell)


if __name__ == "__main__":
    main()
