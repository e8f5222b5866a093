"""The cases of a session as its end on the terminal shows them: all, or what needs a look."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from normbench.analysis.claims import stored_claims
from normbench.analysis.comparison import CaseComparison, Comparison
from normbench.analysis.verdicts import NOT_FAILED, verdict_counts
from normbench.report.checks import check_summary
from normbench.report.tables import (
    COLUMNS,
    case_tables,
    figure,
    terminal_claims,
    terminal_comparison,
)
from normbench.report.traces import trace_lines
from normbench.results import CaseVerdict, Outcome
from normbench.spec import RunSpec
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession

TABLES = ("auto", "all", "short", "none")
# Of a session with more cases, auto shows the short form.
MOST_CASES = 80
# Rows of the table of what needs a look.
MOST_LOOKS = 40
# What a pivot may take in a log, which has no width of its own.
LOG_WIDTH = 100
# The characters between two columns.
GAP = 2

# The columns of the table of all cases, under shorter headings: 126 characters, 142 with published
# figures.
HEADINGS: dict[str, str] = {
    "norm": "norm",
    "regularizer": "regularizer",
    "batch_size": "batch",
    "seeds": "n",
    "test_accuracy_percent": "test %",
    "interval_points": "±",
    "best_test_accuracy_percent": "best %",
    "train_accuracy_percent": "train %",
    "test_loss": "loss",
    "parameters": "params",
    "epochs": "ep",
    "seconds": "s",
    "target_percent": "target",
    "verdict": "verdict",
    "published_percent": "publ.",
    "difference_points": "diff",
}
# What a terminal that is too narrow for all of them does without, in this order.
LEFT_OUT = (
    "parameters",
    "epochs",
    "test_loss",
    "train_accuracy_percent",
    "best_test_accuracy_percent",
    "published_percent",
    "difference_points",
    "seconds",
    "seeds",
    "interval_points",
    "target_percent",
)

FAILED, DOUBTFUL = "bold red", "yellow"
STYLES = {
    CaseVerdict.PASSED: "green",
    CaseVerdict.UNCHANGED: "cyan",
    CaseVerdict.MEASURED: "",
    CaseVerdict.MARGINAL: DOUBTFUL,
    CaseVerdict.SKIPPED: "dim",
}

# The outcomes beside a baseline that need a look, with what marks them in a pivot.
LOOKS = {Outcome.REGRESSION: "!", Outcome.SUSPECTED: "?", Outcome.UNDECIDED: "?"}
LEGEND = {
    "!": "failed, or worse than the baseline",
    "~": "marginal",
    "?": "suspected or undecided beside the baseline",
}


# What looks worse than the baseline, or is undecided, by its spec with seed 0.
Beside = Mapping[RunSpec, CaseComparison]


class Terminal(NamedTuple):
    """Where a session's end is shown: ``width`` in characters, None for a log, which has none.

    On a terminal rich draws the tables, in colours where it has them; in a log they are plain.
    """

    width: int | None = None
    colours: bool = False

    @classmethod
    def of(cls, file: TextIO) -> "Terminal":
        """Return what a file is: the terminal that it writes to, or a log."""
        console = Console(file=file)
        return cls(console.width, not console.no_color) if console.is_terminal else cls()

    def drawn(self, columns: Mapping[str, bool], rows: Sequence[Sequence[Text]]) -> str:
        """Draw a table; ``columns`` holds the headings, and whether their cells are figures."""
        align = ["right" if figures else "left" for figures in columns.values()]
        if self.width is None:
            cells = [[cell.plain for cell in row] for row in rows]
            return tabulate(cells, [*columns], "simple", colalign=align, disable_numparse=True)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for heading, figures in columns.items():
            table.add_column(Text(heading), justify="right" if figures else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        file = io.StringIO()
        console = Console(
            file=file,
            width=self.width,
            color_system="standard" if self.colours else None,
            force_terminal=True,
        )
        console.print(table, end="")
        return file.getvalue().strip("\n")


class Section(NamedTuple):
    """A part of a session's end; one that is ``bad`` is why it is no pass."""

    title: str
    text: str
    bad: bool = False


