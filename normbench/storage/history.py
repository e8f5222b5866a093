"""An index of the stored sessions: which there are, and how their cases went.

The sessions' folders are the truth. ``history.sqlite`` beside ``runs`` is made of them, brought up
to date whenever it is opened, and may be deleted at any time.
"""

import json
import os
import sqlite3
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from normbench.results import CaseVerdict
from normbench.spec import configuration_label
from normbench.storage.baseline import images_per_second
from normbench.storage.documents import StoredCase, StoredVariance
from normbench.storage.environment import PROCESSOR
from normbench.storage.session import SessionError, StoredSession, read_session
from normbench.training.datasets import Dataset, facts_of, learn_datasets

FILE = "history.sqlite"

# An index of another version is made anew: raise it with the tables, and with what is put in them.
VERSION = 3

TABLES = """
CREATE TABLE datasets (name TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE sessions (
    stamp TEXT NOT NULL, name TEXT PRIMARY KEY,
    started TEXT NOT NULL, status TEXT NOT NULL, tier TEXT, planted TEXT NOT NULL,
    torch TEXT, python TEXT, commit_hash TEXT,
    processor TEXT, cpu_family TEXT, cpu_model TEXT, cpu_stepping TEXT, instruction_sets TEXT,
    cores INTEGER, gpus TEXT,
    verdicts TEXT NOT NULL, outcomes TEXT NOT NULL
);
CREATE TABLE parts (name TEXT NOT NULL, merged TEXT NOT NULL);
CREATE TABLE cases (
    id INTEGER PRIMARY KEY, grid TEXT NOT NULL, title TEXT NOT NULL,
    dataset TEXT NOT NULL, norm TEXT NOT NULL, regularizer TEXT NOT NULL,
    batch_size INTEGER NOT NULL, epochs INTEGER NOT NULL,
    UNIQUE (grid, title)
);
CREATE TABLE points (
    case_id INTEGER NOT NULL REFERENCES cases, session TEXT NOT NULL REFERENCES sessions,
    place INTEGER NOT NULL, verdict TEXT NOT NULL, outcome TEXT, runs INTEGER NOT NULL,
    test_accuracy REAL, margin_of_error REAL, deviation REAL,
    variance REAL, degrees_of_freedom REAL, images_per_second REAL,
    device TEXT NOT NULL, threads TEXT NOT NULL, fingerprint TEXT NOT NULL, code TEXT NOT NULL,
    replayed TEXT NOT NULL,
    PRIMARY KEY (session, case_id)
) WITHOUT ROWID;
"""


class HistoryError(ValueError):
    """A history that there is none of, or that is not clear."""


@dataclass(frozen=True)
class Machine:
    """What tells the machines of sessions apart, as far as their documents say."""

    processor: str | None
    cpu_family: str | None
    cpu_model: str | None
    cpu_stepping: str | None
    instruction_sets: str | None
    cores: int | None
    gpus: str

    @classmethod
    def of(cls, environment: Mapping[str, Any]) -> "Machine":
        told: dict[str, Any] = {name: _text(environment.get(name)) for name in PROCESSOR}
        gpus = ", ".join(map(str, environment.get("gpus") or ()))
        cores = environment.get("cores")
        return cls(**told, cores=cores if isinstance(cores, int) else None, gpus=gpus)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True)
