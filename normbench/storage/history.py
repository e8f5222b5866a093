"""How a case's accuracy went over the stored sessions."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from normbench.spec import case_title, configuration_label

# Sessions looked at, the newest: a nightly of two months.
SESSIONS = 60

IDENTITY = ["dataset", "norm", "regularizer", "batch_size", "epochs"]


def history(folder: Path) -> list[dict[str, Any]]:
    """Return, of each case of the session in ``folder``, its accuracy in it and before.

    Cases that only this session has are left out. A session that cannot be read is passed over:
    another version, or another program, may have left it.
    """
    newest = sorted(f for f in folder.parent.iterdir() if f.name <= folder.name)[-SESSIONS:]
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for session in newest:
        for case, point in _points(session):
            points.setdefault(case, []).append(point)
    here = {case for case, _ in _points(folder)}
    return [
        {"case": name, "title": title, "points": found}
        for (name, title), found in points.items()
        if (name, title) in here and len(found) > 1
    ]


def _points(folder: Path) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield each case of a session with its accuracy, and what it was measured with.

    A case is known by a name that no other case has, and by the title that baselines know it by.
    """
    try:
        session = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        tables = {file.stem: pd.read_csv(file) for file in (folder / "tables").glob("*.csv")}
        environment: Mapping[str, Any] = session["environment"]
        head = {
            "session": session["session"],
            "started": session["started"],
            "commit": environment["commit"],
            "torch": environment["torch"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return
    for grid, table in sorted(tables.items()):
        if not {*IDENTITY, "test_accuracy_percent", "interval_points"} <= set(table.columns):
            continue
        for row in table[table["test_accuracy_percent"].notna()].to_dict("records"):
            label = configuration_label(row["norm"], row["regularizer"], row["batch_size"])
            title = case_title(row["dataset"], label, row["epochs"])
            interval = row["interval_points"]
            yield (
                (f"{grid}: {title}", title),
                {
                    **head,
                    "accuracy": round(row["test_accuracy_percent"], 3),
                    "interval": None if pd.isna(interval) else round(interval, 3),
                    "seeds": int(row["seeds"]),
                },
            )
