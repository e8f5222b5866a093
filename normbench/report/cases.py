"""The cases of sessions as the page's script has them: figures, differences, what needs a look."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import pandas as pd

from normbench.analysis.comparison import COMPARED, CaseComparison, Comparison
from normbench.analysis.thresholds import minimum_effect
from normbench.analysis.verdicts import NOT_FAILED, verdict_counts
from normbench.report.tables import COLUMNS, case_row
from normbench.results import CaseVerdict, Outcome
from normbench.spec import RunSpec, counted_epochs
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession

# What else than a failure is worth a look, the gravest first.
WORTH_A_LOOK = (Outcome.REGRESSION, Outcome.SUSPECTED, Outcome.NOT_COMPARABLE, Outcome.IMPROVEMENT)

# Decimal places of percentages: a hundredth of a test image of 10,000.
PLACES = 4


# With curves, matrices and pictures, this many make a page of 5 MB, which opens in a second or two.
MOST_CASES = 2000


class Interval(NamedTuple):
    """A figure in percentage points, with half a 95 % interval; None where it is not known."""

    value: float
    reach: float | None


class Beside(TypedDict):
    """A case beside its baseline: percentages, with the difference in points."""

    outcome: str
    baseline: float | None
    runs: int
    difference: Interval | None
    adjusted_p: float | None
    reason: str


class PageCase(TypedDict):
    """A case as the page has it: ``figures`` are its row in the table of its grid.

    ``key`` is its id, in words that are its own on the page, ``title`` its name in the history,
    ``line`` is what it is called in charts, ``room`` how far it lies above its target, ``effect``
    the difference that matters, and ``look`` why it needs a look, if it does.
    """

    key: str
    session: int
    grid: str
    id: str
    title: str
    setting: str
    norm: str
    line: str
    regularizer: str
    batch_size: int
    figures: dict[str, Any]
    failed: bool
    beside: Beside | None
    room: Interval | None
    effect: float
    look: str
    command: str


def setting(spec: RunSpec) -> str:
    """Return what configurations must have in common to stand in one chart."""
    part = f" of {spec.train_images:,} images" if spec.train_images else ""
    return f"{spec.dataset}, {counted_epochs(spec.epochs)}{part}"


def drawn_cases(session: StoredSession) -> list[StoredCase]:
    """Return the cases with a verdict that a page has room for, in the order of their grids.

    Where there are more than MOST_CASES, those come first that need a look.
    """
    cases = session.judged_cases
    if len(cases) <= MOST_CASES:
        return cases
    compared = _compared(session)

    def looks(stored: StoredCase) -> bool:
        found = compared.get(stored.case.spec.with_seed(0))
        outcome = None if found is None else found.outcome
        held = stored.verdict in NOT_FAILED and stored.verdict is not CaseVerdict.MARGINAL
        return not held or outcome in WORTH_A_LOOK

    places = sorted(range(len(cases)), key=lambda place: not looks(cases[place]))
    return [cases[place] for place in sorted(places[:MOST_CASES])]


def _compared(session: StoredSession) -> Mapping[RunSpec, CaseComparison]:
    stored = session.document.comparison
    return {} if stored is None else Comparison.of_stored(stored).by_configuration


def page_cases(
    session: StoredSession, cases: Iterable[StoredCase], number: int, mark: str
) -> list[PageCase]:
    """Return these cases of a session as the page has them.

    ``number`` is the session's on the page, and ``mark`` tells its lines from the others'.
    """
    compared = _compared(session)
    return [
        _page_case(session, case, compared.get(case.spec.with_seed(0)), number, mark)
        for case in cases
    ]


def _page_case(
    session: StoredSession,
    stored: StoredCase,
    compared: CaseComparison | None,
    number: int,
    mark: str,
) -> PageCase:
    spec, figures = stored.spec, _plain(case_row(stored, session.runs(stored.case)))
    case = stored.case
    return PageCase(
        key=case.id + mark,
        session=number,
        grid=stored.grid,
        id=case.id,
        title=f"{stored.grid}: {spec.title}",
        setting=setting(spec),
        norm=spec.norm,
        line=spec.norm + mark,
        regularizer=spec.regularizer,
        batch_size=spec.batch_size,
        figures=figures,
        failed=stored.verdict not in NOT_FAILED,
        beside=None if compared is None else _beside(compared),
        room=_room(figures),
        effect=100 * _effect(spec, compared),
        look=_look(stored, figures, compared),
        command=_command(stored, session.document.options),
    )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that there are, as JSON has them."""
    known = {name: row[name] for name in COLUMNS if not pd.isna(row[name])}
    return {k: round(float(v), PLACES) if isinstance(v, float) else v for k, v in known.items()}


def _effect(spec: RunSpec, compared: CaseComparison | None) -> float:
    chosen = compared.minimum_effect if compared is not None else 0.0
    return chosen or minimum_effect(spec.dataset)


