"""How cases went over the stored sessions: as text, for programs, and as small charts."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from normbench.analysis.trends import DatedChange, Trend, trends
from normbench.report.tables import figure
from normbench.storage.history import Machine, Point, SessionEntry, open_history
from normbench.storage.session import StoredSession

# Sessions that the page looks at, the newest: a nightly of two months.
PAGE_SESSIONS = 60

LEVELS = "▁▂▃▄▅▆▇█"
UNCHANGED, NO_RESULT, ABSENT = "·", "x", "-"
LEGEND = (
    f"A character for each session: {LEVELS[0]} to {LEVELS[-1]} accuracy, {UNCHANGED} unchanged, "
    f"{NO_RESULT} ended badly, {ABSENT} not run"
)
NO_CHANGE = (
    "No accuracy has changed by more than its minimum effect, as far as these sessions tell."
)


def scale(trend: Trend) -> tuple[float, float]:
    """Return the ends of an axis on which noise does not look like a change.

    It reaches at least two units to either side of the median, and at most six: beyond, a run that
    collapsed would press all others together.
    """
    values = [p.test_accuracy for p in trend.case.points if p.test_accuracy is not None]
    if not values:
        return 0.0, 1.0
    middle = statistics.median(values)
    low = min(min(values), middle - 2 * trend.unit)
    high = max(max(values), middle + 2 * trend.unit)
    return max(low, middle - 6 * trend.unit, 0.0), min(high, middle + 6 * trend.unit, 1.0)


def sparkline(trend: Trend, sessions: Iterable[SessionEntry]) -> str:
    """Return a character for each session, as LEGEND says."""
    low, high = scale(trend)
    found = {point.session.name: point for point in trend.case.points}

    def character(point: Point | None) -> str:
        if point is None or point.skipped:
            return ABSENT
        if point.test_accuracy is None:
            return NO_RESULT
        if point.unchanged:
            return UNCHANGED
        share = (point.test_accuracy - low) / (high - low)
        # the median of an even scale lies between two levels, wherever rounding puts it
        level = int(len(LEVELS) * share + 1e-6)
        return LEVELS[min(max(level, 0), len(LEVELS) - 1)]

    return "".join(character(found.get(session.name)) for session in sessions)


def overview(
    sessions: Sequence[SessionEntry],
    found: Sequence[Trend],
    unreadable: Mapping[str, str],
    with_changes: bool,
) -> str:
    """Return the sessions, the newest last, then the cases, those that changed first."""
    parts = [_sessions_table(sessions)]
    parts += [f"passed over: {reason}" for reason in unreadable.values()]
    if found:
        parts += [_cases_table(found, sessions), LEGEND]
    if with_changes:
        told = [f"{t.case.name}: {told_change(change)}" for t in found for change in t.changes]
        parts.append("\n".join(told) or NO_CHANGE)
    return "\n\n".join(parts)


def course(trend: Trend, sessions: Sequence[SessionEntry], with_changes: bool) -> str:
    """Return a case's sparkline, what it came to in each session, and its changes."""
    low, high = (100 * end for end in scale(trend))
    points = trend.case.points
    machines = _letters(point.session.machine for point in points)
    changes = trend.changes if with_changes else ()
    changed = {change.after.session.name: _difference(change) for change in changes}
    rows = [
        {
            **_point_row(point),
            "machine": machines.get(point.session.machine, ""),
            "change": changed.get(point.session.name, ""),
        }
        for point in points
    ]
    line = f"{sparkline(trend, sessions)}  ({low:.2f} to {high:.2f} %)"
    parts = [f"{trend.case.name}\n{line}", _table(rows), *_machine_lines(machines)]
    if with_changes:
        parts.append("\n".join(map(told_change, changes)) or NO_CHANGE)
    return "\n\n".join(parts)


def told_change(change: DatedChange) -> str:
    """Say in a line when an accuracy changed, by how much, and what else did."""
    before, after = change.before.session, change.after.session
    sides = [
        ("commit", before.commit, after.commit),
        ("torch", before.torch, after.torch),
        ("Python", before.python, after.python),
    ]
    parts = [f"{name} {old} -> {new}" for name, old, new in sides if old != new]
    if before.machine != after.machine:
        parts.append("another machine")
    # of what was not trained neither is known
    if change.before.fingerprint not in ("", change.after.fingerprint):
        parts.append("another network or recipe")
    if change.before.code not in ("", change.after.code):
        parts.append("other code")
    place = ""
    if change.earliest != change.latest:
        ends = change.earliest.session.name, change.latest.session.name
        place = f"; the first session after it is one from {ends[0]} to {ends[1]} (95 %)"
    return (
        f"{_difference(change)} points since {after.name} ({_date(after)}): "
        f"{', '.join(parts) or 'same commit, torch and machine'}; "
        f"adjusted p {change.change.adjusted_p:.2g}{place}"
    )


