"""Stages of gpu.py that train grids of MNIST: accuracies, and speed by the number of workers."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from gpu_tests import ROOT, pytest_run
from gpu_training import Setup, Tell

BASELINE = "cpu-mnist-plain"
IMAGES = 60_000

GRID = """
schema = 1
tier = "smoke"
dataset = "mnist"
network = "mnist"
recipe = "mnist"
epochs = {epochs}
{images}

[[grid]]
norm = ["none", "batch", "layer", "group:4"]
regularizer = {regularizers}
batch_size = [64]

[[target]]
test_accuracy = 5.0
"""
NO_REGULARIZER = "[{}]"
FOUR_REGULARIZERS = "[{}, { l1 = 1e-6 }, { l2 = 1e-5 }, { l1 = 1e-6, l2 = 1e-5 }]"
GRID_EPOCHS = 2
# At most, of one round: one that hangs leaves the others their time.
ROUND_SECONDS = 90.0

# The most telling first, as what is left of the time may not be enough for all. With MPS kernels of
# several processes run at once; without, the processes take turns.
ROUNDS = ((16, False), (1, False), (16, True), (4, False), (8, False), (2, False), (8, True))


def session(
    setup: Setup, name: str, epochs: int, regularizers: str, seconds: float, *more: str, **env: str
) -> dict[str, Any]:
    """Train a grid of MNIST in a session of pytest; return what is stored of it."""
    grid = setup.folder / f"{name}.toml"
    images = f"train_images = {setup.images}" if setup.images else ""
    grid.write_text(GRID.format(epochs=epochs, images=images, regularizers=regularizers))
    results = setup.folder / name
    outcome = pytest_run(
        *(setup, name, seconds, "bench", "-k", "own_cases", "--bench-cases", str(grid)),
        *("--bench-data", str(setup.data), "--bench-results", str(results)),
        *("--bench-device", setup.device, *more),
        **env,
    )
    return outcome | stored(results)


def stored(results: Path) -> dict[str, Any]:
    """Return what a session has stored, as far as it came."""
    from normbench.storage.session import SessionError, latest_session, read_session

    try:
        found = read_session(latest_session(results))
        rows = list(found.results.values())
    except (OSError, SessionError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}", "rows": []}
    comparison = found.document.comparison
    return {
        "session": str(found.folder),
        "session seconds": found.document.seconds,
        "rows": [row.to_row() for row in rows],
        "comparison": comparison.model_dump(mode="json") if comparison else None,
    }


def accuracy(setup: Setup, tell: Tell) -> None:
    """Hold the accuracies of four MNIST cases against those of the CPU's baseline."""
    seeds, epochs = (1, 1) if setup.quick else (3, 8)
    found = session(
        *(setup, "accuracy", epochs, NO_REGULARIZER, setup.seconds - 8, "-n", "4"),
        *("--bench-seeds", str(seeds), "--bench-baseline", BASELINE, "--bench-confirm", "0"),
    )
    table = beside_baseline(found["rows"])
    far = [row["norm"] for row in table if abs(row["deviations apart"] or 0.0) > 3]
    told = f"{len(found['rows'])} runs in {found['wall seconds']:.0f} s"
    told += f"; beyond 3 deviations of the CPU's: {', '.join(far) or 'none'}"
    tell({**found, "table": table, "told": told})


