"""Result tables: one row per case, in markdown, CSV and the terminal."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from normbench.analysis.claims import ClaimResult, Evidence, stored_claims
from normbench.analysis.comparison import (
    TOLD,
    CaseComparison,
    Comparison,
)
from normbench.analysis.verdicts import to_decide
from normbench.cases.case import CLAIMS, COMPARISON
from normbench.results import JUDGED, ClaimVerdict, Outcome, Runs
from normbench.storage.documents import StoredCase
from normbench.storage.files import write_atomic
from normbench.storage.session import StoredSession

# What a spreadsheet takes for a formula, or skips before one.
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\n")

# A column's heading in CSV, in markdown, and its number format.
COLUMNS: dict[str, tuple[str, str]] = {
    "dataset": ("data set", "s"),
    "norm": ("norm", "s"),
    "regularizer": ("regularizer", "s"),
    "batch_size": ("batch size", "d"),
    "seeds": ("seeds", "d"),
    "test_accuracy_percent": ("test accuracy, last epoch (%)", ".2f"),
    "test_accuracy_std_percent": ("std over seeds", ".2f"),
    "interval_points": ("95 % interval (±)", ".2f"),
    "best_test_accuracy_percent": ("best epoch (%)", ".2f"),
    "train_accuracy_percent": ("train accuracy (%)", ".2f"),
    "test_loss": ("test loss", ".4f"),
    "train_loss": ("train loss", ".4f"),
    "parameters": ("parameters", "d"),
    "epochs": ("epochs", "d"),
    "seconds": ("seconds a run", ".1f"),
    "cpu_seconds": ("core-seconds a run", ".1f"),
    "target_percent": ("target (%)", ".2f"),
    "verdict": ("verdict", "s"),
    "published_percent": ("published best (%)", ".2f"),
    "difference_points": ("our best less published", "+.2f"),
    "reason": ("reason", "s"),
}


def case_tables(session: StoredSession) -> dict[str, pd.DataFrame]:
    """Return one table per grid, of the cases that have a verdict, ordered as the grid is."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for stored in session.judged_cases:
        row = case_row(stored, session.runs(stored.case))
        rows.setdefault(stored.grid, []).append(row)
    return {
        grid: pd.DataFrame(grid_rows, columns=list(COLUMNS)) for grid, grid_rows in rows.items()
    }


def case_row(stored: StoredCase, runs: Runs) -> dict[str, Any]:
    """Return a case's row; figures are means over the runs that ended well, None without any."""
    spec = stored.spec
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "dataset": spec.dataset,
        "norm": spec.norm,
        "regularizer": spec.regularizer,
        "batch_size": spec.batch_size,
        "epochs": spec.epochs,
        "target_percent": None if stored.target is None else 100 * stored.target,
        "verdict": stored.verdict and str(stored.verdict),
        "reason": stored.reason or None,
    }
    finished = runs.finished
    row["seeds"] = sum(not result.replayed for result in finished)
    if len(finished):
        row |= _figures(finished)
    if stored.margin_of_error is not None:
        row["interval_points"] = 100 * stored.margin_of_error
    if stored.published is not None:
        row["published_percent"] = 100 * stored.published.test_accuracy
        if len(finished):
            row["difference_points"] = row["best_test_accuracy_percent"] - row["published_percent"]
    return row


def _figures(runs: Runs) -> dict[str, Any]:
    accuracies = pd.Series([100 * result.test_accuracy for result in runs])
    return {
        "test_accuracy_percent": accuracies.mean(),
        "test_accuracy_std_percent": accuracies.std() if len(runs) > 1 else None,
        "best_test_accuracy_percent": 100 * runs.best_test_accuracy,
        "train_accuracy_percent": 100 * runs.mean("train_accuracy"),
        "test_loss": runs.mean("test_loss"),
        "train_loss": runs.mean("train_loss"),
        "parameters": next(iter(runs)).parameters,
        "seconds": runs.mean("train_seconds") + runs.mean("test_seconds"),
        "cpu_seconds": runs.mean("cpu_seconds"),
    }


def figure(value: Any, kind: str) -> str:
    """Format a figure; one that is absent is an empty text."""
    return "" if pd.isna(value) else format(int(value) if kind == "d" else value, kind)


def _tabulate(table: pd.DataFrame, headings: Mapping[str, tuple[str, str]], style: str) -> str:
    """Format the columns that have a figure; an absent one is an empty cell.

    ``headings`` holds a heading and a number format a column.
    """
    columns = [name for name in headings if not table[name].isna().all()]

    def cell(name: str, value: Any) -> str:
        text = figure(value, headings[name][1])
        # a user's norm may hold what markdown would read as the end of a cell
        return text.replace("|", "\\|") if style == "pipe" else text

    return tabulate(
        [
            [cell(name, value) for name, value in zip(columns, row, strict=True)]
            for row in table[columns].itertuples(index=False)
        ],
        headers=[headings[name][0] for name in columns],
        tablefmt=style,
        colalign=["left" if headings[name][1] == "s" else "right" for name in columns],
        disable_numparse=True,
    )


