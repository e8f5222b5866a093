"""Stages, each in a process of its own, until the time is over.

A stage that hangs or crashes costs itself alone, and what it wrote to its result file until then
counts. Needs the standard library alone.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Between the request to end and the end by force, for what a stage must not leave behind.
GRACE_SECONDS = 4.0
TOLD_LINES = 12


@dataclass(frozen=True)
class Stage:
    """A command that writes ``NAME.json``, with the most seconds it may take.

    It is left out where fewer than ``least`` seconds are left, or for the reason ``without``.
    ``{seconds}`` in its command stands for the seconds that it gets.
    """

    name: str
    command: Sequence[str]
    seconds: float
    least: float = 5.0
    without: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: ``ok``, ``failed``, ``timed out`` or ``left out``, and what it wrote."""

    name: str
    status: str
    seconds: float = 0.0
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        told = str(self.result.get("told", ""))
        details = "; ".join(part for part in (told, self.message) if part)
        line = f"{self.name}: {self.status}, {self.seconds:.1f} s"
        return f"{line}: {details}" if details else line


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    seconds: float,
    on_end: Callable[[Sequence[Outcome]], None] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Run the stages one after the other within ``seconds``; ``on_end`` is told of each one's end.

    Their results and logs are ``NAME.json`` and ``NAME.log`` in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    for stage in stages:
        left = deadline - time.monotonic() - GRACE_SECONDS
        if stage.without:
            outcome = Outcome(stage.name, "left out", message=stage.without)
        elif left < stage.least:
            message = f"{max(left, 0):.0f} s are left, and it takes at least {stage.least:.0f} s"
            outcome = Outcome(stage.name, "left out", message=message)
        else:
            outcome = run_stage(stage, folder, min(stage.seconds, left), environment)
        outcomes.append(outcome)
        on_end(outcomes)
    return outcomes


def run_stage(
    stage: Stage, folder: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Run one stage for at most ``seconds``, and end all of its processes after that."""
    result, log = folder / f"{stage.name}.json", folder / f"{stage.name}.log"
    result.unlink(missing_ok=True)
    start = time.monotonic()
    command = [part.replace("{seconds}", f"{seconds:.1f}") for part in stage.command]
    with log.open("wb") as written:
        process = subprocess.Popen(
            command,
            stdout=written,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            status, message = ("ok", "") if code == 0 else ("failed", f"exit status {code}")
        except subprocess.TimeoutExpired:
            status, message = "timed out", f"not done in {seconds:.0f} s"
        finally:
            end_group(process)
    if status != "ok":
        message += f"; its log ends:\n{last_lines(log)}"
    return Outcome(stage.name, status, time.monotonic() - start, message, read_result(result))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, by force where it does not end when asked to."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def last_lines(log: Path, count: int = TOLD_LINES) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def read_result(file: Path) -> dict[str, Any]:
    """Return what a stage has written; nothing where it wrote nothing that can be read."""
    try:
        result = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {"result": result}


def write_whole(file: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def as_json(outcomes: Sequence[Outcome], **more: object) -> str:
    document = {**more, "stages": [asdict(outcome) for outcome in outcomes]}
    return json.dumps(document, indent=1, default=str) + "\n"
