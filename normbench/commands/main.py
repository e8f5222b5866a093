"""``python -m normbench``: what one asks of sessions that are over."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from normbench.analysis.comparison import compare
from normbench.plugin.options import parse_baseline_name, parse_points
from normbench.report.page import ReportError, write_figures, write_report
from normbench.report.tables import terminal_comparison
from normbench.storage.baseline import BaselineError, find_baseline, merge_baselines
from normbench.storage.session import latest_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m normbench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_compare(commands.add_parser("compare", help="tell where session B is worse than A"))
    _add_baseline(commands.add_parser("baseline", help="make a baseline of stored sessions"))
    _add_report(commands.add_parser("report", help="draw sessions as a page"))
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (BaselineError, ReportError) as error:
        print(f"normbench: {error}", file=sys.stderr)
        return 2


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Tell where B is worse than A, each a session's folder, a baseline's file or a name in "
        "results/reference. Exits with 1 if a case is worse, with 2 if one of the two cannot be "
        "read."
    )
    command.add_argument("before", metavar="A")
    command.add_argument("now", metavar="B")
    command.add_argument(
        "--minimum-effect",
        type=parse_points,
        metavar="POINTS",
        help="how many percentage points a mean must differ to matter",
    )
    _add_results(command)
    command.set_defaults(run=_compare)


def _add_results(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")


def _reference(options: argparse.Namespace) -> Path:
    return Path(options.results) / "reference"


def _compare(options: argparse.Namespace) -> int:
    folder = _reference(options)
    before, now = (find_baseline(text, folder) for text in (options.before, options.now))
    comparison = compare(before, now, options.minimum_effect)
    print(terminal_comparison(comparison))
    return 1 if comparison.regressions else 0


def _add_baseline(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Write results/reference/NAME.json from the runs of stored sessions, or of other "
        "baselines, which may be NAME itself: runs of further seeds (--bench-seeds 5:10) join "
        "those that are there."
    )
    command.add_argument("name", metavar="NAME", type=parse_baseline_name)
    command.add_argument("parts", metavar="SESSION", nargs="+")
    _add_results(command)
    command.set_defaults(run=_baseline)


def _baseline(options: argparse.Namespace) -> int:
    folder = _reference(options)
    baseline = merge_baselines(
        options.name, [find_baseline(text, folder) for text in options.parts]
    )
    file = folder / f"{options.name}.json"
    baseline.write(file)
    runs = sum(len(case.runs) for case in baseline.cases.values())
    print(f"{file}: {len(baseline.cases)} cases, {runs} runs")
    return 0


def _add_report(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Draw a session's report.html and figures again, from what it has stored, or several "
        "sessions side by side, as side-by-side.html in the folder of the last one."
    )
    command.add_argument(
        "sessions",
        metavar="SESSION",
        nargs="*",
        type=Path,
        default=[latest_session(Path("results"))],
        help="a session's folder (default: results/latest)",
    )
    command.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    print(write_report(*options.sessions))
    if len(options.sessions) == 1:
        write_figures(*options.sessions)
    return 0