def markdown_table(table: pd.DataFrame) -> str:
    """Return all columns that have a figure, as a table of GitHub's markdown."""
    return _tabulate(table, COLUMNS, "pipe")


def provenance(session: StoredSession) -> str:
    """Say in a paragraph of markdown where and when the figures were measured."""
    e = session.document.environment
    machine = f"{e.get('processor')} ({e.get('cores')} cores)"
    machine = ", ".join([machine, *e.get("gpus", [])])
    planted = f"With the fault {session.planted} planted. " if session.planted else ""
    commit = f", commit {e['commit']}" if e.get("commit") else ""
    number = session.document.workers
    workers = f"{number} worker{'' if number == 1 else 's'}"
    return (
        f"{planted}Generated by the session {session.name} on {machine}, "
        f"{workers}; Python {e.get('python')}, torch {e.get('torch')}, "
        f"torchvision {e.get('torchvision')}{commit}. "
        "Accuracies are means over the seeds; seconds are wall-clock, evaluation included. "
        "Published figures are their authors' best test epoch of one run."
    )


COMPARISON_COLUMNS: dict[str, tuple[str, str]] = {
    "case": ("case", "s"),
    "baseline_percent": ("baseline (%)", ".2f"),
    "baseline_runs": ("runs", "d"),
    "now_percent": ("now (%)", ".2f"),
    "now_runs": ("runs now", "d"),
    "difference_points": ("difference", "+.2f"),
    "interval_points": ("95 % interval (±)", ".2f"),
    "adjusted_p": ("adjusted p", ".2g"),
    "outcome": ("outcome", "s"),
    "reason": ("reason", "s"),
}


def comparison_frame(cases: Iterable[CaseComparison]) -> pd.DataFrame:
    """Return a row a case; what could not be had is None."""
    return pd.DataFrame([_comparison_row(case) for case in cases], columns=list(COMPARISON_COLUMNS))


def comparison_table(cases: Iterable[CaseComparison], style: str = "pipe") -> str:
    """Return a line a case, in markdown or in another of tabulate's styles."""
    return _tabulate(comparison_frame(cases), COMPARISON_COLUMNS, style)


def _comparison_row(case: CaseComparison) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": case.spec.title,
        "outcome": str(case.outcome),
        "reason": case.reason or None,
        "adjusted_p": case.adjusted_p,
    }
    for side, values in (("baseline", case.before), ("now", case.now)):
        row[f"{side}_runs"] = len(values) or None
        row[f"{side}_percent"] = 100 * statistics.fmean(values) if values else None
    if case.before and case.now:
        row["difference_points"] = 100 * case.difference.value
        if case.variance.known:
            row["interval_points"] = 100 * case.difference.margin_of_error(0.025)
    return row


def comparison_summary(comparison: Comparison) -> str:
    """Say in a line how many cases came out how, and how fast the session was."""
    counts = ", ".join(_count(number, outcome) for outcome, number in comparison.counts.items())
    parts = [counts or "nothing to compare"]
    if comparison.speed is not None:
        slower = ": SLOWER" if comparison.slow else ""
        parts.append(f"at {comparison.speed:.2f} of the baseline's speed{slower}")
    elif comparison.elsewhere:
        parts.append("on another machine, so that speeds do not compare")
    if other := sum(case.other_code for case in comparison.cases):
        parts.append(f"{other} ran other code than the baseline")
    return f"{'; '.join(parts)}{to_decide(comparison, '; ')}"


def junit_counts(comparison: Comparison) -> dict[str, str]:
    """Return what a JUnit report keeps of a comparison: how many cases came out how."""
    counts = {str(outcome): str(number) for outcome, number in comparison.counts.items()}
    more = to_decide(comparison)
    return counts | ({"to decide": more} if more else {})


def _count(number: int, outcome: Outcome) -> str:
    countable = outcome in (Outcome.REGRESSION, Outcome.IMPROVEMENT)
    return f"{number} {outcome}{'s' if countable and number > 1 else ''}"


def terminal_comparison(comparison: Comparison) -> str:
    """Return the cases that differ, or could not be compared, as a table, and the summary."""
    told = [case for outcome in TOLD for case in comparison.of(outcome)]
    table = comparison_table(told, "simple") if told else ""
    return f"{table}\n{comparison_summary(comparison)}".lstrip()


