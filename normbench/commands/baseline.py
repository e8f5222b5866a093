"""Write results/reference/NAME.json from the runs of stored sessions, or of other baselines.

These may be NAME itself: runs of further seeds (--bench-seeds 5:10) join those that are there.
Fields that a later version of normbench has added are left out.
"""

import argparse
from pathlib import Path

from normbench.commands.compare import add_results
from normbench.plugin.parsers import parse_baseline_name

HELP = "make a baseline of stored sessions"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "name", metavar="NAME", type=parse_baseline_name, help="what the baseline is called"
    )
    command.add_argument(
        "parts",
        metavar="SESSION",
        nargs="+",
        help="a session's folder, a baseline's file, or its name",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a baseline NAME that is there and is none of the sessions",
    )
    add_results(command)


def main(options: argparse.Namespace) -> int:
    from normbench.storage.baseline import find_baseline, merge_baselines, new_baseline

    folder = options.results / "reference"
    file = folder / f"{options.name}.json"
    joins = any(
        Path(part).resolve() == file.resolve() or (part == options.name and not Path(part).exists())
        for part in options.parts
    )
    new_baseline(options.name, folder, None if options.overwrite or joins else "--overwrite")
    baseline = merge_baselines(options.name, [find_baseline(p, folder) for p in options.parts])
    baseline.write(file)
    runs = sum(len(case.runs) for case in baseline.cases.values())
    print(f"{file}: {len(baseline.cases)} cases, {runs} runs")
    return 0
