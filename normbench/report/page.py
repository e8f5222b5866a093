"""Sessions as one page: verdicts, tables, curves, mistakes, activations, history."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from normbench.analysis.comparison import TOLD
from normbench.analysis.spread import variances
from normbench.analysis.statistics import Estimate
from normbench.cases.claims import CLAIMS
from normbench.report.figures import CURVES, STATISTICS, draw_figures
from normbench.report.gallery import first_seeds, mistakes, needed_images, pictures
from normbench.report.summary import NOT_FAILED, verdict_counts
from normbench.report.tables import COLUMNS, COMPARISON, figure
from normbench.results import Epoch, Outcome, RunResult, by_configuration
from normbench.spec import RunSpec, counted_epochs
from normbench.storage.history import history
from normbench.storage.runs import RunStore
from normbench.storage.session import write_atomic
from normbench.training.datasets import DATASETS
from normbench.training.probes import WEIGHT_EDGES

# What stands in the page's table; the CSV files have every column.
SHOWN = (
    "dataset",
    "norm",
    "regularizer",
    "batch_size",
    "seeds",
    "test_accuracy_percent",
    "interval_points",
    "best_test_accuracy_percent",
    "train_accuracy_percent",
    "test_loss",
    "parameters",
    "epochs",
    "seconds",
    "target_percent",
    "verdict",
    "published_percent",
    "difference_points",
)

FILTERED = ("session", "dataset", "norm", "regularizer", "batch_size", "verdict")
HEADINGS = {name: heading for name, (heading, _) in COLUMNS.items()} | {"session": "session"}
FORMATS = {name: kind for name, (_, kind) in COLUMNS.items()} | {"session": "d"}


class ReportError(ValueError):
    """A folder that no report can be drawn from."""


@dataclass(frozen=True)
class StoredSession:
    """A session as its folder holds it."""

    folder: Path
    document: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    comparison: pd.DataFrame | None
    claims: pd.DataFrame | None
    results: Sequence[RunResult]

    @classmethod
    def read(cls, folder: Path) -> "StoredSession":
        """Read a folder; raises ReportError where it is not that of a session that has ended."""
        try:
            document = json.loads((folder / "session.json").read_text(encoding="utf-8"))
            stored = sorted((folder / "tables").glob("*.csv"))
            tables = {file.stem: pd.read_csv(file) for file in stored}
            results = list(RunStore(folder).results().values())
        except (OSError, ValueError) as error:
            raise ReportError(
                f"cannot read the session {folder}: {error}; expected a folder with session.json, "
                "runs.jsonl and tables"
            ) from error
        compared, claims = tables.pop(COMPARISON, None), tables.pop(CLAIMS, None)
        if not tables and claims is None:
            raise ReportError(f"{folder} has no tables: the session has not ended, or ran no case")
        return cls(folder, document, tables, compared, claims, results)


def write_report(*folders: Path) -> Path:
    """Draw a page from what sessions have stored: one file, which opens without a network.

    Of one session it is ``report.html`` in its folder; of several, side by side, it is
    ``side-by-side.html`` in the last one's. Raises ReportError where a folder is not that of a
    session that has ended.
    """
    sessions = [StoredSession.read(folder.resolve()) for folder in folders]
    page = (
        _environment()
        .get_template("report.html")
        .render(
            sessions=[_head(s, str(n)) for n, s in enumerate(sessions, start=1)],
            data=_json(_data(sessions)),
            **_cases(sessions),
        )
    )
    last = sessions[-1]
    file = last.folder / ("report.html" if len(sessions) == 1 else "side-by-side.html")
    write_atomic(file, page)
    return file


def write_figures(folder: Path) -> list[Path]:
    """Draw the figures of a session's report into ``folder/figures``; return the files.

    Raises as write_report does.
    """
    session = StoredSession.read(folder.resolve())
    data, _ = _figure_data([session])
    return draw_figures(session.folder / "figures", data, session.tables)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("normbench.report", "assets"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    page = files("normbench.report") / "assets"
    for name, file in (("style", "report.css"), ("script", "report.js")):
        environment.globals[name] = Markup((page / file).read_text(encoding="utf-8"))
    return environment


def _json(value: Any) -> Markup:
    """Return JSON that can stand in a script element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _head(session: StoredSession, number: str) -> dict[str, Any]:
    """Return what stands at the page's top, and what is told of claims and baseline.

    Side by side, sessions are known by their number.
    """
    told = _claims(session.claims)
    counts = verdict_counts(session.tables)
    return {
        **session.document,
        "number": number,
        "runs": len(session.results),
        "core_seconds": sum(run.cpu_seconds for run in session.results),
        "counts": [(v, n, v not in NOT_FAILED) for v, n in counts.items()],
        "claims": told,
        "claim_counts": Counter(head["verdict"] for head, _ in told),
        "comparison": _comparison(session.document.get("comparison"), session.comparison),
    }