def _room(figures: Mapping[str, Any]) -> Interval | None:
    accuracy, target = figures.get("test_accuracy_percent"), figures.get("target_percent")
    if accuracy is None or target is None:
        return None
    return Interval(round(accuracy - target, PLACES), figures.get("interval_points"))


def _beside(case: CaseComparison) -> Beside:
    difference = None
    if case.before and case.now:
        known = case.variance.known
        reach = 100 * case.difference.margin_of_error(0.025) if known else None
        difference = Interval(
            round(100 * case.difference.value, PLACES),
            None if reach is None else round(reach, PLACES),
        )
    mean = 100 * sum(case.before) / len(case.before) if case.before else None
    return Beside(
        outcome=str(case.outcome),
        baseline=None if mean is None else round(mean, PLACES),
        runs=len(case.before),
        difference=difference,
        adjusted_p=case.adjusted_p,
        reason=case.reason,
    )


def _look(stored: StoredCase, figures: Mapping[str, Any], compared: CaseComparison | None) -> str:
    """Say why a case needs a look; nothing if it does not."""
    reasons = []
    if stored.verdict is not None and stored.verdict not in NOT_FAILED:
        told = stored.reason or _missed(figures)
        reasons.append(f"{stored.verdict}: {told}" if told else str(stored.verdict))
    elif stored.verdict is CaseVerdict.MARGINAL and (room := _room(figures)) is not None:
        reasons.append(f"marginal: {room.value:.2f} points above its target")
    if compared is not None and compared.outcome in WORTH_A_LOOK:
        beside = _beside(compared)
        found = beside["difference"]
        told = f"{found.value:+.2f} points beside the baseline" if found else ""
        reasons.append(": ".join(filter(None, [str(compared.outcome), told or beside["reason"]])))
    return "; ".join(reasons)


def _missed(figures: Mapping[str, Any]) -> str:
    room = _room(figures)
    if room is None:
        return ""
    accuracy, target = figures["test_accuracy_percent"], figures["target_percent"]
    return f"{accuracy:.2f} %, where more than {target:.2f} % is expected"


def _command(stored: StoredCase, options: Mapping[str, Any]) -> str:
    """Return the command that runs a case again, with the options that made it one."""
    parts = ["normbench", "run", "--bench-tier", str(options.get("tier", stored.tier))]
    # what was added to the grids, as far as this case needs it
    own = {"norm": stored.spec.norm, "regularizer": stored.spec.regularizer}
    for file in options.get("cases") or ():
        parts += ["--bench-cases", str(file)]
    for option, value in own.items():
        if value in (options.get(option) or ()):
            parts += [f"--bench-{option}", value]
    if stored.seeds > 1:
        parts += ["--bench-seeds", str(stored.seeds)]
    # in brackets, as pytest names it: a part of another case's name is none
    return shlex.join([*parts, "-k", f"[{stored.case.id}]"])


def verdict(sessions: Sequence[StoredSession]) -> str:
    """Say in one sentence what came of the sessions."""
    told = list(map(_verdict, sessions))
    if len(told) == 1:
        return f"{told[0]}."
    return " ".join(f"Session {number}: {text}." for number, text in enumerate(told, start=1))


def _verdict(session: StoredSession) -> str:
    counts = verdict_counts(session.judged_cases)
    if not counts:
        return "No case was run"
    failed = sum(number for verdict, number in counts.items() if verdict not in NOT_FAILED)
    # what has no target holds nothing
    others = {v: counts[v] for v in (CaseVerdict.MEASURED, CaseVerdict.SKIPPED) if v in counts}
    judged = sum(counts.values()) - sum(others.values())
    parts = [f"{judged - failed} of {judged} {'case holds' if judged == 1 else 'cases hold'}"]
    parts = [*(parts if judged else ()), *(f"{n} {verdict}" for verdict, n in others.items())]
    if session.document.comparison is not None:
        comparison = Comparison.of_stored(session.document.comparison)
        for outcome in (Outcome.REGRESSION, Outcome.SUSPECTED, Outcome.IMPROVEMENT):
            if found := comparison.of(outcome):
                parts.append(f"{_counted(len(found), outcome)}: {_listed(found)}")
        if undecided := comparison.of(Outcome.UNDECIDED):
            parts.append(f"{len(undecided)} undecided")
        if not comparison.of(*COMPARED):
            parts.append("none compared with the baseline")
    return "; ".join(parts)


def _counted(number: int, outcome: Outcome) -> str:
    plural = outcome in (Outcome.REGRESSION, Outcome.IMPROVEMENT) and number > 1
    return f"{number} {outcome}{'s' if plural else ''}"


def _listed(cases: Iterable[CaseComparison], most: int = 2) -> str:
    names = [case.spec.title for case in cases]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
