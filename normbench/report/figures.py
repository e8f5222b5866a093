"""The report's figures as PNG and SVG, for papers and slides."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from normbench.report.styles import LineStyle, norm_style, regularizer_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: a page of two columns. Text of 7 points stays legible at that width.
WIDTH = 7.2
# Panels side by side, of confusions and weights.
PANELS = 3
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
}
CURVES = {
    "test_accuracy": "test accuracy (%)",
    "train_accuracy": "training accuracy (%)",
    "test_loss": "test loss",
    "train_loss": "training loss",
}
STATISTICS = {
    "mean_before": "mean before",
    "std_before": "std before",
    "mean_after": "mean after",
    "std_after": "std after",
}

T = TypeVar("T")
Runs = Sequence[Mapping[str, Any]]


def draw_figures(
    folder: Path, data: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]
) -> list[Path]:
    """Draw what a report shows into ``folder``, each figure as .png and .svg; return the files.

    ``data`` is what the report's script draws, ``tables`` are the session's grids.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, rows, draw in (*_of_runs(data), *_of_tables(tables)):
            figure = Figure(figsize=(WIDTH, 0.4 + 1.6 * rows), layout="constrained")
            draw(figure)
            for kind in ("png", "svg"):
                file = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.{kind}"
                # without a date the same rows give the same file
                figure.savefig(file, dpi=150, metadata={"Date": None} if kind == "svg" else None)
                written.append(file)
    return written


Drawing = tuple[str, float, Callable[["Figure"], None]]


def _of_runs(data: Mapping[str, Any]) -> Iterator[Drawing]:
    """Yield the name, the number of rows and the drawing function of each figure of runs."""
    curves = [*data["runs"], *data["broken"]]
    for (setting, regularizer), runs in _grouped(curves, "setting", "regularizer"):
        sizes = sorted({run["batch_size"] for run in runs})
        name = f"curves {setting} {regularizer}"
        yield name, len(sizes), partial(_curves, runs=runs, sizes=sizes)
    for (setting, regularizer), found in _grouped(data["sizes"], "setting", "regularizer"):
        name = f"batch-size {setting} {regularizer}"
        yield name, 2, partial(_sizes, found=found, published=data["published"])
    for (setting,), runs in _grouped(data["runs"], "setting"):
        plain = _plainest(runs)
        classes = data["classes"][plain[0]["dataset"]]
        yield (
            f"confusion {setting}",
            1.4 * _rows(plain),
            partial(_confusions, runs=plain, classes=classes),
        )
        if layers := plain[0]["activations"]:
            draw = partial(_activations, runs=plain)
            yield f"activations {setting}", len(layers), draw
        if by_line := _grouped(_most_regularized([r for r in runs if r["weights"]]), "line"):
            draw = partial(_weights, by_line=by_line, edges=data["edges"])
            yield f"weights {setting}", _rows(by_line), draw


def _of_tables(tables: Mapping[str, pd.DataFrame]) -> Iterator[Drawing]:
    for grid, table in tables.items():
        yield f"accuracy {grid}", 1, partial(_heat_maps, table=table)


def _rows(panels: Sequence[object]) -> int:
    return math.ceil(len(panels) / PANELS)


def _grouped(items: Runs, *names: str) -> list[tuple[tuple[Any, ...], Runs]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault(tuple(item[name] for name in names), []).append(item)
    return list(groups.items())


def _plainest(runs: Runs) -> Runs:
    """Return the runs of the first regularizer, without any if there is such, at one batch size."""
    first = next((run for run in runs if run["regularizer"] == "none"), runs[0])
    same = ("regularizer", "batch_size")
    return [run for run in runs if all(run[name] == first[name] for name in same)]


def _most_regularized(runs: Runs) -> Runs:
    """Return the runs at the batch size that has the most regularizers, of several the smallest."""
    by_size = {size: same for (size,), same in _grouped(runs, "batch_size")}
    counts = {size: len({run["regularizer"] for run in same}) for size, same in by_size.items()}
    return by_size[min(counts, key=lambda size: (-counts[size], size))] if counts else []


def _style(style: LineStyle) -> dict[str, Any]:
    return {"color": style.colour, "linestyle": (0, style.dash) if style.dash else "-"}


def _bare(axes: "Axes", title: str = "", x_label: str = "") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=7)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.3, linewidth=0.4)


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=8, frameon=False)


def _curves(figure: "Figure", runs: Runs, sizes: Sequence[int]) -> None:
    grid = figure.subplots(len(sizes), len(CURVES), squeeze=False)
    for (row, size), (column, (name, title)) in itertools.product(
        enumerate(sizes), enumerate(CURVES.items())
    ):
        axes, scale = grid[row][column], 100 if name.endswith("accuracy") else 1
        drawn = []
        for run in (run for run in runs if run["batch_size"] == size):
            values = scale * pd.DataFrame(run["curves"][name])
            epochs = range(1, len(values.columns) + 1)
            style = _style(norm_style(run["norm"]))
            axes.plot(epochs, values.mean(), label=run["line"], **style)
            if len(values) > 1:
                axes.fill_between(
                    epochs, values.min(), values.max(), color=style["color"], alpha=0.15, lw=0
                )
            drawn.append(values)
        # the first epochs would press the rest together
        every = pd.concat(drawn).stack().dropna()
        low, high = np.quantile(every, (0.1, 1.0) if scale == 100 else (0.0, 0.9))
        room = 0.05 * (high - low) or 0.01
        axes.set_ylim(low - room, high + room)
        _bare(axes, "" if row else title, "epoch" if row == len(sizes) - 1 else "")
        if not column:
            axes.set_ylabel(f"batch size {size}")
    _legend(figure, grid[0][0])