def beside_baseline(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a norm: the accuracies here and in the baseline, in percent.

    ``deviations apart`` is the difference of the means by its standard error, from the spread of
    the baseline alone.
    """
    from normbench.storage.baseline import find_baseline

    baseline = find_baseline(BASELINE, ROOT / "results" / "reference")
    known = {
        case.spec.norm: [100 * value for value in case.accuracies]
        for case in baseline.cases.values()
        if (case.spec.regularizer, case.spec.batch_size) == ("none", 64)
    }
    by_norm: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "ok":
            by_norm.setdefault(row["spec"]["norm"], []).append(100 * row["test_accuracy"])
    table = []
    for norm, here in by_norm.items():
        there = known.get(norm, [])
        spread = statistics.stdev(there) if len(there) > 1 else 0.0
        error = spread * (1 / len(here) + 1 / max(1, len(there))) ** 0.5
        apart = statistics.fmean(here) - statistics.fmean(there) if there else None
        table.append(
            {
                "norm": norm,
                "runs": len(here),
                "here (%)": statistics.fmean(here),
                "lowest": min(here),
                "highest": max(here),
                "runs of the baseline": len(there),
                "baseline (%)": statistics.fmean(there) if there else None,
                "its deviation": spread,
                "its lowest": min(there, default=None),
                "its highest": max(there, default=None),
                "deviations apart": apart / error if error and apart is not None else None,
            }
        )
    return table


@contextmanager
def mps(control: str) -> Iterator[dict[str, str]]:
    """Let processes share the GPU through the Multi-Process Service, if they have this environment.

    Settings of the GPU stay as they are. Source: NVIDIA, Multi-Process Service, 5.1.
    """
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        told = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = {**os.environ, **told}
        subprocess.run([control, "-d"], env=environment, timeout=20, check=True)
        try:
            yield told
        finally:
            subprocess.run(
                [control], env=environment, input="quit\n", text=True, timeout=20, check=False
            )


def grid(setup: Setup, tell: Tell) -> None:
    """Train the same grid with different numbers of workers, as far as the time goes."""
    end = time.monotonic() + setup.seconds - 8
    control = shutil.which("nvidia-cuda-mps-control") if setup.on_gpu else None
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    expected = 10.0
    for workers, shared in ((2, False),) if setup.quick else ROUNDS:
        name = f"grid-{workers}" + ("-mps" if shared else "")
        left = end - time.monotonic()
        if shared and control is None:
            notes.append(f"{name}: left out, there is no nvidia-cuda-mps-control here")
        elif workers > max(cores, 2):
            notes.append(f"{name}: left out, there are {cores} cores")
        elif left < expected:
            notes.append(f"{name}: left out, {left:.0f} s are left")
        else:
            try:
                rows.append(
                    grid_round(
                        setup, name, workers, min(left, ROUND_SECONDS), control if shared else None
                    )
                )
                expected = min(row["wall seconds"] for row in rows)
            except (OSError, subprocess.SubprocessError) as error:
                notes.append(f"{name}: {type(error).__name__}: {error}")
            print(rows[-1:], notes[-1:], flush=True)
        told = "; ".join(map(told_of_round, rows))
        tell({"told": told or "no round", "rounds": rows, "notes": notes})


def told_of_round(row: dict[str, Any]) -> str:
    mps_told = " with MPS" if row["MPS"] else ""
    told = f"{row['workers']} workers{mps_told}: {row['runs']} runs in {row['wall seconds']:.0f} s"
    # 1: runs that missed the target, which all the same have trained
    return told if row["exit status"] in (0, 1) else f"{told}, exit status {row['exit status']}"


def grid_round(
    setup: Setup, name: str, workers: int, seconds: float, control: str | None
) -> dict[str, Any]:
    """Run the grid once; return its seconds and images a second."""
    epochs = 1 if setup.quick else GRID_EPOCHS
    arguments = (setup, name, epochs, FOUR_REGULARIZERS, seconds, "-n", str(workers))
    if control is None:
        found = session(*arguments)
    else:
        with mps(control) as environment:
            found = session(*arguments, **environment)
    runs = [row for row in found["rows"] if row["status"] == "ok"]
    images = len(runs) * epochs * (setup.images or IMAGES)
    training = sum(row["train_seconds"] for row in runs)
    testing = sum(row["test_seconds"] for row in runs)
    times = [datetime.fromisoformat(row[key]) for row in runs for key in ("started", "ended")]
    span = (max(times) - min(times)).total_seconds() if times else 0.0
    return {
        "workers": workers,
        "MPS": control is not None,
        "runs": len(runs),
        "devices": sorted({row["device"] for row in runs}),
        "exit status": found["exit status"],
        "wall seconds": found["wall seconds"],
        "session seconds": found.get("session seconds"),
        "training seconds of all runs": training,
        "evaluation seconds of all runs": testing,
        "processor seconds of all runs": sum(row["cpu_seconds"] for row in runs),
        "seconds from the first start to the last end": span,
        "images a second, of the wall": images / found["wall seconds"],
        "images a second, from first start to last end": images / span if span else None,
        "images a second, of one run": images / training if training else None,
        "error": found.get("error"),
    }
