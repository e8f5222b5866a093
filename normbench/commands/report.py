"""Draw report.html and the figures of a session again, from what it has stored.

Several sessions are drawn side by side, as side-by-side.html in the folder of the last one.
"""

import argparse
from pathlib import Path

HELP = "draw sessions as a page"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sessions",
        metavar="SESSION",
        nargs="*",
        type=Path,
        help="a session's folder (default: results/latest)",
    )


def main(options: argparse.Namespace) -> int:
    from normbench.report.page import write_figures, write_report
    from normbench.storage.session import latest_session, read_session

    folders = options.sessions or [latest_session(Path("results"))]
    sessions = [read_session(folder) for folder in folders]
    print(write_report(*sessions))
    if len(sessions) == 1:
        write_figures(*sessions)
    return 0