def _sizes(
    figure: "Figure",
    found: Runs,
    published: Mapping[str, Sequence[Sequence[float]]],
) -> None:
    ours, theirs = figure.subplots(1, 2)
    for item in found:
        sizes, accuracies, reaches = zip(*item["points"], strict=True)
        known = None if any(reach is None for reach in reaches) else reaches
        style = _style(norm_style(item["norm"]))
        ours.errorbar(
            sizes, accuracies, known, label=item["line"], marker="o", ms=2, capsize=2, **style
        )
    for norm, points in published.items():
        style = _style(norm_style(norm))
        theirs.plot(*zip(*points, strict=True), label=norm, marker="o", ms=2, **style)
    theirs.legend(frameon=False)
    for axes, title in (
        (ours, "test accuracy (%)"),
        (theirs, "ResNet-50 on ImageNet (%; Wu and He, 2018)"),
    ):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        _bare(axes, title, "batch size")
    _legend(figure, ours)


def _confusions(figure: "Figure", runs: Runs, classes: Sequence[str]) -> None:
    panels = figure.subplots(_rows(runs), PANELS, squeeze=False)
    for axes, run in _panels(panels, runs):
        wrong = np.array(run["confusion"]) / run["seeds"]
        np.fill_diagonal(wrong, 0)
        axes.imshow(wrong, cmap="Blues")
        axes.set_title(f"{run['line']}: {wrong.sum():,.0f} wrong", fontsize=7)
        axes.set_xticks(range(len(classes)), classes, rotation=90 if len(classes[0]) > 1 else 0)
        axes.set_yticks(range(len(classes)), classes)
        axes.tick_params(labelsize=5, length=0)
    figure.suptitle(
        f"batch size {runs[0]['batch_size']}, regularizer {runs[0]['regularizer']}", fontsize=7
    )
    figure.supxlabel("predicted", fontsize=7)
    figure.supylabel("true", fontsize=7)


def _panels(grid: Any, items: Sequence[T]) -> list[tuple["Axes", T]]:
    """Pair panels with items, and remove those that are left over."""
    panels = list(grid.flat)
    for axes in panels[len(items) :]:
        axes.remove()
    return list(zip(panels, items, strict=False))


def _activations(figure: "Figure", runs: Runs) -> None:
    layers = list(runs[0]["activations"])
    grid = figure.subplots(len(layers), len(STATISTICS), squeeze=False)
    for (row, layer), (column, (name, title)) in itertools.product(
        enumerate(layers), enumerate(STATISTICS.items())
    ):
        axes = grid[row][column]
        for run in runs:
            values = run["activations"][layer][name]
            axes.plot(
                range(1, len(values) + 1),
                values,
                label=run["line"],
                **_style(norm_style(run["norm"])),
            )
        block = layer.removeprefix("blocks.").removesuffix(".norm")
        _bare(axes, f"{block}: {title}", "epoch" if row == len(layers) - 1 else "")
    _legend(figure, grid[0][0])


def _weights(
    figure: "Figure", by_line: Sequence[tuple[tuple[Any, ...], Runs]], edges: Sequence[float]
) -> None:
    # a bin stands at its lower edge, the smallest one below the first
    places = [edges[0] / 2, *edges]
    grid = figure.subplots(_rows(by_line), PANELS, sharey=True, squeeze=False)
    for axes, ((line,), runs) in _panels(grid, by_line):
        for run in runs:
            share = 100 * np.array(run["weights"]) / sum(run["weights"])
            name = run["regularizer"]
            axes.plot(places, share, label=name, **_style(regularizer_style(name)))
        axes.set_xscale("log")
        _bare(axes, f"{line}: share of the weights (%)", "size of a weight")
    _legend(figure, grid[0][0])


def _heat_maps(figure: "Figure", table: pd.DataFrame) -> None:
    sizes = sorted(table["batch_size"].unique())
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        part = table[table["batch_size"] == size]
        cells = part.pivot_table(
            "test_accuracy_percent", "norm", "regularizer", sort=False, dropna=False
        )
        # by rank: one collapsed case would leave the others one colour
        ranks = cells.stack().rank(pct=True).unstack()
        ranks = ranks.reindex(index=cells.index, columns=cells.columns)
        axes.imshow(ranks, cmap="Blues", vmin=0, vmax=2, aspect="auto")
        for (row, name), (column, regularizer) in itertools.product(
            enumerate(cells.index), enumerate(cells.columns)
        ):
            value = cells.loc[name, regularizer]
            text = "" if pd.isna(value) else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6)
        axes.set_xticks(range(len(cells.columns)), cells.columns, rotation=30, ha="right")
        axes.set_yticks(range(len(cells.index)), cells.index)
        axes.tick_params(labelsize=6, length=0)
        axes.set_title(f"test accuracy (%), batch size {size}", fontsize=7)
