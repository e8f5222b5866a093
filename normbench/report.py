"""A session as one page: verdicts, a table to sort and filter, curves, heat maps, confusions."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from normbench.claims import CLAIMS
from normbench.comparison import TOLD, Outcome
from normbench.results import Epoch, RunResult, by_configuration
from normbench.session import write_whole
from normbench.spec import RunSpec
from normbench.store import RunStore
from normbench.summary import NOT_FAILED, verdict_counts
from normbench.tables import COLUMNS, COMPARISON, figure

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

FILTERED = ("dataset", "norm", "regularizer", "batch_size", "verdict")
CURVES = ("test_accuracy", "train_accuracy", "test_loss", "train_loss")


class ReportError(ValueError):
    """A folder that no report can be drawn from."""


def write_report(folder: Path) -> Path:
    """Draw ``report.html`` from what a session has stored in ``folder``: one file, no network.

    Raises ReportError where the folder is not that of a session that has ended.
    """
    try:
        session = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        files = sorted((folder / "tables").glob("*.csv"))
        tables = {file.stem: pd.read_csv(file) for file in files}
        results = list(RunStore(folder).results().values())
    except (OSError, ValueError) as error:
        raise ReportError(
            f"cannot read the session {folder}: {error}; expected a folder with session.json, "
            "runs.jsonl and tables"
        ) from error
    compared, claims = tables.pop(COMPARISON, None), tables.pop(CLAIMS, None)
    if not tables and claims is None:
        raise ReportError(f"{folder} has no tables: the session has not ended, or ran no case")
    page = (
        _environment()
        .get_template("report.html")
        .render(
            session=session,
            machine=session["environment"],
            cost={"runs": len(results), "core_seconds": sum(run.cpu_seconds for run in results)},
            counts=[(v, n, v not in NOT_FAILED) for v, n in verdict_counts(tables).items()],
            comparison=_comparison(session.get("comparison"), compared),
            claims=(told := _claims(claims)),
            claim_counts=Counter(head["verdict"] for head, _ in told),
            data=_json({"runs": _runs(results)}),
            **_cases(tables),
        )
    )
    write_whole(folder / "report.html", page)
    return folder / "report.html"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("normbench", "."),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    return environment


def _json(value: Any) -> Markup:
    """Return JSON that can stand in a script element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _cases(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the table of all cases, each cell as shown and as sorted, and the heat maps."""
    columns = [name for name in SHOWN if any(t[name].notna().any() for t in tables.values())]
    rows = [
        {
            "cells": [(figure(row[n], COLUMNS[n][1]), _sort_key(row[n])) for n in columns],
            "failed": row["verdict"] not in NOT_FAILED,
        }
        for table in tables.values()
        for row in table.to_dict("records")
    ]
    heat_maps = {
        grid: [_heat_map(table, int(size)) for size in sorted(table["batch_size"].unique())]
        for grid, table in tables.items()
    }
    return {
        "headings": [COLUMNS[name][0] for name in columns],
        "numeric": [COLUMNS[name][1] != "s" for name in columns],
        "filters": [(COLUMNS[n][0], columns.index(n)) for n in FILTERED if n in columns],
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


def _runs(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Return, of each configuration, its curves by seed and its confusion matrix over all seeds."""
    found = by_configuration(result for result in results if result.status == "ok")
    # longest runs come first in a session; a page begins with what is plainest
    ordered = sorted(found, key=lambda s: (s.dataset, s.l1, s.l2, s.batch_size))
    return [_configuration(spec, found[spec]) for spec in ordered]


def _configuration(spec: RunSpec, runs: Sequence[RunResult]) -> dict[str, Any]:
    def curve(name: str, epochs: Sequence[Epoch]) -> list[float]:
        return [round(getattr(epoch, name), 5) for epoch in epochs]

    classes = range(len(runs[0].confusion))
    return {
        "dataset": spec.dataset,
        "norm": spec.norm,
        "regularizer": spec.regularizer.name,
        "batch_size": spec.batch_size,
        "curves": {name: [curve(name, run.epochs) for run in runs] for name in CURVES},
        "confusion": [
            [sum(run.confusion[true][predicted] for run in runs) for predicted in classes]
            for true in classes
        ],
        "seeds": len(runs),
    }
