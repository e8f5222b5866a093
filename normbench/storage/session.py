"""A session's folder: opened, written, and read again; nothing else reads session.json."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import Timeout

from normbench.cases.case import Case, Claim
from normbench.check.properties import Checked
from normbench.check.trace_record import Trace
from normbench.locks import locked
from normbench.results import RunResult, Runs
from normbench.storage.checks import read_checks
from normbench.storage.documents import (
    SESSION_SCHEMA,
    SessionDocument,
    Status,
    StoredCase,
    StoredClaim,
    StoredComparison,
    read_json,
    require_schema,
    validated,
)
from normbench.storage.files import remove_if_possible, write_atomic
from normbench.storage.first_schema import upgraded
from normbench.storage.runs import RunStore
from normbench.storage.traces import read_traces
from normbench.training.datasets import Dataset


class SessionError(ValueError):
    """A session that cannot be read, written, or resumed."""


@dataclass(frozen=True)
class StoredSession:
    """A session as its folder holds it; all that is shown of a session is drawn from this."""

    folder: Path
    document: SessionDocument

    @property
    def name(self) -> str:
        return self.document.session

    @property
    def planted(self) -> str:
        """The name of the fault that was planted; empty where the code ran as it is."""
        return self.document.planted

    @property
    def sequential(self) -> bool:
        """Whether --bench-seeds auto chose the numbers of runs."""
        return self.document.options.get("seeds") == "auto"

    @cached_property
    def results(self) -> dict[str, RunResult]:
        """The stored runs by their specs' keys.

        Raises SessionError for a row that is none, and for one that was run with another fault
        planted than the session: of different code, they must not stand in one table.
        """
        try:
            results = RunStore(self.folder).results()
        except (OSError, ValueError) as error:
            raise SessionError(f"cannot read the session {self.folder}: {error}") from error
        other = next((r for r in results.values() if r.planted != self.planted), None)
        if other is not None:
            raise SessionError(
                f"cannot read the session {self.folder}: its run of {other.spec} had "
                f"{_planted(other.planted)}, and the session {_planted(self.planted)}; expected "
                "the rows that the session wrote: take that row out"
            )
        return results

    def require_rows(self) -> None:
        """Raise SessionError where rows are lost that session.json tells of."""
        lost = [
            stored.case.id
            for stored in self.judged_cases
            # an unchanged case counts no run, and has the rows that were taken for it
            if max(stored.runs, stored.test_accuracy is not None)
            > sum(run.status == "ok" for run in self.runs(stored.case))
        ]
        if lost:
            has = "lacks some" if self.results else "has none"
            raise SessionError(
                f"{self.folder}: runs.jsonl {has} of the runs that session.json tells of, such as "
                f"those of {lost[0]}; expected the rows that the session wrote"
            )

    @property
    def planned_runs(self) -> list[RunResult]:
        """The stored runs but those that a suspicion has added to its case."""
        cases = [(stored, stored.case.specs) for stored in self.document.cases]
        planned = {spec for stored, s in cases for spec in s[: len(s) - stored.confirming]}
        added = {spec for stored, s in cases for spec in s[len(s) - stored.confirming :]}
        return [run for run in self.results.values() if run.spec not in added - planned]

    @cached_property
    def cases(self) -> dict[str, Case]:
        """The cases that the session was to run, by id, in the order of their grids."""
        return {stored.case.id: stored.case for stored in self.document.cases}

    @property
    def judged_cases(self) -> list[StoredCase]:
        """The cases that have a verdict."""
        return [stored for stored in self.document.cases if stored.verdict is not None]

    @cached_property
    def claims(self) -> list[tuple[Claim, StoredClaim]]:
        """The claims that were judged, each with what is stored of it."""
        judged = (stored for stored in self.document.claims if stored.verdict is not None)
        try:
            return [(stored.claim(self.cases), stored) for stored in judged]
        except KeyError as error:
            raise SessionError(
                f"cannot read the session {self.folder}: a claim needs the case {error}, which it "
                "does not have"
            ) from error

    @cached_property
    def checks(self) -> tuple[Checked, ...]:
        """What the session's checks have found; raises SessionError where it cannot be read."""
        try:
            return read_checks(self.folder)
        except (OSError, ValueError) as error:
            raise SessionError(_unreadable(error)) from error

    @cached_property
    def traces(self) -> tuple[Trace, ...]:
        """The session's traces; raises SessionError where one cannot be read."""
        try:
            return read_traces(self.folder)
        except (OSError, ValueError) as error:
            raise SessionError(_unreadable(error)) from error

    def runs(self, case: Case) -> Runs:
        """Return the stored runs of a case."""
        return Runs.of(self.results[s.key] for s in case.specs if s.key in self.results)


