"""Result tables: a row a case, in markdown, CSV and the terminal."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from normbench.cases import Case
from normbench.results import RunResult, Runs
from normbench.session import Session, write_whole

# A column's heading in CSV, in markdown, and its number format.
COLUMNS: dict[str, tuple[str, str]] = {
    "dataset": ("data set", "s"),
    "norm": ("norm", "s"),
    "regularizer": ("regularizer", "s"),
    "batch_size": ("batch size", "d"),
    "seeds": ("seeds", "d"),
    "test_accuracy_percent": ("test accuracy, last epoch (%)", ".2f"),
    "test_accuracy_std_percent": ("std over seeds", ".2f"),
    "best_test_accuracy_percent": ("best epoch (%)", ".2f"),
    "train_accuracy_percent": ("train accuracy (%)", ".2f"),
    "test_loss": ("test loss", ".4f"),
    "train_loss": ("train loss", ".4f"),
    "parameters": ("parameters", "d"),
    "epochs": ("epochs", "d"),
    "seconds": ("seconds a run", ".1f"),
    "cpu_seconds": ("core-seconds a run", ".1f"),
    "target_percent": ("target (%)", ".2f"),
    "verdict": ("verdict", "s"),
    "published_percent": ("published best (%)", ".2f"),
    "difference_points": ("our best less published", "+.2f"),
}

# What stands in the terminal, under shorter headings: 118 characters, 134 with published figures.
TERMINAL: dict[str, str] = {
    "norm": "norm",
    "regularizer": "regularizer",
    "batch_size": "batch",
    "seeds": "n",
    "test_accuracy_percent": "test %",
    "best_test_accuracy_percent": "best %",
    "train_accuracy_percent": "train %",
    "test_loss": "loss",
    "parameters": "params",
    "epochs": "ep",
    "seconds": "s",
    "target_percent": "target",
    "verdict": "verdict",
    "published_percent": "publ.",
    "difference_points": "diff",
}


def case_row(case: Case, runs: Runs, verdict: str) -> dict[str, Any]:
    """Return a case's row; figures are means over the runs that ended well, None without any."""
    spec = case.spec
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "dataset": spec.dataset,
        "norm": spec.norm,
        "regularizer": spec.regularizer.name,
        "batch_size": spec.batch_size,
        "epochs": spec.epochs,
        "target_percent": 100 * case.target,
        "verdict": verdict,
    }
    if case.published is not None:
        row["published_percent"] = 100 * case.published.test_accuracy
    finished = Runs.of(result for result in runs if result.status == "ok")
    row["seeds"] = len(finished)
    if len(finished):
        row |= _figures(finished)
        if case.published is not None:
            row["difference_points"] = row["best_test_accuracy_percent"] - row["published_percent"]
    return row


def _figures(runs: Runs) -> dict[str, Any]:
    accuracies = pd.Series([100 * result.test_accuracy for result in runs])
    return {
        "test_accuracy_percent": accuracies.mean(),
        "test_accuracy_std_percent": accuracies.std() if len(runs) > 1 else None,
        "best_test_accuracy_percent": 100 * runs.best_test_accuracy,
        "train_accuracy_percent": 100 * runs.mean("train_accuracy"),
        "test_loss": runs.mean("test_loss"),
        "train_loss": runs.mean("train_loss"),
        "parameters": next(iter(runs)).parameters,
        "seconds": runs.mean("train_seconds") + runs.mean("test_seconds"),
        "cpu_seconds": runs.mean("cpu_seconds"),
    }


def case_tables(
    cases: Iterable[Case], results: Mapping[str, RunResult], verdicts: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """Return a table a grid, of the cases that have a verdict, ordered as the grid is."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        if case.id in verdicts:
            stored = Runs.of(results[s.key] for s in case.specs if s.key in results)
            rows.setdefault(case.grid, []).append(case_row(case, stored, verdicts[case.id]))
    return {
        grid: pd.DataFrame(grid_rows, columns=list(COLUMNS)) for grid, grid_rows in rows.items()
    }


def _cells(table: pd.DataFrame, columns: Iterable[str]) -> list[list[str]]:
    """Return the formatted cells; an absent figure is an empty one."""
    formats = {name: COLUMNS[name][1] for name in columns}

    def cell(name: str, value: Any) -> str:
        if pd.isna(value):
            return ""
        kind = formats[name]
        return format(int(value) if kind == "d" else value, kind)

    return [
        [cell(name, value) for name, value in zip(formats, row, strict=True)]
        for row in table[list(formats)].itertuples(index=False)
    ]


def _alignment(columns: Iterable[str]) -> list[str]:
    return ["left" if COLUMNS[name][1] == "s" else "right" for name in columns]


def terminal_table(table: pd.DataFrame) -> str:
    """Return the columns that fit into a terminal, leaving out those without a figure."""
    columns = [name for name in TERMINAL if not table[name].isna().all()]
    return tabulate(
        _cells(table, columns),
        headers=[TERMINAL[name] for name in columns],
        tablefmt="simple",
        colalign=_alignment(columns),
        disable_numparse=True,
    )


def markdown_table(table: pd.DataFrame) -> str:
    """Return all columns that have a figure, as a table of GitHub's markdown."""
    columns = [name for name in COLUMNS if not table[name].isna().all()]
    return tabulate(
        # a user's norm may hold what markdown would read as the end of a cell
        [[cell.replace("|", "\\|") for cell in row] for row in _cells(table, columns)],
        headers=[COLUMNS[name][0] for name in columns],
        tablefmt="pipe",
        colalign=_alignment(columns),
        disable_numparse=True,
    )


def provenance(session: Session) -> str:
    """Say in a paragraph of markdown where and when the figures were measured."""
    e = session.environment
    machine = ", ".join([f"{e['processor']} ({e['cores']} cores)", *e["gpus"]])
    return (
        f"Generated by the session {session.name} on {machine}, {session.workers} workers; "
        f"Python {e['python']}, torch {e['torch']}, torchvision {e['torchvision']}, "
        f"commit {e['commit']}. "
        "Accuracies are means over the seeds; seconds are wall-clock, evaluation included. "
        "Published figures are their authors' best test epoch of one run."
    )


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame], session: Session) -> None:
    """Write ``folder/<grid>.md`` and ``folder/<grid>.csv`` for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    for grid, table in tables.items():
        text = f"# {grid}\n\n{provenance(session)}\n\n{markdown_table(table)}\n"
        write_whole(folder / f"{grid}.md", text)
        write_whole(folder / f"{grid}.csv", table.to_csv(index=False))