CLAIM_COLUMNS: dict[str, tuple[str, str]] = {
    "claim": ("claim", "s"),
    "verdict": ("verdict", "s"),
    "expected": ("expected", "s"),
    "statement": ("statement", "s"),
    "source": ("source", "s"),
    "subject": ("what", "s"),
    "says": ("claimed (points)", "s"),
    "difference_points": ("found", "+.2f"),
    "interval_points": ("95 % interval (±)", ".2f"),
    "found": ("counted", "s"),
    "seeds": ("seeds", "d"),
    "part_verdict": ("part", "s"),
    "reason": ("reason", "s"),
}
# The columns that tell of a claim as a whole, and those that tell of its parts.
WHOLE = ("verdict", "claim", "expected", "statement", "source", "reason")
PARTS = ("claim", "subject", "says", "difference_points", "interval_points", "found", "seeds")


def claims_frame(findings: Iterable[ClaimResult]) -> pd.DataFrame:
    """Return a row for each contrast or count of each claim; what could not be had is None."""
    rows = [
        {**_claim_row(finding), **(_evidence_row(part) if part else {})}
        for finding in findings
        for part in finding.evidence or (None,)
    ]
    return pd.DataFrame(rows, columns=list(CLAIM_COLUMNS))


def _claim_row(finding: ClaimResult) -> dict[str, Any]:
    claim = finding.claim
    return {
        "claim": claim.name,
        "verdict": str(finding.verdict) + (" (!)" if finding.unexpected else ""),
        "expected": " or ".join(claim.expected) if claim.expected != JUDGED else None,
        "statement": claim.statement,
        "source": claim.source,
        "seeds": claim.seeds or None,
        "reason": finding.reason or None,
    }


def _evidence_row(part: Evidence) -> dict[str, Any]:
    row: dict[str, Any] = {
        "subject": part.subject,
        "says": part.says,
        "found": part.found or None,
        "part_verdict": str(part.verdict),
    }
    if part.estimate is not None:
        row["difference_points"] = 100 * part.estimate.value
        row["interval_points"] = 100 * part.estimate.margin_of_error(0.025)
    return row


def claims_table(
    findings: Iterable[ClaimResult], columns: Sequence[str], style: str = "pipe"
) -> str:
    """Return a line a claim, or, with columns that tell of its parts, a line a part."""
    table = claims_frame(findings)
    if set(columns) <= set(WHOLE):
        table = table.drop_duplicates("claim")
    return _tabulate(table, {name: CLAIM_COLUMNS[name] for name in columns}, style)


def terminal_claims(findings: Sequence[ClaimResult]) -> str:
    """Return each claim with its verdict, then what it stands on."""
    whole = claims_table(findings, ("verdict", "claim", "expected", "reason"), "simple")
    counts = Counter(str(finding.verdict) for finding in findings)
    summary = ", ".join(f"{counts[v]} {v}" for v in ClaimVerdict if counts[v])
    parts = claims_table(findings, PARTS, "simple")
    return f"{parts}\n\n{whole}\n{summary}"


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV, in which no text is a formula to a spreadsheet.

    An apostrophe goes before one that would be; numbers stay numbers, also negative ones.
    Source: OWASP, CSV Injection.
    """
    return frame.map(_harmless).to_csv(index=False)


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # else it would end the row: pandas puts no quotes around it
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    if not value.startswith(FORMULA_BEGINS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_tables(session: StoredSession) -> None:
    """Write ``tables/<name>.md`` and ``.csv``: one per grid, the comparison, and the claims."""
    folder = session.folder / "tables"
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, title: str, markdown: str, frame: pd.DataFrame) -> None:
        text = f"# {title}\n\n{provenance(session)}\n\n{markdown}\n"
        write_atomic(folder / f"{name}.md", text)
        write_atomic(folder / f"{name}.csv", csv_text(frame))

    for grid, table in case_tables(session).items():
        write(grid, grid, markdown_table(table), table)
    if (stored := session.document.comparison) is not None:
        comparison = Comparison.of_stored(stored)
        cases = [case for outcome in Outcome for case in comparison.of(outcome)]
        markdown = f"{comparison_summary(comparison)}\n\n{comparison_table(cases)}"
        title = f"Beside the baseline {comparison.baseline}"
        write(COMPARISON, title, markdown, comparison_frame(cases))
    if claims := stored_claims(session):
        markdown = (
            "Differences are of test accuracies after the last epoch, in percentage points.\n\n"
            f"{claims_table(claims, WHOLE)}\n\n"
            f"{claims_table(claims, (*PARTS, 'part_verdict'))}"
        )
        write(CLAIMS, "Claims", markdown, claims_frame(claims))