def _unreadable(error: Exception) -> str:
    return f"cannot read {error}; remove that file to read the session without it"


def read_session(folder: Path) -> StoredSession:
    """Read a session's folder, of this schema or an older one; rows are read when asked for.

    Raises SessionError where the folder is none.
    """
    folder = folder.resolve()
    file = folder / "session.json"
    try:
        values = read_json(file)
        if require_schema(values, file, 1, 2, SESSION_SCHEMA) == 1:
            values = _upgraded(folder, values)
        return StoredSession(folder, validated(SessionDocument, values, file))
    except (OSError, ValueError) as error:
        raise SessionError(
            f"cannot read the session {folder}: {error}; expected a folder with session.json and "
            "runs.jsonl, as a session leaves it"
        ) from error


def _upgraded(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return session.json of schema 1 in today's terms; raises ValueError where it is none."""
    try:
        return upgraded(folder, values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: it is not as schema 1 has it: {error!r}") from error


@dataclass
class Session:
    """A session that runs: its folder, ``results/runs/<name>``, and what session.json says."""

    results: Path
    name: str
    workers: int = 1
    planted: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    cases: Sequence[StoredCase] = ()
    claims: Sequence[StoredClaim] = ()
    comparison: StoredComparison | None = None
    whole: Sequence[str] = ()
    started: float = field(default_factory=time.time)
    earlier_seconds: float = 0.0
    resumed: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict)
    _begun: float = field(default_factory=time.monotonic, repr=False)
    _lock: ExitStack | None = field(default=None, repr=False)

    @classmethod
    def interrupted(cls, results: Path, options: dict[str, Any]) -> "Session":
        """Return the last session in ``results``, to go on with.

        Raises SessionError where there is none, where it has finished, and where a fault was
        planted: its runs are of other code.
        """
        try:
            stored = read_session(latest_session(results))
            started = datetime.fromisoformat(stored.document.started).timestamp()
        except (OSError, ValueError) as error:
            raise SessionError(
                f"there is no session to resume in {results}: {error}; run without --bench-resume"
            ) from error
        document = stored.document
        if document.status == "finished":
            raise SessionError(
                f"the last session, {stored.folder}, has finished: there is nothing to resume; run "
                "without --bench-resume"
            )
        if stored.planted:
            raise SessionError(
                f"the last session, {stored.folder}, had the fault {stored.planted!r} planted, and "
                "its runs are of broken code; expected a session without --bench-plant: run "
                "without --bench-resume"
            )
        begun_as, now = (each.get("shard") or "none" for each in (document.options, options))
        if begun_as != now:
            raise SessionError(
                f"the last session, {stored.folder}, was begun with the shard {begun_as}, and this "
                f"is {now}: expected the same --bench-shard, or a folder of its own for each, by "
                "--bench-results"
            )
        try:
            _ = stored.results
        except SessionError as error:
            raise SessionError(
                f"{error}; take that line out, so that its run is trained again, or run without "
                "--bench-resume"
            ) from error
        return cls(
            results,
            stored.folder.name,
            options=options,
            environment=document.environment,
            started=started,
            earlier_seconds=document.seconds,
            resumed=document.resumed + 1,
            unknown=document.model_extra or {},
        )

    def require_torch(self, build: str) -> None:
        """Raise SessionError where the session was begun with another build of torch.

        Rows of both would stand in one table.
        """
        begun_with = self.environment.get("torch")
        if begun_with != build:
            raise SessionError(
                f"the last session, {self.folder}, was begun with torch {begun_with}, and this is "
                f"torch {build}: resume it with that one, or run without --bench-resume"
            )

    @property
    def folder(self) -> Path:
        return self.results / "runs" / self.name

    @property
    def started_at(self) -> str:
        return _timestamp(self.started)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far, those before an interruption that let it say so included."""
        return self.earlier_seconds + time.monotonic() - self._begun

    def open(self) -> None:
        """Make the folder and write session.json; raises SessionError where that cannot be done."""
        latest = self.results / "latest"
        if latest.is_dir() and not latest.is_symlink():
            raise SessionError(
                f"{latest} is a folder of its own: expected the link to the newest session; move "
                "it away, or name another folder with --bench-results DIR"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = ExitStack()
            lock.enter_context(locked(self.folder / "session.lock", timeout=0))
            self._lock = lock
            self.write("running")
            self._link_latest()
        except Timeout as error:
            raise SessionError(
                f"the session {self.folder} is still running in another process: wait for it, or "
                "stop it, before it is resumed"
            ) from error
        except OSError as error:
            raise SessionError(
                f"cannot write results to {self.results}: {error}; expected a folder to write to, "
                "name another one with --bench-results DIR"
            ) from error

    @property
    def is_open(self) -> bool:
        """Whether this process has opened the folder, and keeps it to itself."""
        return self._lock is not None

    def close(self) -> None:
        """Let others resume the session, if it was interrupted."""
        # a session that is another process's keeps its lock
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            remove_if_possible(self.folder / "session.lock")

    def write(self, status: Status) -> None:
        """Write session.json, whole or not at all; raises SessionError if it cannot."""
        document = SessionDocument(
            session=self.name,
            status=status,
            started=self.started_at,
            ended=None if status == "running" else _timestamp(time.time()),
            seconds=round(self.seconds, 3),
            resumed=self.resumed,
            workers=self.workers,
            planted=self.planted,
            environment=self.environment,
            options=self.options,
            datasets=self.datasets,
            cases=tuple(self.cases),
            claims=tuple(self.claims),
            comparison=self.comparison,
            whole=tuple(self.whole),
            **self.unknown,
        )
        try:
            write_atomic(self.folder / "session.json", document.to_json())
        except OSError as error:
            raise SessionError(
                f"cannot write how the session {self.folder} stands: {error.strerror or error}; "
                "its rows are stored: free some space there, or let it be written to, and go on "
                "with --bench-resume"
            ) from error

    def _link_latest(self) -> None:
        """Lead ``results/latest`` here: by a link, or by a name in a file where links fail."""
        latest, target = self.results / "latest", Path("runs") / self.name
        temporary = self.results / f".latest.{os.getpid()}"
        # a process of this number may have died and left it
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target, target_is_directory=True)
        except (OSError, NotImplementedError):
            temporary.write_text(f"{target}\n")
        try:
            temporary.replace(latest)
        except OSError:
            temporary.unlink()
            raise


def latest_session(results: Path) -> Path:
    """Return the folder that ``results/latest`` leads to, as a link or as a name in a file."""
    latest = results / "latest"
    if latest.is_file():
        return results / latest.read_text(encoding="utf-8").strip()
    return latest.resolve()


def sessions_before(session: StoredSession) -> Iterator[StoredSession]:
    """Yield the sessions that are stored beside a session and older, the newest first.

    One that cannot be read is passed over, as another version may have left it, and so is one with
    a planted fault, which tells of broken code.
    """
    folders = (f for f in session.folder.parent.iterdir() if f.name < session.folder.name)
    for folder in sorted(folders, reverse=True):
        try:
            other = read_session(folder)
        except SessionError:
            continue
        if not other.planted:
            yield other


def _planted(fault: str) -> str:
    return f"the fault {fault!r} planted" if fault else "no fault planted"


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))