def document(
    sessions: Sequence[SessionEntry],
    found: Sequence[Trend],
    unreadable: Mapping[str, str],
    with_changes: bool,
) -> dict[str, Any]:
    """Return what programs read of a history; accuracies are fractions."""
    return {
        "schema": 1,
        "sessions": [{**asdict(session), "cases": session.cases} for session in sessions],
        "unreadable": dict(unreadable),
        "cases": [
            {
                **{k: v for k, v in asdict(trend.case).items() if k != "points"},
                "name": trend.case.name,
                "moved": trend.moved,
                **({"changes": list(map(_change_document, trend.changes))} if with_changes else {}),
                "points": [
                    {**asdict(point), "session": point.session.name, "unchanged": point.unchanged}
                    for point in trend.case.points
                ],
            }
            for trend in found
        ],
    }


def _change_document(found: DatedChange) -> dict[str, Any]:
    low, high = found.change.difference.interval()
    sides = ("before", "after", "earliest", "latest")
    return {
        **{side: getattr(found, side).session.name for side in sides},
        "difference": found.change.difference.value,
        "interval": [low, high],
        "adjusted_p": found.change.adjusted_p,
    }


def small_multiples(session: StoredSession, bands: Mapping[str, Any]) -> dict[str, Any]:
    """Return a small chart for each case that the session and an earlier one have.

    Percentages, sessions by their places. A point is the session, accuracy, half a 95 % interval,
    runs (none where it is unchanged) and what it came to instead, or since when it is unchanged.
    ``bands`` are the ranges in which the baseline is met, by the cases' titles. A session of
    broken code has no history.
    """
    if session.planted:
        return {"sessions": [], "cases": []}
    name = session.folder.name
    with open_history(session.folder.parent) as history:
        entries = history.sessions(PAGE_SESSIONS, until=name)
        cases = history.cases(entries)
    shown = [entry for entry in entries if not entry.planted]
    places = {entry.name: place for place, entry in enumerate(shown)}
    both = [
        case
        for case in cases
        if (last := case.points[-1]).session.name == name
        and not last.skipped
        and any(point.test_accuracy is not None for point in case.points[:-1])
    ]
    return {
        "sessions": [
            f"{_date(entry)}, commit {entry.commit}, torch {entry.torch}" for entry in shown
        ],
        "cases": [
            _small_chart(trend, places, bands.get(trend.case.title))
            for trend in trends(both, family=len(both))
        ],
    }


def _small_chart(trend: Trend, places: Mapping[str, int], band: Any) -> dict[str, Any]:
    low, high = (100 * end for end in scale(trend))
    points = [point for point in trend.case.points if not point.skipped]
    known = [point for point in points if point.test_accuracy is not None]
    return {
        "case": trend.case.name,
        "caption": _caption(trend, known),
        "changed": bool(trend.changes) or trend.is_notable,
        "low": round(min([low, *(band or ())]), 3),
        "high": round(max([high, *(band or ())]), 3),
        "band": band,
        "points": [
            [
                places[point.session.name],
                _percent(point.test_accuracy),
                _percent(point.margin_of_error),
                point.runs,
                point.replayed if point.test_accuracy is not None else point.verdict,
            ]
            for point in points
        ],
        "changes": [
            [places[change.after.session.name], told_change(change)] for change in trend.changes
        ],
    }


def _caption(trend: Trend, known: Sequence[Point]) -> str:
    """Return the last accuracy, by how much it changed last and when, and how many there are."""
    last_point, changed = trend.case.points[-1], ""
    ended = f"{last_point.verdict}, before " if last_point.test_accuracy is None else ""
    if trend.changes:
        last = trend.changes[-1]
        points = 100 * last.change.difference.value
        changed = f" ({points:+.2f} since {_date(last.after.session)[:10]})"
    sessions = f"{len(known)} session{'' if len(known) == 1 else 's'}"
    return f"{ended}{100 * (known[-1].test_accuracy or 0):.2f} %{changed}, {sessions}"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 3)