def session_sections(
    session: StoredSession, kind: str, terminal: Terminal, quiet: bool = False
) -> Iterator[Section]:
    """Yield what a session came to: its cases, the comparison, claims, checks and traces.

    ``kind`` is one of TABLES: ``all`` is a table for each grid; ``short`` the counts, what failed,
    is marginal, or looks worse than the baseline, and the accuracies as norm x regularizer for
    each data set and batch size; ``auto`` is ``all`` up to MOST_CASES cases. A ``quiet`` end has
    the comparison alone.
    """
    if not quiet:
        yield from _case_sections(session, kind, terminal)
    if (stored := session.document.comparison) is not None:
        comparison = Comparison.of_stored(stored)
        title = f"beside the baseline {comparison.baseline}"
        yield Section(title, terminal_comparison(comparison), bool(comparison.regressions))
    if quiet:
        return
    if claims := stored_claims(session):
        bad = any(result.unexpected for result in claims)
        yield Section("claims", terminal_claims(claims), bad)
    if checks := session.checks:
        lines = [check_summary(checked) for checked in checks]
        yield Section("checks", "\n".join(lines), any(checked.broken for checked in checks))
    if traces := session.traces:
        bad = any(trace.broken for trace in traces)
        yield Section("traces", "\n".join(trace_lines(traces)), bad)


def _case_sections(session: StoredSession, kind: str, terminal: Terminal) -> Iterator[Section]:
    cases = session.judged_cases
    if kind == "auto":
        kind = "all" if len(cases) <= MOST_CASES else "short"
    if kind == "all":
        for grid, table in case_tables(session).items():
            yield Section(grid, all_cases(table, terminal))
    if kind == "short" and cases:
        beside = _beside_baseline(session)
        yield Section(f"{len(cases)} cases", _what_needs_a_look(cases, beside, terminal))
        for grid in dict.fromkeys(stored.grid for stored in cases):
            of_grid = [stored for stored in cases if stored.grid == grid]
            yield Section(grid, _pivots(of_grid, beside, terminal))


def all_cases(table: pd.DataFrame, terminal: Terminal) -> str:
    """Draw a grid's cases, a row each, with as many of the columns of HEADINGS as fit."""
    cells: dict[str, list[Text]] = {}
    for name in HEADINGS:
        if not table[name].isna().all():
            texts = [figure(value, COLUMNS[name][1]) for value in table[name]]
            cells[name] = [Text(text, _style(text) if name == "verdict" else "") for text in texts]
    for name in LEFT_OUT:
        if terminal.width is None or _width(cells) <= terminal.width:
            break
        cells.pop(name, None)
    columns = {HEADINGS[name]: COLUMNS[name][1] != "s" for name in cells}
    return terminal.drawn(columns, list(zip(*cells.values(), strict=True)))


def _width(cells: Mapping[str, Sequence[Text]]) -> int:
    widths = (
        max(len(HEADINGS[name]), *map(len, column), 0) + GAP for name, column in cells.items()
    )
    return sum(widths)


def _style(verdict: str) -> str:
    return STYLES.get(CaseVerdict(verdict), FAILED)


def _beside_baseline(session: StoredSession) -> Beside:
    if (stored := session.document.comparison) is None:
        return {}
    found = Comparison.of_stored(stored).by_configuration
    return {spec: case for spec, case in found.items() if case.outcome in LOOKS}


def _what_needs_a_look(cases: Sequence[StoredCase], beside: Beside, terminal: Terminal) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in verdict_counts(cases).items())
    outcomes = [case.outcome for case in beside.values()]
    counts += "".join(f", {outcomes.count(o)} {o}" for o in LOOKS if o in outcomes)
    looks = sorted(
        (_urgency(stored, beside), number, stored)
        for number, stored in enumerate(cases)
        if _mark(stored, beside)
    )
    if not looks:
        return counts
    rows = [_look(stored, beside) for _, _, stored in looks[:MOST_LOOKS]]
    columns = {"verdict": False, "case": False, "test %": True, "target": True, "reason": False}
    more = len(looks) - len(rows)
    left_out = f"\n{more} more: see the tables in the session's folder" if more else ""
    return f"{counts}\n\n{terminal.drawn(columns, rows)}{left_out}"