class SessionEntry:
    """A session as the index knows it, by the name of its folder.

    ``verdicts`` and ``outcomes`` count its cases by what they came to, on their own and beside the
    baseline.
    """

    name: str
    started: str
    status: str
    tier: str | None
    planted: str
    torch: str | None
    python: str | None
    commit: str | None
    machine: Machine
    verdicts: Mapping[str, int]
    outcomes: Mapping[str, int]

    @property
    def cases(self) -> int:
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class Point:
    """What a case came to in one session.

    ``test_accuracy`` is the mean over ``runs`` runs, a fraction, None where none ended well;
    ``margin_of_error`` is half a 95 % interval, and ``deviation`` the standard deviation of those
    runs; ``variance`` is that of one run as the session's baseline knows it, with its
    ``degrees_of_freedom``. What follows is of those runs as well, several texts joined by ``+``;
    ``replayed`` names the sessions that other rows were taken from. A case whose rows all were has
    an accuracy and no runs.
    """

    session: SessionEntry
    verdict: str
    outcome: str | None
    runs: int
    test_accuracy: float | None
    margin_of_error: float | None
    deviation: float | None
    variance: float | None
    degrees_of_freedom: float | None
    images_per_second: float | None
    device: str
    threads: str
    fingerprint: str
    code: str
    replayed: str

    @property
    def skipped(self) -> bool:
        return self.verdict == CaseVerdict.SKIPPED

    @property
    def unchanged(self) -> bool:
        """Whether nothing was trained, and the accuracy is an earlier session's."""
        return self.test_accuracy is not None and not self.runs


