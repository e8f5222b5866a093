"""Processes of the suite that a command starts: what they are given, and what they say last."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from normbench.training.datasets import ENVIRONMENT_VARIABLE

# How long a process that is stopped may take to clear up.
SECONDS_TO_END = 5.0

# Of what a test, or pytest, said.
TOLD_CHARACTERS = 300


class Ended(NamedTuple):
    """The exit code of a process, and what it printed on both of its channels."""

    code: int
    output: str


# Runs a command in a folder with an environment.
RunProcess = Callable[[Sequence[str], Path, Mapping[str, str]], Ended]


def run_process(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Ended:
    """Run a command to its end; where this process is stopped meanwhile, end all that it started.

    A session of its own keeps Ctrl-C from it, so that what is left of it is known to end here.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            _stop(process)
            raise
        return Ended(process.returncode, output)


def _stop(process: "subprocess.Popen[str]") -> None:
    """End a process and all that it started: as Ctrl-C does, so that they clear up, or for good."""
    if os.name != "posix":
        process.kill()
        return
    for ending in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, ending)
            process.communicate(timeout=SECONDS_TO_END)


def environment_of_a_user() -> dict[str, str]:
    """Return the environment without what an outer pytest or workflow has put into it.

    The data root is absolute, whatever folder a process starts in.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_") and name != "GITHUB_STEP_SUMMARY"
    }
    if data := kept.get(ENVIRONMENT_VARIABLE):
        kept[ENVIRONMENT_VARIABLE] = str(Path(data).absolute())
    return kept


def last_words(output: str) -> str:
    """Return why a session came to no pass, or the last error, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" =")]
    # what tox repeats of a command that failed, after what that said
    lines = [line for line in lines if not re.match(r"\S+: exit -?\d+ \(", line)]
    for telling in ("normbench: no pass, ", "ERROR", "Error", ""):
        if found := [line for line in lines if telling in line]:
            return found[-1].removeprefix("normbench: no pass, ")[:TOLD_CHARACTERS]
    return "it printed nothing"
