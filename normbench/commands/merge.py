"""Make one session of several: of the shards of a selection, or of sessions of different cases.

Each is a session's folder, or a folder or zip file that holds some at any depth, such as the
artefacts of a CI run. Verdicts, claims and the comparison with the baselines are worked out anew,
as if it had been one session. Nothing is trained. Exits with 0 if the session is a pass, with 1 if
it raises an alarm, with 2 if the sessions are no parts of one, and with 3 if it is no pass for
another reason.
"""

import argparse
import sys
from pathlib import Path

from normbench.plugin.parsers import parse_baseline

HELP = "make one session of several, such as shards"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sessions",
        metavar="SESSION",
        nargs="+",
        type=Path,
        help="a session's folder, or a folder or zip file with sessions in it",
    )
    command.add_argument(
        "--baseline",
        type=parse_baseline,
        action="append",
        metavar="NAME|FILE",
        help="compare with this baseline, in place of those of the sessions; repeatable",
    )
    command.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where the session is stored, and whose reference/ holds baselines (default: results)",
    )


def main(options: argparse.Namespace) -> int:
    from normbench.analysis.alarms import alarms
    from normbench.analysis.verdicts import shortcomings
    from normbench.engine.merging import merge
    from normbench.report.terminal import Terminal, session_sections
    from normbench.storage.artefacts import opened_sessions

    with opened_sessions(options.sessions) as sessions:
        session, notes = merge(sessions, options.results, options.baseline)
    for section in session_sections(session, "auto", Terminal.of(sys.stdout)):
        print(f"normbench: {section.title}\n{section.text}\n")
    print(f"normbench: results in {session.folder}")
    reasons = shortcomings(session)
    for line in (*notes, *(f"no pass, {reason}" for reason in reasons)):
        print(f"normbench: {line}", file=sys.stderr)
    return 1 if alarms(session) else 3 if reasons else 0
