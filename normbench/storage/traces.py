"""A session's traces: a file each, written by the process that took it.

Those in ``traces`` were held against an independent engine; those in ``case-traces`` say what a
case's training did, so that a later session can tell that it would do the same.
"""

import hashlib
import json
import shutil
from pathlib import Path

from normbench.check.trace_record import Trace
from normbench.spec import RunSpec
from normbench.storage.documents import read_made
from normbench.storage.files import write_atomic


def store_trace(session: Path, trace: Trace) -> None:
    """Write a trace into a session's folder, in place of an earlier one of its name."""
    folder = session / "traces"
    folder.mkdir(exist_ok=True)
    # a user's norm may be called what no file can be
    digest = hashlib.sha256(trace.name.encode()).hexdigest()[:12]
    write_atomic(folder / f"{digest}.json", f"{trace_text(trace)}\n")


def store_case_trace(session: Path, trace: Trace) -> None:
    """Write a case's trace into a session's folder."""
    file = _case_trace(session, trace.spec)
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, f"{trace_text(trace)}\n")


def has_case_trace(session: Path, spec: RunSpec) -> bool:
    """Tell whether a session has a trace of ``spec``."""
    return _case_trace(session, spec).is_file()


def has_case_traces(session: Path) -> bool:
    """Tell whether a session has traced cases."""
    return _case_traces(session).is_dir()


def drop_case_traces(session: Path) -> None:
    """Remove a session's traces of cases, so that no later one takes its rows by them."""
    shutil.rmtree(_case_traces(session), ignore_errors=True)


def read_case_trace(session: Path, spec: RunSpec) -> Trace | None:
    """Return the trace of ``spec`` that a session has, None without one.

    Raises ValueError for damage.
    """
    file = _case_trace(session, spec)
    return read_made(file, Trace.of_dict) if file.is_file() else None


def _case_trace(session: Path, spec: RunSpec) -> Path:
    return _case_traces(session) / f"{spec.key}.json"


def _case_traces(session: Path) -> Path:
    return session / "case-traces"


def trace_text(trace: Trace) -> str:
    """Return a trace as a line of JSON."""
    return json.dumps(trace.to_dict(), separators=(",", ":"), allow_nan=False)


def read_traces(session: Path) -> tuple[Trace, ...]:
    """Return the session's traces by their names; raises ValueError for damage."""
    found = [read_made(file, Trace.of_dict) for file in sorted((session / "traces").glob("*.json"))]
    return tuple(sorted(found, key=lambda trace: trace.name))