def _urgency(stored: StoredCase, beside: Beside) -> int:
    return "!?~".index(_mark(stored, beside))


def _mark(stored: StoredCase, beside: Beside) -> str:
    """Return what marks a case in a pivot, the worst first; empty where it needs no look."""
    compared = beside.get(stored.spec.with_seed(0))
    mark = LOOKS[compared.outcome] if compared is not None else ""
    if stored.verdict not in NOT_FAILED:
        return "!"
    if stored.verdict is CaseVerdict.MARGINAL and not mark:
        return "~"
    return mark


def _look(stored: StoredCase, beside: Beside) -> list[Text]:
    compared = beside.get(stored.spec.with_seed(0))
    verdict = str(stored.verdict)
    reasons = [stored.reason]
    if compared is not None:
        reasons.insert(0, f"{compared.outcome}: {100 * compared.difference.value:+.2f} points")
    return [
        Text(verdict, _style(verdict)),
        Text(stored.case.id),
        Text(figure(_percent(stored.test_accuracy), ".2f")),
        Text(figure(_percent(stored.target), ".2f")),
        Text("; ".join(filter(None, reasons))),
    ]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _pivots(cases: Sequence[StoredCase], beside: Beside, terminal: Terminal) -> str:
    """Draw the accuracies of a grid: norm x regularizer for each data set and batch size."""
    parts = []
    for place in dict.fromkeys((c.spec.dataset, c.spec.batch_size) for c in cases):
        of_place = [c for c in cases if (c.spec.dataset, c.spec.batch_size) == place]
        parts.append(f"{place[0]}, batch size {place[1]}: test accuracy (%)")
        parts += _pivot(of_place, beside, terminal)
    marks = {_mark(stored, beside) for stored in cases}
    told = [f"{mark} {meaning}" for mark, meaning in LEGEND.items() if mark in marks]
    return "\n".join([*parts, *(["; ".join(told)] if told else [])])


def _pivot(cases: Sequence[StoredCase], beside: Beside, terminal: Terminal) -> Iterator[str]:
    """Yield the table, in as many parts as its columns need to fit."""
    cells: dict[tuple[str, str], Text] = {}
    for stored in cases:
        key = stored.spec.norm, stored.spec.regularizer
        cell = _cell(stored, beside)
        # cases of one grid may differ in what is no axis of the pivot, such as dropout
        cells[key] = Text(" ").join([cells[key], cell]) if key in cells else cell
    norms = list(dict.fromkeys(norm for norm, _ in cells))
    regularizers = list(dict.fromkeys(regularizer for _, regularizer in cells))
    first = max(map(len, [*norms, "norm"])) + GAP
    room = (terminal.width or LOG_WIDTH) - first
    for part in _parts(regularizers, cells, room):
        rows = [[Text(n), *(cells.get((n, r), Text()) for r in part)] for n in norms]
        yield terminal.drawn({"norm": False} | dict.fromkeys(part, True), rows) + "\n"


def _parts(
    regularizers: Sequence[str], cells: Mapping[tuple[str, str], Text], room: int
) -> Iterator[list[str]]:
    """Yield runs of columns that fit in ``room`` characters, at least one each."""
    part: list[str] = []
    left = room
    for regularizer in regularizers:
        texts = (len(cell) for (_, each), cell in cells.items() if each == regularizer)
        width = max(len(regularizer), *texts) + GAP
        if part and width > left:
            yield part
            part, left = [], room
        part.append(regularizer)
        left -= width
    yield part


def _cell(stored: StoredCase, beside: Beside) -> Text:
    mark = _mark(stored, beside)
    style = {"!": FAILED, "?": DOUBTFUL, "~": DOUBTFUL}.get(mark, "")
    if stored.test_accuracy is None:
        return Text(str(stored.verdict), style or _style(str(stored.verdict)))
    # marked or not, the figures stand below each other
    return Text(f"{100 * stored.test_accuracy:.2f}{mark or ' '}", style)
