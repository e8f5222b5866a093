"""A session's folder: where its rows, its verdicts and its tables go."""

import json
import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

SCHEMA = 1


class SessionError(Exception):
    """A results folder that cannot be written to, or a session that cannot be gone on with."""


def new_session_name() -> str:
    """Return a name that sorts by time, and differs between sessions that start in one second.

    Several may start in one process, one after the other, and in several processes at once.
    """
    return f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}"


@dataclass
class Session:
    """A session's folder, ``results/runs/<name>``; ``verdicts`` are those of the cases.

    Both ``verdicts`` and ``claims`` map names to verdicts.
    """

    results: Path
    name: str
    workers: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    comparison: dict[str, Any] | None = None
    started: float = field(default_factory=time.time)
    earlier_seconds: float = 0.0
    resumed: int = 0
    _begun: float = field(default_factory=time.monotonic, repr=False)
    _lock: FileLock | None = field(default=None, repr=False)

    @classmethod
    def interrupted(cls, results: Path, options: dict[str, Any]) -> "Session":
        """Return the last session in ``results``, to go on with.

        Raises SessionError where there is none, where it has finished, and where it was begun
        with another torch: rows of both would stand in one table.
        """
        folder = latest_session(results)
        try:
            document = json.loads((folder / "session.json").read_text(encoding="utf-8"))
            begun_with = document["environment"]["torch"]
            started = datetime.fromisoformat(document["started"]).timestamp()
            seconds, resumed = document["seconds"], document.get("resumed", 0)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SessionError(
                f"there is no session to resume in {results}: {error}; run without --bench-resume"
            ) from error
        if document["status"] == "finished":
            raise SessionError(
                f"the last session, {folder}, has finished: there is nothing to resume; run "
                "without --bench-resume"
            )
        if begun_with != torch.__version__:
            raise SessionError(
                f"the last session, {folder}, was begun with torch {begun_with}, and this is torch "
                f"{torch.__version__}: resume it with that one, or run without --bench-resume"
            )
        return cls(
            results,
            folder.name,
            options=options,
            started=started,
            earlier_seconds=seconds,
            resumed=resumed + 1,
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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / "session.lock", timeout=0)
            self._lock.acquire()
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

    def close(self) -> None:
        """Let others resume the session, if it was interrupted."""
        if self._lock is not None:
            self._lock.release()
            (self.folder / "session.lock").unlink(missing_ok=True)

    def write(self, status: str) -> None:
        """Write session.json, whole or not at all."""
        document = {
            "schema": SCHEMA,
            "session": self.name,
            "status": status,
            "started": self.started_at,
            "ended": None if status == "running" else _timestamp(time.time()),
            "seconds": round(self.seconds, 3),
            "resumed": self.resumed,
            "workers": self.workers,
            "environment": self.environment,
            "options": self.options,
            "verdicts": self.verdicts,
            "claims": self.claims,
            "comparison": self.comparison,
        }
        write_atomic(self.folder / "session.json", json.dumps(document, indent=1) + "\n")

    def _link_latest(self) -> None:
        """Lead ``results/latest`` here: by a link, or by a name in a file where links fail."""
        latest, target = self.results / "latest", Path("runs") / self.name
        temporary = self.results / f".latest.{os.getpid()}"
        try:
            temporary.symlink_to(target, target_is_directory=True)
        except (OSError, NotImplementedError):
            temporary.write_text(f"{target}\n")
        temporary.replace(latest)


def latest_session(results: Path) -> Path:
    """Return the folder that ``results/latest`` leads to, as a link or as a name in a file."""
    latest = results / "latest"
    if latest.is_file():
        return results / latest.read_text(encoding="utf-8").strip()
    return latest.resolve()


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def write_atomic(file: Path, text: str) -> None:
    """Write ``text`` such that a reader, or a crash, sees the old file or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
