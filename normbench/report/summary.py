"""A session in a page of markdown, to read in a CI run or to paste into a pull request."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from normbench.analysis.claims import ClaimResult, stored_claims
from normbench.analysis.comparison import Comparison
from normbench.analysis.verdicts import NOT_FAILED, replay_lines, shortcomings, verdict_counts
from normbench.check.properties import Checked
from normbench.check.trace_record import Trace
from normbench.report.tables import (
    WHOLE,
    case_tables,
    claims_table,
    comparison_summary,
    comparison_table,
    markdown_table,
    provenance,
)
from normbench.report.traces import told
from normbench.results import CaseVerdict, Outcome
from normbench.storage.files import write_atomic
from normbench.storage.session import StoredSession

# GitHub drops a step's summary as a whole if it is larger, and refuses a comment and an issue.
STEP_SUMMARY_BYTES = 1024 * 1024
COMMENT_BYTES = 64 * 1024 - 512


def _counted(what: str, found: Sequence[Checked | Trace]) -> str:
    broken = sum(bool(each.broken) for each in found)
    told = f"{len(found)} {what}{'s' if len(found) > 1 else ''}"
    return f"{told} ({broken} broken)" if broken else told


def session_summary(session: StoredSession, since: Sequence[str] = ()) -> str:
    """Return what failed, what is worse than the baseline, the claims, then a pivot per grid.

    ``since`` are the paragraphs that say since when, of ``since_paragraphs``.
    """
    return _page([*_findings(session, since), *_pivots(session), provenance(session)])


def alarm_summary(session: StoredSession, since: Sequence[str] = ()) -> str:
    """Return what an issue says of a session: its summary without the pivots.

    It is cut to what GitHub takes of one.
    """
    return cut(_page([*_findings(session, since), provenance(session)]), COMMENT_BYTES)


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _findings(session: StoredSession, since: Sequence[str]) -> list[str]:
    """Return the counts, then all that is not as it should be, the comparison and the claims."""
    claims = stored_claims(session)
    parts = [f"## normbench: {', '.join(_counts(session, claims))}"]
    if session.planted:
        parts.append(
            f"**The fault {session.planted} was planted** (`--bench-plant`): what follows is of "
            "broken code."
        )
    parts += [f"**No pass:** {reason}" for reason in shortcomings(session)]
    if replayed := replay_lines(session):
        parts.append("; ".join(replayed))
    for grid, table in case_tables(session).items():
        failed = table[~table["verdict"].isin(NOT_FAILED)]
        if len(failed):
            parts += [f"### {grid}: not passed", markdown_table(failed)]
    for checked in session.checks:
        parts += [f"**{checked.kind} {checked.subject}:** {broken}" for broken in checked.broken]
    for trace in session.traces:
        parts += [f"**trace {line}**" if trace.broken else f"trace {line}" for line in told(trace)]
    skipped = [case for case in session.judged_cases if case.verdict is CaseVerdict.SKIPPED]
    for reason, number in Counter(case.reason or "no reason given" for case in skipped).items():
        parts.append(f"{number} skipped: {reason}")
    if (stored := session.document.comparison) is not None:
        comparison = Comparison.of_stored(stored)
        parts.append(f"### Beside the baseline {comparison.baseline}")
        if worse := comparison.of(Outcome.REGRESSION, Outcome.SUSPECTED):
            parts.append(comparison_table(worse))
        parts.append(comparison_summary(comparison))
    if since:
        parts += ["### Since when", *since]
    if claims:
        parts += ["### Claims", claims_table(claims, WHOLE)]
    return parts


def _counts(session: StoredSession, claims: Sequence[ClaimResult]) -> list[str]:
    counts = [f"{n} {verdict}" for verdict, n in verdict_counts(session.judged_cases).items()]
    if claims:
        counts.append(f"{len(claims)} claim{'s' if len(claims) > 1 else ''}")
        unexpected = sum(result.unexpected for result in claims)
        counts += [f"{unexpected} of them not as expected"] if unexpected else []
    if session.checks:
        counts.append(_counted("check", session.checks))
    if session.traces:
        counts.append(_counted("trace", session.traces))
    return counts


def _pivots(session: StoredSession) -> list[str]:
    parts = []
    for grid, table in case_tables(session).items():
        if table["test_accuracy_percent"].notna().any():
            parts += [f"### {grid}: test accuracy, last epoch (%)", pivot(table)]
    return parts


def cut(text: str, most: int) -> str:
    """Return a text of at most so many bytes: it keeps its beginning, where the failures stand."""
    if len(text.encode()) <= most:
        return text
    note = "\n\nCut here: GitHub takes no more.\n"
    kept = text.encode()[: max(0, most - len(note))].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1] + note if kept else ""


def pivot(table: pd.DataFrame) -> str:
    """Return test accuracies as markdown: norms down, regularizers and batch sizes across."""
    names = ["norm", "regularizer", "batch_size", "test_accuracy_percent"]
    cells = {
        (norm, (regularizer, size)): f"{accuracy:.2f}"
        for norm, regularizer, size, accuracy in table[names].dropna().itertuples(index=False)
    }
    columns = list(dict.fromkeys(column for _, column in cells))
    rows = [
        [norm.replace("|", "\\|"), *(cells.get((norm, column), "") for column in columns)]
        for norm in dict.fromkeys(norm for norm, _ in cells)
    ]
    headings = ["norm", *(f"{regularizer}, {size}" for regularizer, size in columns)]
    alignment = ["left", *("right" for _ in columns)]
    return tabulate(rows, headings, "pipe", colalign=alignment, disable_numparse=True)


def write_summary(session: StoredSession) -> None:
    """Write the session's ``summary.md``, and show it in a GitHub step if this process runs in one.

    A step's summary that would become too large keeps its beginning, where the failures stand.
    """
    text = session_summary(session)
    write_atomic(session.folder / "summary.md", text)
    if not (step := os.environ.get("GITHUB_STEP_SUMMARY")):
        return
    file = Path(step)
    left = STEP_SUMMARY_BYTES - (file.stat().st_size if file.exists() else 0)
    with file.open("a", encoding="utf-8") as summary:
        summary.write(cut(text, left))
