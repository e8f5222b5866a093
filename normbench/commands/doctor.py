"""Tell what normbench depends on here, and what to do where something is amiss.

It looks at Python, torch and torchvision, devices, threads, data sets, folders and pytest's plugin,
and trains the digits for a second to tell how fast this machine is. Nothing is downloaded or kept.
Exits with 1 if a problem keeps the suite, or a part of it, from running; warnings do not fail.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

HELP = "tell what is amiss with this machine and its packages, and how to mend it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the data root, as for --bench-data (default: $NORMBENCH_DATA, else the platform's "
        "cache folder)",
    )
    command.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where sessions are to be stored (default: results)",
    )
    command.add_argument(
        "--json", action="store_true", help="print a JSON object in place of the lines"
    )


def main(options: argparse.Namespace) -> int:
    from normbench.commands.diagnosis import Standing, counted, diagnose, lines
    from normbench.commands.doctor_facts import gather

    facts = gather(options.data, options.results)
    items = diagnose(facts)
    counts = counted(items)
    if options.json:
        document = {
            "problems": counts[Standing.PROBLEM],
            "warnings": counts[Standing.WARNING],
            "items": [asdict(item) for item in items],
            "facts": asdict(facts),
        }
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(lines(items)))
    return int(counts[Standing.PROBLEM] > 0)