@dataclass(frozen=True)
class CaseHistory:
    """A case with what it came to in each session that judged it, the oldest first."""

    grid: str
    title: str
    dataset: str
    norm: str
    regularizer: str
    batch_size: int
    epochs: int
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The name that no case of another grid has."""
        return f"{self.grid}: {self.title}"

    @property
    def id(self) -> str:
        """The name that pytest shows."""
        return f"{self.grid}-{configuration_label(self.norm, self.regularizer, self.batch_size)}"


# The most names that an error lists.
LISTED = 6


def find_case(cases: Sequence[CaseHistory], text: str) -> CaseHistory:
    """Return the case that ``text`` names: as pytest or a table does, or by a part of its name.

    Raises HistoryError where no case has that name, or several have.
    """
    wanted = text.casefold()

    def names(case: CaseHistory) -> list[str]:
        return [name.casefold() for name in (case.name, case.title, case.id)]

    # a name that is also a part of others' is meant as a whole
    found = [case for case in cases if wanted in names(case)]
    found = found or [case for case in cases if any(wanted in name for name in names(case))]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(case.name for case in (found or cases)[:LISTED])
    more = len(found or cases) - LISTED
    told = f"{listed}{f'; and {more} more' if more > 0 else ''}"
    if not found:
        raise HistoryError(f"no stored session has a case named {text!r}: expected one of {told}")
    raise HistoryError(f"{text!r} names {len(found)} cases: expected one of {told}")


class History:
    """The sessions of a folder, as the index has them.

    ``unreadable`` says, by their folders' names, why sessions were passed over.
    """

    def __init__(self, index: sqlite3.Connection, unreadable: Mapping[str, str]) -> None:
        self._index = index
        known = index.execute("SELECT name, facts FROM datasets")
        learn_datasets({name: DATASET.validate_json(facts) for name, facts in known})
        self.unreadable = unreadable

    def sessions(self, last: int | None = None, until: str | None = None) -> list[SessionEntry]:
        """Return the ``last`` sessions, the oldest first, up to the one of the name ``until``.

        One that was merged with others is left out, unless ``until`` names it, as its runs are in
        what they have become.
        """
        rows = self._index.execute(
            "SELECT * FROM sessions WHERE (name = :until OR name NOT IN (SELECT name FROM parts)) "
            "AND (:until IS NULL OR (started, name) <= "
            "(SELECT started, name FROM sessions WHERE name = :until)) "
            "ORDER BY started DESC, name DESC LIMIT :last",
            {"until": until, "last": -1 if last is None else last},
        )
        return [_entry(row) for row in rows][::-1]

    def cases(self, sessions: Sequence[SessionEntry]) -> list[CaseHistory]:
        """Return the cases that the sessions have judged, in the order of the newest one's grids.

        Sessions with a planted fault judged none: their figures are of broken code.
        """
        points: dict[int, list[Point]] = {}
        newest: dict[int, tuple[int, int]] = {}
        for age, session in zip(range(len(sessions), 0, -1), sessions, strict=True):
            rows = self._index.execute(
                f"SELECT case_id, place, {', '.join(FIGURES)} FROM points WHERE session = ?",
                (session.name,),
            )
            for case, place, *figures in rows:
                points.setdefault(case, []).append(Point(session, *figures))
                newest[case] = (age, place)
        known = self._index.execute(f"SELECT id, {', '.join(NAMES)} FROM cases")
        names = {case: dict(zip(NAMES, named, strict=True)) for case, *named in known}
        order = sorted(points, key=lambda case: newest[case])
        return [CaseHistory(**names[case], points=tuple(points[case])) for case in order]


DATASET = TypeAdapter(Dataset)

# The columns of a point and of a case, but for what they are known by.
FIGURES = [field.name for field in fields(Point)][1:]
NAMES = [field.name for field in fields(CaseHistory)][:-1]


def _entry(row: Sequence[Any]) -> SessionEntry:
    """Return the session that a whole row of its table tells of."""
    name, started, status, tier, planted, torch, python, commit = row[1:9]
    machine, verdicts, outcomes = Machine(*row[9:-2]), json.loads(row[-2]), json.loads(row[-1])
    return SessionEntry(
        name, started, status, tier, planted, torch, python, commit, machine, verdicts, outcomes
    )


@contextmanager
def open_history(runs: Path) -> Iterator[History]:
    """Open the history of the sessions in ``runs``, brought up to date.

    Where the index cannot be kept, or ``runs`` is no results folder's, it is made in memory alone.
    """
    runs = runs.resolve()
    file = runs.parent / FILE if runs.name == "runs" and runs.is_dir() else None
    stored = _read_index(file) if file is not None else None
    with closing(stored or _new_index()) as index:
        has_changed, unreadable = _bring_up_to_date(index, runs)
        if file is not None and (has_changed or stored is None):
            _keep(index, file)
        yield History(index, unreadable)


def _new_index() -> sqlite3.Connection:
    index = sqlite3.connect(":memory:")
    index.executescript(f"{TABLES} PRAGMA user_version = {VERSION};")
    return index


def _read_index(file: Path) -> sqlite3.Connection | None:
    """Return a copy of the index in memory; None for another version, and for damage."""
    index = sqlite3.connect(":memory:")
    try:
        # immutable: it is only ever replaced as a whole, so there is nothing to wait for
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as stored:
            stored.backup(index)
        (version,) = index.execute("PRAGMA user_version").fetchone()
        (state,) = index.execute("PRAGMA quick_check(1)").fetchone()
        if (version, state) == (VERSION, "ok"):
            return index
    except sqlite3.DatabaseError:
        pass
    index.close()
    return None


def _keep(index: sqlite3.Connection, file: Path) -> None:
    """Write the index, whole or not at all; where that is not possible, it is made again.

    Of two processes that do so at once, the last one's is kept; what it lacks is added when it is
    next opened.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as written:
            index.backup(written)
        temporary.replace(file)
    except (OSError, sqlite3.Error):
        temporary.unlink(missing_ok=True)


def _bring_up_to_date(index: sqlite3.Connection, runs: Path) -> tuple[bool, dict[str, str]]:
    """Enter sessions that are new or have changed, and take out those that are gone.

    Return whether there were any, and why sessions cannot be read. Those are not entered, so that
    they are tried again: another version of normbench may be able to read them.
    """
    found = dict(_stamps(runs))
    known = dict(index.execute("SELECT name, stamp FROM sessions").fetchall())
    outdated = [(name,) for name, stamp in known.items() if found.get(name) != stamp]
    unreadable: dict[str, str] = {}
    entered = 0
    with index:
        index.executemany("DELETE FROM points WHERE session = ?", outdated)
        index.executemany("DELETE FROM sessions WHERE name = ?", outdated)
        index.executemany("DELETE FROM parts WHERE merged = ?", outdated)
        for name, stamp in found.items():
            if known.get(name) == stamp:
                continue
            try:
                session = read_session(runs / name)
                points = list(_points(session))
            except SessionError as error:
                unreadable[name] = str(error)
                continue
            _enter(index, name, stamp, session, points)
            entered += 1
    return bool(outdated or entered), unreadable


