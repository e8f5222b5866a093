"""Tell how the cases went over the stored sessions; what changed is listed first.

With CASE, tell what that case came to in each session. It is named as in the tables or as pytest
does, or by a part of its name that no other case has.

"import" takes sessions out of folders or zip files, such as the artefacts of a CI run, and stores
them beside those that are there; it takes all of them or, if one cannot be read, none.
"""

import argparse
import json
from pathlib import Path

HELP = "tell how cases went over the stored sessions"

IMPORT = "import"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.usage = (
        "normbench history [CASE] [--results DIR] [--last N] [--change-points] [--json]\n"
        "       normbench history import DIR|ZIP... [--results DIR]"
    )
    command.add_argument(
        "words", metavar="CASE | import DIR|ZIP...", nargs="*", help="default: all cases"
    )
    command.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="the folder whose runs/ holds the sessions (default: results)",
    )
    command.add_argument(
        "--last",
        type=_number,
        metavar="N",
        help="how many sessions to look at, the newest (default: 30; of a case, all)",
    )
    command.add_argument(
        "--change-points",
        action="store_true",
        help="tell since when an accuracy changed, by how much, and what else did",
    )
    command.add_argument(
        "--json", action="store_true", help="print a JSON object in place of the tables"
    )


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 up")
    return int(text)


def main(options: argparse.Namespace) -> int:
    if options.words[:1] == [IMPORT]:
        return _import(options)
    from normbench.analysis.trends import trends
    from normbench.report.history import course, document, overview
    from normbench.storage.history import HistoryError, find_case, open_history

    text = " ".join(options.words)
    with open_history(options.results / "runs") as history:
        sessions = history.sessions(options.last or (None if text else 30))
        if not sessions:
            reasons = "".join(f"; {reason}" for reason in history.unreadable.values())
            raise HistoryError(
                f"{options.results / 'runs'} holds no session: expected what normbench run has "
                f"stored; name its folder with --results DIR{reasons}"
            )
        cases = history.cases(sessions)
    chosen = [find_case(cases, text)] if text else cases
    found = trends(chosen, family=len(cases))
    changes = options.change_points
    if options.json:
        print(json.dumps(document(sessions, found, history.unreadable, changes), indent=1))
    elif text:
        print(course(found[0], sessions, changes))
    else:
        print(overview(sessions, found, history.unreadable, changes))
    return 0


def _import(options: argparse.Namespace) -> int:
    from normbench.storage.artefacts import ArtefactError, import_sessions

    if options.json or options.last or options.change_points:
        raise ArtefactError("--json, --last and --change-points are not for import")
    for line in import_sessions(map(Path, options.words[1:]), options.results / "runs"):
        print(line)
    return 0