def _date(session: SessionEntry) -> str:
    """Return when a session started, to the minute, in UTC."""
    return session.started[:16].replace("T", " ")


def _difference(change: DatedChange) -> str:
    difference = change.change.difference
    low, high = difference.interval()
    return f"{100 * difference.value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def _sessions_table(sessions: Sequence[SessionEntry]) -> str:
    machines = _letters(session.machine for session in sessions)
    rows = [
        {
            "session": session.name,
            "started (UTC)": _date(session),
            "status": session.status,
            "tier": session.tier or "",
            "torch": session.torch or "",
            "commit": session.commit or "",
            "machine": machines.get(session.machine, ""),
            "cases": str(session.cases),
            "verdicts": _counts(session.verdicts),
            "beside the baseline": _counts(session.outcomes),
            "planted": session.planted,
        }
        for session in sessions
    ]
    return "\n\n".join([_table(rows), *_machine_lines(machines)])


def _cases_table(found: Sequence[Trend], sessions: Sequence[SessionEntry]) -> str:
    rows = []
    for trend in found:
        last = trend.case.points[-1]
        accuracies = [p.test_accuracy for p in trend.case.points if p.test_accuracy is not None]
        rows.append(
            {
                "case": trend.case.name,
                "history": sparkline(trend, sessions),
                "last %": figure(100 * accuracies[-1], ".2f") if accuracies else "",
                "moved": "" if trend.moved is None else figure(100 * trend.moved, "+.2f"),
                "sessions": str(len(trend.case.points)),
                "verdict": last.verdict,
                "beside the baseline": last.outcome or "",
            }
        )
    return _table(rows)


def _point_row(point: Point) -> dict[str, str]:
    """Return what is shown of a case in one session; accuracies in percent."""

    def percent(fraction: float | None) -> str:
        return figure(None if fraction is None else 100 * fraction, ".2f")

    return {
        "session": point.session.name,
        "started (UTC)": _date(point.session),
        "test %": percent(point.test_accuracy),
        "±": percent(point.margin_of_error),
        "sd": percent(point.deviation),
        "n": str(point.runs),
        "images/s": figure(point.images_per_second, ".0f"),
        "torch": point.session.torch or "",
        "commit": point.session.commit or "",
        "verdict": point.verdict,
        "since": point.replayed,
        "beside the baseline": point.outcome or "",
    }


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in Counter(counts).most_common())


def _letters(machines: Iterable[Machine]) -> dict[Machine, str]:
    """Return a letter for each machine; none where all are one."""
    distinct = list(dict.fromkeys(machines))
    names = (_letter(number) for number in range(len(distinct)))
    return dict(zip(distinct, names, strict=True)) if len(distinct) > 1 else {}


def _letter(number: int) -> str:
    """Count A to Z, then AA and so on."""
    rest, letter = divmod(number, 26)
    return (_letter(rest - 1) if rest else "") + chr(ord("A") + letter)


def _machine_lines(machines: Mapping[Machine, str]) -> list[str]:
    """Say which machine each letter stands for, by all that tells it from others."""
    words = {machine: _machine_words(machine) for machine in machines}
    times = Counter(words.values())
    lines = [
        f"{letter}: {words[machine]}"
        + (f", {machine.instruction_sets}" if times[words[machine]] > 1 else "")
        for machine, letter in machines.items()
    ]
    return ["\n".join(lines)] if lines else []


def _machine_words(machine: Machine) -> str:
    kind = (machine.cpu_family, machine.cpu_model, machine.cpu_stepping)
    known = f" (family {kind[0]}, model {kind[1]}, stepping {kind[2]})" if any(kind) else ""
    gpus = f", {machine.gpus}" if machine.gpus else ""
    return f"{machine.processor}{known}, {machine.cores} cores{gpus}"


# Columns of figures; all others are texts.
NUMBERS = ("last %", "moved", "sessions", "cases", "test %", "±", "sd", "n", "images/s")


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the columns that say something, as a table for the terminal."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    return tabulate(
        [[row[name] for name in columns] for row in rows],
        headers=columns,
        tablefmt="simple",
        colalign=["right" if name in NUMBERS else "left" for name in columns],
        disable_numparse=True,
    )
