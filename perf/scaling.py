"""Measure how the suite scales over workers, and what it costs beside its training.

    python perf/scaling.py --bench-data DIR

Runs `pytest` on a part of the MNIST grid with 1, 2 and 4 workers, as far as there are cores, in
alternating rounds, and collects the full tier. Each worker has one thread, so that it stands for a
core: a single one would otherwise spread each step over all of them. Beside each round, processes
that share nothing multiply matrices: cores that slow each other down do so there as well. Nothing
else should run on the machine meanwhile.
"""

import argparse
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from roofline import best_product_rate
from rows import write_rows

from normbench.storage.environment import available_cores
from normbench.storage.session import latest_session, read_session
from normbench.training.datasets import default_root

ROOT = Path(__file__).parent.parent
WORKERS = (1, 2, 4)

# Twelve runs of about the same cost, so that no worker waits long for another's last run.
GRID = """
schema = 1
tier = "smoke"
dataset = "mnist"
network = "mnist"
recipe = "mnist"
epochs = {epochs}

[[grid]]
norm = ["batch", "layer", "group:2", "group:4"]
regularizer = [{{}}, {{ l1 = 1e-6 }}, {{ l2 = 1e-5 }}]
batch_size = [64]

[[target]]
test_accuracy = 11.0
"""


# Of each process that multiplies matrices.
PRODUCT_SECONDS = 5.0


class Round(NamedTuple):
    """A pytest process: its wall-clock seconds, and those that its runs trained and evaluated.

    ``product_rate`` is the operations a second of one of as many processes that multiply matrices.
    """

    wall: float
    session: float
    runs: float
    product_rate: float


def pytest_seconds(*arguments: str) -> tuple[float, str]:
    """Run pytest on bench/; return its wall-clock seconds and what it wrote."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "bench", "-q", *arguments]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=one_thread, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start, done.stdout


def sustained_product_rate(_: int) -> float:
    """Return the operations a second of one thread's products, the median of some seconds."""
    torch.set_num_threads(1)
    rates, end = [], time.perf_counter() + PRODUCT_SECONDS
    while time.perf_counter() < end:
        rates.append(best_product_rate())
    return statistics.median(rates)


def product_rate(processes: int) -> float:
    """Return the mean rate of so many processes that multiply matrices at the same time."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        # each has imported torch before all begin
        pool.map(time.sleep, [1.0] * processes, chunksize=1)
        return statistics.fmean(pool.map(sustained_product_rate, range(processes), chunksize=1))


def session_round(workers: int, data: Path, epochs: int) -> Round:
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "scaling.toml"
        grid.write_text(GRID.format(epochs=epochs))
        wall, _ = pytest_seconds(
            *("-n", str(workers), "--bench-cases", str(grid), "-k", "own_cases"),
            *("--bench-data", str(data.absolute()), "--bench-results", folder),
        )
        session = read_session(latest_session(Path(folder)))
        return Round(
            wall,
            session.document.seconds,
            sum(run.train_seconds + run.test_seconds for run in session.results.values()),
            product_rate(workers),
        )


def collection_seconds(data: Path) -> tuple[float, float]:
    """Return the wall-clock seconds of collecting the full tier, and pytest's own of these."""
    wall, written = pytest_seconds(
        "--collect-only", "--bench-tier", "full", "--bench-data", str(data.absolute())
    )
    found = re.search(r"tests collected.* in ([0-9.]+)s", written)
    return wall, float(found[1]) if found else float("nan")


def efficiencies(rounds: dict[int, list[Round]]) -> list[dict[str, Any]]:
    """Return a row a number of workers; efficiencies are those of neighbours in time."""
    table = []
    for workers, measured in rounds.items():
        neighbours = list(zip(rounds[1], measured, strict=True))
        efficiency = [alone.wall / (workers * many.wall) for alone, many in neighbours]
        products = [many.product_rate / alone.product_rate for alone, many in neighbours]
        table.append(
            {
                "workers": workers,
                "wall seconds, median": statistics.median(r.wall for r in measured),
                "efficiency (%)": 100 * statistics.median(efficiency),
                "lowest": 100 * min(efficiency),
                "highest": 100 * max(efficiency),
                "of matrix products (%)": 100 * statistics.median(products),
                "seconds beside the runs": statistics.median(
                    r.wall - r.runs / workers for r in measured
                ),
                "of these before and after the session": statistics.median(
                    r.wall - r.session for r in measured
                ),
                "rounds": len(measured),
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bench-data", type=Path, default=default_root(), help="the data root")
    parser.add_argument("--epochs", type=int, default=2, help="of each of the twelve runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("results/perf"))
    options = parser.parse_args()
    rounds: dict[int, list[Round]] = {n: [] for n in WORKERS if n <= available_cores()}
    for number in range(1, options.rounds + 1):
        for workers, measured in rounds.items():
            measured.append(session_round(workers, options.bench_data, options.epochs))
            print(f"round {number}: -n {workers}: {measured[-1].wall:.1f} s", flush=True)
    write_rows(efficiencies(rounds), "scaling", options.output)
    wall, collecting = collection_seconds(options.bench_data)
    print(f"\nfull tier: collected in {collecting:.2f} s, {wall:.1f} s with every import")


if __name__ == "__main__":
    main()
