"""Compare the training loop with its peers: same network, images, batch size, recipe and epochs.

    python perf/peers.py --bench-data DIR

Training images a second, of epochs that end with an evaluation, in alternating rounds. Needs the
extra `perf`. Nothing else should run on the machine meanwhile.
"""

import argparse
import importlib.util
import itertools
import statistics
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contenders import Engine, Measurement, Workload, keras, lightning, textbook
from rows import write_rows

from normbench.training.datasets import default_root


def contenders(workload: Workload) -> Iterator[tuple[str, Callable[[], Measurement]]]:
    """Yield each contender's name and what runs a round of it."""
    yield "normbench -n 2", Engine(workload, 2).round
    yield "normbench -n 1", Engine(workload, 1).round
    for workers in (0, 2):
        yield f"textbook loop, {workers} loader workers", lambda w=workers: textbook(workload, w)
    yield "Lightning, 2 loader workers", lambda: lightning(workload, 2)
    yield "Keras 3 on torch, 2 loader workers", lambda: keras(workload, 2)


def compare(workload: Workload, rounds: int) -> list[dict[str, Any]]:
    """Run all contenders in turn, ``rounds`` times; return a row each.

    The ratio of a round is that of two neighbours in time, so that a machine whose speed drifts
    moves both of its sides.
    """
    entries = list(contenders(workload))
    speeds: dict[str, list[float]] = {name: [] for name, _ in entries}
    for number, (name, run) in itertools.product(range(1, rounds + 1), entries):
        speeds[name].append(run().images_a_second)
        print(f"round {number}: {name}: {speeds[name][-1]:,.0f} images a second", flush=True)
    fastest = speeds["normbench -n 2"]
    rows = []
    for name, values in speeds.items():
        ratios = [ours / theirs for ours, theirs in zip(fastest, values, strict=True)]
        rows.append(
            {
                "contender": name,
                "images a second, median": statistics.median(values),
                "normbench -n 2 is faster by": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "rounds": len(values),
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw a bar a contender, with the median written at its end."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = [row["contender"] for row in rows][::-1]
    values = [row["images a second, median"] for row in rows][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1), layout="constrained")
    colors = ["#0072b2" if name.startswith("normbench") else "#999999" for name in names]
    bars = axes.barh(names, values, color=colors)
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
    axes.set_xlabel("training images a second, median of the rounds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bench-data", type=Path, default=default_root(), help="the data root")
    parser.add_argument("--norm", default="group:2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=60_000, help="of each epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--l1", type=float, default=1e-5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("results/perf"))
    options = parser.parse_args()
    if missing := [name for name in ("lightning", "keras") if not importlib.util.find_spec(name)]:
        parser.error(f"{' and '.join(missing)} not installed: pip install -e '.[perf]'")
    warnings.simplefilter("ignore")
    workload = Workload(
        options.bench_data,
        options.norm,
        options.batch_size,
        options.images,
        options.epochs,
        options.l1,
    )
    rows = compare(workload, options.rounds)
    write_rows(rows, "peers", options.output)
    draw(rows, options.output / "peers.png")


if __name__ == "__main__":
    main()