def _cases(sessions: Sequence[StoredSession]) -> dict[str, Any]:
    """Return the table of all cases, each cell as shown and as sorted, and the heat maps."""
    tables = [
        (number, grid, table.assign(session=number))
        for number, session in enumerate(sessions, start=1)
        for grid, table in session.tables.items()
    ]
    shown = SHOWN if len(sessions) == 1 else ("session", *SHOWN)
    columns = [name for name in shown if any(t[name].notna().any() for *_, t in tables)]
    rows = [
        {
            "cells": [(figure(row[n], FORMATS[n]), _sort_key(row[n])) for n in columns],
            "failed": row["verdict"] not in NOT_FAILED,
        }
        for *_, table in tables
        for row in table.to_dict("records")
    ]
    heat_maps = [
        (
            grid if len(sessions) == 1 else f"{grid}, session {number}",
            [_heat_map(table, int(size)) for size in sorted(table["batch_size"].unique())],
        )
        for number, grid, table in tables
    ]
    return {
        "headings": [HEADINGS[name] for name in columns],
        "numeric": [FORMATS[name] != "s" for name in columns],
        "filters": [(HEADINGS[n], columns.index(n)) for n in FILTERED if n in columns],
        "rows": rows,
        "heat_maps": heat_maps,
    }


def _sort_key(value: Any) -> Any:
    return "" if pd.isna(value) else value


def _heat_map(table: pd.DataFrame, batch_size: int) -> dict[str, Any]:
    """Return norms down, regularizers across, with each cell's rank from 0 (worst) to 1."""
    part = table[table["batch_size"] == batch_size]
    accuracy = part.set_index(["norm", "regularizer"])["test_accuracy_percent"]
    ranks = accuracy.rank(pct=True)

    def cell(key: tuple[str, str]) -> tuple[str, float]:
        if key not in accuracy.index or pd.isna(accuracy[key]):
            return "", 0.0
        return f"{accuracy[key]:.2f}", float(ranks[key])

    norms = list(dict.fromkeys(part["norm"]))
    regularizers = list(dict.fromkeys(part["regularizer"]))
    return {
        "batch_size": batch_size,
        "regularizers": regularizers,
        "rows": [(norm, [cell((norm, r)) for r in regularizers]) for norm in norms],
    }


def _comparison(
    stored: Mapping[str, Any] | None, table: pd.DataFrame | None
) -> dict[str, Any] | None:
    """Return the baseline's name, the speed, how many cases came out how, and those to look at."""
    if stored is None or table is None:
        return None
    counts = table["outcome"].value_counts()
    return {
        "baseline": stored["baseline"],
        "speed": stored["speed"],
        "counts": {str(o): int(counts[o]) for o in Outcome if o in counts},
        "rows": table[table["outcome"].isin(TOLD)].to_dict("records"),
    }


def _claims(table: pd.DataFrame | None) -> list[tuple[Any, list[Any]]]:
    """Return each claim with what it stands on."""
    if table is None:
        return []
    return [
        (part.iloc[0].to_dict(), part[part["subject"].notna()].to_dict("records"))
        for _, part in table.groupby("claim", sort=False)
    ]


def _data(sessions: Sequence[StoredSession]) -> dict[str, Any]:
    """Return what the page's script draws."""
    data, runs = _figure_data(sessions)
    groups = _galleries(runs)
    root = Path(sessions[-1].document["options"]["data"])
    return {
        **data,
        "galleries": groups,
        "pictures": {
            name: dataclasses.asdict(
                pictures(name, needed_images(g for g in groups if g["dataset"] == name), root)
            )
            for name in data["classes"]
        },
        "history": _history(sessions[-1]),
    }


NamedRuns = list[tuple[RunSpec, str, list[RunResult]]]


def _figure_data(sessions: Sequence[StoredSession]) -> tuple[dict[str, Any], NamedRuns]:
    """Return what the figures show as well, and each configuration's runs by their line's name."""
    runs: NamedRuns = []
    sizes: list[dict[str, Any]] = []
    # longest runs come first in a session; a page begins with what is plainest, norms in the
    # order of the grids
    norms = [norm for s in sessions for table in s.tables.values() for norm in table["norm"]]
    rank = {norm: place for place, norm in enumerate(dict.fromkeys(norms))}

    def order(spec: RunSpec) -> tuple[Any, ...]:
        return (spec.dataset, spec.l1, spec.l2, spec.batch_size, rank.get(spec.norm, len(rank)))

    for number, session in enumerate(sessions, start=1):
        mark = f" ({number})" if len(sessions) > 1 else ""
        finished = by_configuration(run for run in session.results if run.status == "ok")
        found = {spec: finished[spec] for spec in sorted(finished, key=order)}
        sizes += _sizes(found, mark)
        runs += [(spec, spec.norm + mark, results) for spec, results in found.items()]
    data = {
        "runs": [_configuration(*run) for run in runs],
        "sizes": sizes,
        "published": _published_sizes(),
        "edges": [round(edge, 9) for edge in WEIGHT_EDGES],
        "classes": {spec.dataset: DATASETS[spec.dataset].classes for spec, _, _ in runs},
    }
    return data, runs


