"""Tell where B is worse than A.

Each is the folder of a session, the file of a baseline, or the name of one. Exits with 1 if a case
is worse, and with 2 if one of the two cannot be read.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from normbench.plugin.options import parse_points

HELP = "tell where session B is worse than A"


def add_arguments(command: argparse.ArgumentParser) -> None:
    side = "a session's folder, a baseline's file, or its name"
    command.add_argument("before", metavar="A", help=f"what is compared with: {side}")
    command.add_argument("now", metavar="B", help=f"what is compared: {side}")
    command.add_argument(
        "--minimum-effect",
        type=parse_points,
        metavar="POINTS",
        help="how many percentage points a mean must differ to matter (default: by data set, as "
        "for --bench-minimum-effect)",
    )
    command.add_argument(
        "--json", action="store_true", help="print a JSON object in place of the table"
    )
    add_results(command)


def add_results(command: argparse.ArgumentParser) -> None:
    """Add the option that says where baselines are looked for by name."""
    command.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="the folder whose reference/ holds baselines (default: results)",
    )


def main(options: argparse.Namespace) -> int:
    from normbench.analysis.comparison import compare
    from normbench.storage.baseline import find_baseline

    folder = options.results / "reference"
    before, now = (find_baseline(text, folder) for text in (options.before, options.now))
    comparison = compare(before, now, options.minimum_effect)
    if options.json:
        print(json.dumps(_document(comparison, now.name), indent=1))
    else:
        from normbench.report.tables import terminal_comparison

        print(terminal_comparison(comparison))
    return 1 if comparison.regressions else 0


def _document(comparison: Any, now: str) -> dict[str, Any]:
    """Return what session.json keeps of a comparison, with names, counts and differences."""
    stored = comparison.to_stored().model_dump(mode="json")
    for row, case in zip(stored["cases"], comparison.cases, strict=True):
        known = bool(case.before and case.now)
        row["case"] = case.spec.title
        row["difference"] = case.difference.value if known else None
        known = known and case.variance.known
        row["margin_of_error"] = case.difference.margin_of_error(0.025) if known else None
    counts: dict[str, int] = {}
    for case in comparison.cases:
        counts[case.outcome] = counts.get(case.outcome, 0) + 1
    return {"now": now, "counts": counts, **stored}
