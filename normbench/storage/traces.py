"""A session's traces: a file each, written by the process that took it."""

import hashlib
import json
from pathlib import Path

from normbench.check.trace_record import Trace
from normbench.storage.documents import read_made
from normbench.storage.files import write_atomic


def store_trace(session: Path, trace: Trace) -> None:
    """Write a trace into a session's folder, in place of an earlier one of its name."""
    folder = session / "traces"
    folder.mkdir(exist_ok=True)
    # a user's norm may be called what no file can be
    digest = hashlib.sha256(trace.name.encode()).hexdigest()[:12]
    write_atomic(folder / f"{digest}.json", f"{trace_text(trace)}\n")


def trace_text(trace: Trace) -> str:
    """Return a trace as a line of JSON."""
    return json.dumps(trace.to_dict(), separators=(",", ":"), allow_nan=False)


def read_traces(session: Path) -> tuple[Trace, ...]:
    """Return the session's traces by their names; raises ValueError for damage."""
    found = [read_made(file, Trace.of_dict) for file in sorted((session / "traces").glob("*.json"))]
    return tuple(sorted(found, key=lambda trace: trace.name))