def _stamps(runs: Path) -> Iterator[tuple[str, str]]:
    """Yield each session's name with the sizes and times of the files that are read of it."""
    if not runs.is_dir():
        return
    for folder in sorted(runs.iterdir()):
        # a hidden folder is one that is being imported
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        files = (folder / "session.json", folder / "runs.jsonl")
        yield folder.name, " ".join(map(_stamp, files))


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return "none"
    return f"{status.st_size}:{status.st_mtime_ns}"


# A case's columns, and those of its point but for session and case.
Entered = tuple[tuple[Any, ...], tuple[Any, ...]]


def _points(session: StoredSession) -> Iterator[Entered]:
    """Yield what the index keeps of each judged case; nothing of code with a planted fault."""
    if session.planted:
        return
    comparison = session.document.comparison
    compared = comparison.cases if comparison else ()
    beside = {case.spec.with_seed(0): case for case in compared}
    for place, stored in enumerate(session.judged_cases):
        spec = stored.spec
        found = beside.get(spec.with_seed(0))
        yield (
            (
                *(stored.grid, spec.title, spec.dataset, spec.norm),
                *(spec.regularizer, spec.batch_size, spec.epochs),
            ),
            (
                *(place, str(stored.verdict), str(found.outcome) if found else None),
                *_figures(session, stored, found.variance if found else None),
            ),
        )


def _figures(
    session: StoredSession, stored: StoredCase, variance: StoredVariance | None
) -> tuple[Any, ...]:
    runs = session.runs(stored.case)
    trained = [run for run in runs if not run.replayed]
    accuracies = [run.test_accuracy for run in trained if run.status == "ok"]
    return (
        stored.runs,
        stored.test_accuracy,
        stored.margin_of_error,
        statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        *((variance.value, variance.degrees_of_freedom) if variance else (None, None)),
        images_per_second(stored.spec, trained),
        _told(run.device.partition(":")[0] for run in trained),
        _told(str(run.threads or "") for run in trained),
        _told(run.fingerprint for run in trained),
        _told(run.code for run in trained),
        _told(run.replayed for run in runs),
    )


def _told(texts: Iterable[str]) -> str:
    return "+".join(sorted({text for text in texts if text}))


def _enter(
    index: sqlite3.Connection,
    name: str,
    stamp: str,
    session: StoredSession,
    points: Iterable[Entered],
) -> None:
    document = session.document
    environment = document.environment
    compared = document.comparison.cases if document.comparison else ()
    _insert(
        index,
        "sessions",
        *(stamp, name, document.started, document.status, _text(document.options.get("tier"))),
        document.planted,
        *(_text(environment.get(key)) for key in ("torch", "python", "commit")),
        *astuple(Machine.of(environment)),
        json.dumps(Counter(str(case.verdict) for case in session.judged_cases)),
        json.dumps(Counter(str(case.outcome) for case in compared)),
    )
    for part in document.options.get("merged") or ():
        _insert(index, "parts", part, name)
    for dataset, facts in facts_of(case.spec.dataset for case in document.cases).items():
        index.execute(
            "INSERT OR REPLACE INTO datasets VALUES (?, ?)",
            (dataset, DATASET.dump_json(facts).decode()),
        )
    for case, figures in points:
        holes = ", ".join("?" * len(case))
        index.execute(f"INSERT OR IGNORE INTO cases ({', '.join(NAMES)}) VALUES ({holes})", case)
        known = "SELECT id FROM cases WHERE grid = ? AND title = ?"
        (number,) = index.execute(known, case[:2]).fetchone()
        _insert(index, "points", number, name, *figures)


def _insert(index: sqlite3.Connection, table: str, *values: Any) -> None:
    index.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
