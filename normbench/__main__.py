"""``python -m normbench``: what one asks of sessions that are over."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from normbench.baseline import BaselineError, find_baseline
from normbench.comparison import compare
from normbench.options import parse_points
from normbench.tables import terminal_comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m normbench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "compare",
        help="tell where session B is worse than session A",
        description="Tell where B is worse than A, each a session's folder, a baseline's file or "
        "a name in results/reference. Exits with 1 if a case is worse, with 2 if one of the two "
        "cannot be read.",
    )
    command.add_argument("before", metavar="A")
    command.add_argument("now", metavar="B")
    command.add_argument(
        "--minimum-effect",
        type=parse_points,
        metavar="POINTS",
        help="how many percentage points a mean must differ to matter",
    )
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        before, now = (
            find_baseline(text, options.results / "reference")
            for text in (options.before, options.now)
        )
    except BaselineError as error:
        print(f"normbench compare: {error}", file=sys.stderr)
        return 2
    comparison = compare(before, now, options.minimum_effect)
    print(terminal_comparison(comparison))
    return 1 if comparison.regressions else 0


if __name__ == "__main__":
    sys.exit(main())
