"""Sessions of schema 1, as normbench 0.1 left them, in the terms of today's schema.

They held verdicts by case id, and the figures beside them in rounded tables alone.
"""

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.cases.case import CLAIMS, COMPARISON
from normbench.results import JUDGED, RunResult
from normbench.spec import RunSpec, configuration_label
from normbench.storage.documents import SESSION_SCHEMA
from normbench.storage.runs import RunStore


def upgraded(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return session.json of schema 1 in today's terms, with the tables of the folder.

    What no table held stays away: the contrasts of claims, and the intervals of a comparison.
    Raises ValueError, KeyError or OSError where the folder is not such a session's.
    """
    runs = RunStore(folder).results().values()
    tier = values.get("options", {}).get("tier", "standard")
    return {
        **{key: value for key, value in values.items() if key not in ("verdicts", "comparison")},
        "schema": SESSION_SCHEMA,
        "cases": [{**case, "tier": tier} for case in _cases(folder, list(runs))],
        "claims": list(_claims(folder, tier)),
        "comparison": _comparison(folder, values.get("comparison"), list(runs)),
    }


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows:
        raise ValueError(f"{file}: it is empty, and was written with a row at least")
    return rows


def _cases(folder: Path, runs: list[RunResult]) -> Iterator[dict[str, Any]]:
    """Yield each case with the runs that its table's row stands on."""
    for file in sorted((folder / "tables").glob("*.csv")):
        if file.stem in (COMPARISON, CLAIMS):
            continue
        for row in _rows(file):
            try:
                size, epochs = int(row["batch_size"]), int(row["epochs"])
                label = configuration_label(row["norm"], row["regularizer"], size)
                known = [
                    run
                    for run in sorted(runs, key=lambda run: run.spec.seed)
                    if (run.spec.dataset, run.spec.label, run.spec.epochs)
                    == (row["dataset"], label, epochs)
                ]
                finished = int(float(row["seeds"] or 0))
                published = _fraction(row["published_percent"])
                yield {
                    "grid": file.stem,
                    "spec": (known[0].spec if known else _spec_of_names(row)).to_dict(),
                    "target": _fraction(row["target_percent"]) or 0.0,
                    "seeds": _seeds(known, finished),
                    "published": published
                    and {"test_accuracy": published, "tolerance": 0.0, "table": ""},
                    # a marginal case is "passed" in session.json
                    "verdict": row["verdict"],
                    "runs": finished,
                    "test_accuracy": _fraction(row["test_accuracy_percent"]),
                    "margin_of_error": _fraction(row["interval_points"]),
                }
            except KeyError as error:
                raise ValueError(f"{file}: the column {error} is missing") from error


def _seeds(runs: Sequence[RunResult], finished: int) -> int:
    """Return how many of the runs, from the first seed on, hold those that ended well.

    There may be more: a claim has runs of the same configuration, of further seeds.
    """
    ended_well = itertools.accumulate(run.status == "ok" for run in runs)
    return next((n for n, found in enumerate(ended_well, 1) if found == finished), len(runs) or 1)


def _spec_of_names(row: Mapping[str, str]) -> RunSpec:
    """Return the spec of a case that was never run, as far as its row tells."""
    return RunSpec(
        row["dataset"],
        network="",
        norm=row["norm"],
        regularizer=row["regularizer"],
        batch_size=int(row["batch_size"]),
        epochs=int(row["epochs"]),
        recipe="",
    )


def _fraction(percent: str) -> float | None:
    if not percent or math.isnan(value := float(percent)):
        return None
    return value / 100


def _claims(folder: Path, tier: str) -> Iterator[dict[str, Any]]:
    """Yield each claim of the table once; what it stood on was kept as a text only."""
    told: set[str] = set()
    for row in _rows(folder / "tables" / f"{CLAIMS}.csv"):
        if row["claim"] in told:
            continue
        told.add(row["claim"])
        yield {
            "name": row["claim"],
            "statement": row["statement"],
            "source": row["source"],
            "tier": tier,
            "expected": row["expected"].split(" or ") if row["expected"] else list(JUDGED),
            "seeds": int(float(row["seeds"] or 0)),
            "verdict": row["verdict"].removesuffix(" (!)"),
        }


def _comparison(
    folder: Path, stored: Mapping[str, Any] | None, runs: list[RunResult]
) -> dict[str, Any] | None:
    """Return the comparison, with as many accuracies as there were runs, all at their mean."""
    if stored is None:
        return None
    specs = {run.spec.title: run.spec.with_seed(0) for run in runs}
    rows = {row["case"]: row for row in _rows(folder / "tables" / f"{COMPARISON}.csv")}

    def accuracies(title: str, side: str) -> list[float]:
        row = rows.get(title, {})
        mean = _fraction(row.get(f"{side}_percent", ""))
        return [mean] * int(float(row[f"{side}_runs"])) if mean is not None else []

    return {
        "baseline": stored["baseline"],
        "speed": stored.get("speed"),
        "cases": [
            {
                "spec": specs[case["case"]].to_dict(),
                "outcome": case["outcome"],
                "adjusted_p": case.get("adjusted_p"),
                "reason": case.get("reason", ""),
                "before": accuracies(case["case"], "baseline"),
                "now": accuracies(case["case"], "now"),
            }
            for case in stored["cases"]
            # a case of the baseline alone left no row to know its spec by
            if case["case"] in specs
        ],
    }
