"""Tell where B is worse than A.

Each is the folder of a session, the file of a baseline, or the name of one. Nothing is trained: a
case that looks worse, and has too few runs to tell, is suspected. Exits with 1 if a case is worse,
or if a trace differs though the machine, torch, threads and code are the same; with 2 if one of the
two cannot be read or no case can be compared; and, where --strict asks for it, with 3 if something
is left open.
"""

import argparse
import sys
from pathlib import Path

from normbench.analysis.thresholds import MAX_UNDECIDED
from normbench.plugin.parsers import parse_json_format, parse_points

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
        "--strict",
        action="store_true",
        help="fail as well for a case that is suspected, cannot be compared, or is not in A, and "
        f"where more than {100 * MAX_UNDECIDED:g} %% are undecided",
    )
    command.add_argument(
        "--json",
        action="store_const",
        const="normbench",
        dest="format",
        help="print a JSON object in place of the table",
    )
    command.add_argument(
        "--json-format",
        type=parse_json_format,
        metavar="FORMAT",
        dest="format",
        help="print JSON in a format of --bench-json: normbench, which is what --json prints, or, "
        "of B's cases, the entries of github-action-benchmark: github-accuracy, github-seconds",
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
    from normbench.analysis.traces import compare_all
    from normbench.analysis.verdicts import gaps, without_comparison
    from normbench.storage.baseline import find_baseline

    folder = options.results / "reference"
    before = find_baseline(options.before, folder)
    now = find_baseline(options.now, folder, confirming=True)
    comparison = compare(before, now, options.minimum_effect)
    traces = compare_all(now.traces, before.traces, before.name)
    if options.format:
        from normbench.report.exports import COMPARISON_FORMATS, to_json

        print(to_json(COMPARISON_FORMATS[options.format](comparison, now, traces)), end="")
    else:
        from normbench.report.tables import terminal_comparison

        print(terminal_comparison(comparison))
        for line in traces.lines:
            print(line)
        if now.planted:
            print(f"the fault {now.planted} was planted in {now.name}")
    if comparison.regressions or traces.different:
        return 1
    nothing = without_comparison(comparison)
    left = gaps(comparison, MAX_UNDECIDED, suspicion=True) if options.strict else []
    for reason in (*nothing, *left):
        print(f"normbench: {reason}", file=sys.stderr)
    return 2 if nothing else 3 if left else 0
