"""Draw report.html and the figures of a session again, from what it has stored.

Several sessions are drawn side by side, as side-by-side.html in the folder of the last one.
--summary draws nothing, and exits with 1 if a session raises an alarm, and with 3 if it is no pass
for another reason.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normbench.storage.session import StoredSession

HELP = "draw sessions as a page"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sessions",
        metavar="SESSION",
        nargs="*",
        type=Path,
        help="a session's folder (default: results/latest)",
    )
    command.add_argument(
        "--summary",
        action="store_true",
        help="print in markdown what each session has found, and since when what is not well is "
        "not; with the suspects, by the sessions beside it and the history of git here",
    )


def main(options: argparse.Namespace) -> int:
    from normbench.storage.session import latest_session, read_session

    folders = options.sessions or [latest_session(Path("results"))]
    sessions = [read_session(folder) for folder in folders]
    if options.summary:
        return max([_summed_up(session) for session in sessions], key=(0, 3, 1).index)
    from normbench.report.page import write_figures, write_report

    print(write_report(*sessions))
    if len(sessions) == 1:
        write_figures(*sessions)
    return 0


def _summed_up(session: "StoredSession") -> int:
    """Print a session's summary; return its exit code."""
    from normbench.analysis.alarms import alarms, since_when
    from normbench.analysis.verdicts import shortcomings
    from normbench.commands.alarm import commits_between
    from normbench.report.since import since_paragraphs
    from normbench.report.summary import session_summary
    from normbench.storage.session import sessions_before

    found = alarms(session)
    since = since_when(found, session, sessions_before(session))
    print(session_summary(session, since_paragraphs(since, commits_between)))
    return 1 if found else 3 if shortcomings(session) else 0
