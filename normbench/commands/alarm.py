"""Open, update or close the issue of a nightly on GitHub, by what a session has found.

An issue with LABEL is opened if the session raises an alarm: a regression, a case that misses its
target, a claim that comes out otherwise than on record, or a broken check or trace. One that is
open is updated and told of the session. It is closed once a session has finished without an alarm
and passes. The issue says what is worse, by how much and since when, with the suspects, by the
sessions beside this one and the history of git here. `gh`, GitHub's command, does it; it must be
logged in, or find a token in GH_TOKEN.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normbench.storage.session import StoredSession

HELP = "open, update or close a nightly's issue on GitHub"

# Runs gh with arguments, and a text for its standard input; returns what it prints.
Gh = Callable[[Sequence[str], str], str]

GIT_SECONDS = 30


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "session",
        metavar="SESSION",
        nargs="?",
        type=Path,
        help="a session's folder (default: results/latest)",
    )
    command.add_argument(
        "--label",
        default="nightly",
        help="the label that the issue is known by, one for each nightly (default: nightly)",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="print the issue, and do nothing on GitHub"
    )


def main(options: argparse.Namespace) -> int:
    from normbench.storage.session import latest_session, read_session

    session = read_session(options.session or latest_session(Path("results")))
    if session.planted:
        raise ValueError(
            f"{session.folder} had the fault {session.planted!r} planted, and is to fail; expected "
            "a session without --bench-plant"
        )
    print(raise_alarm(session, options.label, _nothing if options.dry_run else gh))
    return 0


def raise_alarm(session: "StoredSession", label: str, run: Gh) -> str:
    """Open, update or close the issue; return what was done."""
    from normbench.analysis.alarms import alarms, since_when
    from normbench.analysis.verdicts import shortcomings
    from normbench.report.since import since_paragraphs
    from normbench.report.summary import alarm_summary
    from normbench.storage.session import sessions_before

    found = alarms(session)
    listing = run(["issue", "list", "--label", label, "--state", "open", "--json", "number"], "")
    numbers = [str(issue["number"]) for issue in json.loads(listing or "[]")]
    if found:
        since = since_when(found, session, sessions_before(session))
        text = alarm_summary(session, since_paragraphs(since, commits_between))
        title = f"{label}: {found[0]}" + (f" and {len(found) - 1} more" if found[1:] else "")
        return _open(numbers, title, text, label, session.name, run)
    reasons = shortcomings(session)
    if session.document.status != "finished" or reasons:
        why = reasons[0] if reasons else f"it is {session.document.status}"
        return f"{session.name} raises no alarm, and is no pass: {why}"
    for number in numbers:
        told = f"Recovered: the session {session.name} passes."
        run(["issue", "close", number, "--comment", told], "")
    closed = f"; closed {', '.join(f'#{n}' for n in numbers)}" if numbers else ""
    return f"{session.name} passes{closed}"


def _open(numbers: Sequence[str], title: str, text: str, label: str, session: str, run: Gh) -> str:
    """Open the issue, or update the newest one that is open."""
    if numbers:
        run(["issue", "edit", numbers[0], "--title", title, "--body-file", "-"], text)
        run(["issue", "comment", numbers[0], "--body", f"Still so in the session {session}."], "")
        return f"updated #{numbers[0]}: {title}\n\n{text}"
    run(["label", "create", label, "--force", "--description", "What a nightly found"], "")
    run(["issue", "create", "--title", title, "--label", label, "--body-file", "-"], text)
    return f"opened: {title}\n\n{text}"


def gh(arguments: Sequence[str], text: str) -> str:
    """Run ``gh``; raises ValueError where it is not there, and with what it says if it fails."""
    try:
        done = subprocess.run(
            ["gh", *arguments], input=text, capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise ValueError(
            "gh, GitHub's command, is not installed; install it, or see the issue with --dry-run"
        ) from None
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise ValueError(f"gh {' '.join(arguments[:2])} failed: {said}") from error
    return done.stdout


def _nothing(_arguments: Sequence[str], _text: str) -> str:
    return ""


def commits_between(good: str, bad: str, folder: Path = Path()) -> list[str]:
    """Return the commits after ``good`` up to ``bad``, a line each; none where git does not know.

    The folder may lie in no repository, or in a clone without the older commits.
    """
    command = ["git", "-C", str(folder), "log", "--oneline", "--no-decorate", "--no-color"]
    try:
        done = subprocess.run(
            [*command, f"{good}..{bad}", "--"],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