def _setting(spec: RunSpec) -> str:
    """Return what configurations must have in common to stand in one figure."""
    part = f" of {spec.train_images:,} images" if spec.train_images else ""
    return f"{spec.dataset}, {counted_epochs(spec.epochs)}{part}"


def _configuration(spec: RunSpec, line: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    """Return a configuration's curves by seed, and its confusions and weights over all seeds."""

    def curve(name: str, epochs: Sequence[Epoch]) -> list[float]:
        return [round(getattr(epoch, name), 5) for epoch in epochs]

    classes = range(len(runs[0].confusion))
    return {
        "setting": _setting(spec),
        "dataset": spec.dataset,
        "line": line,
        "norm": spec.norm,
        "regularizer": spec.regularizer,
        "batch_size": spec.batch_size,
        "curves": {name: [curve(name, run.epochs) for run in runs] for name in CURVES},
        "confusion": [
            [sum(run.confusion[true][predicted] for run in runs) for predicted in classes]
            for true in classes
        ],
        "seeds": len(runs),
        "activations": {
            layer.layer: {
                name: [float(f"{value:.4g}") for value in getattr(layer, name)]
                for name in STATISTICS
            }
            for layer in first_seeds(runs).activations
        },
        "weights": [sum(counts) for counts in zip(*(run.weights for run in runs), strict=False)],
    }


def _sizes(found: Mapping[RunSpec, Sequence[RunResult]], mark: str) -> list[dict[str, Any]]:
    """Return, of each norm, accuracy by batch size with half a 95 % interval."""
    samples = {spec: [run.test_accuracy for run in runs] for spec, runs in found.items()}
    spread = variances(samples)
    lines: dict[tuple[str, str, str], list[list[float | None]]] = {}
    for spec in samples:
        mean = Estimate.mean(samples[spec], spread[spec])
        reach = round(100 * mean.margin_of_error(0.025), 3) if spread[spec].known else None
        key = (_setting(spec), spec.regularizer, spec.norm)
        lines.setdefault(key, []).append([spec.batch_size, round(100 * mean.value, 3), reach])
    return [
        {
            "setting": setting,
            "regularizer": regularizer,
            "line": norm + mark,
            "points": points,
        }
        for (setting, regularizer, norm), points in lines.items()
        if len(points) > 1
    ]


def _published_sizes() -> dict[str, list[list[float]]]:
    """Return the accuracies that the paper of group normalization has by batch size."""
    text = (files("normbench.report") / "assets" / "groupnorm_paper.csv").read_text(
        encoding="utf-8"
    )
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row.pop("norm"): sorted(
            [int(size), round(100 - float(error), 1)] for size, error in row.items()
        )
        for row in rows
    }


def _galleries(runs: Iterable[tuple[RunSpec, str, Sequence[RunResult]]]) -> list[dict[str, Any]]:
    """Return the wrong images of each regularizer and batch size, by norm: those of one seed."""
    groups: dict[tuple[str, str, str, int], dict[str, RunResult]] = {}
    for spec, line, results in runs:
        key = (spec.dataset, _setting(spec), spec.regularizer, spec.batch_size)
        groups.setdefault(key, {})[line] = first_seeds(results)
    return [
        {
            "dataset": dataset,
            "setting": setting,
            "regularizer": regularizer,
            "batch_size": batch_size,
            **mistakes(by_line),
        }
        for (dataset, setting, regularizer, batch_size), by_line in groups.items()
    ]


def _history(session: StoredSession) -> list[dict[str, Any]]:
    """Return the cases' accuracies over sessions, with the band in which the baseline is met."""
    bands: dict[str, list[float]] = {}
    if session.comparison is not None:
        for row in session.comparison.to_dict("records"):
            middle, reach = row["baseline_percent"], row["interval_points"]
            if not (pd.isna(middle) or pd.isna(reach)):
                bands[row["case"]] = [round(middle - reach, 3), round(middle + reach, 3)]
    return [{**case, "band": bands.get(case["title"])} for case in history(session.folder)]
