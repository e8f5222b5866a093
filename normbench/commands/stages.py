"""The stages that a planted fault goes through: parts of the suite, a process of pytest each."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import normbench
from normbench.commands.run import SUITE, suite_settings
from normbench.engine.processes import TOLD_CHARACTERS, environment_of_a_user, last_words
from normbench.storage.sensitivity import FAILED, StageEnd

# What a stage that takes too long ends with: the exit code of timeout(1).
STOPPED = 124


@dataclass(frozen=True)
class Stage:
    """A file of the suite, and the arguments that pytest runs it with."""

    name: str
    file: str
    arguments: tuple[str, ...] = ()


_SMOKE = ("--bench-tier", "smoke")
_MNIST = "test_mnist and none-b64 and (mnist-batch or mnist-layer or mnist-group:4)"

# In the order in which a fault goes through them.
STAGES = {
    stage.name: stage
    for stage in (
        Stage("check", "test_conformance.py"),
        Stage("trace", "test_trace.py", _SMOKE),
        Stage("smoke", "test_digits.py", _SMOKE),
        Stage("mnist", "test_mnist.py", ("-k", _MNIST)),
        Stage("baseline", "test_digits.py", (*_SMOKE, "--bench-baseline", "digits")),
    )
}


class StageRunner:
    """Runs a stage in a process of its own, with a fault planted or none, and says how it ended.

    A stage that takes longer than ``limit`` seconds is stopped. What torch compiles is kept in the
    folder ``compiled`` by runs without a fault alone: the others have a copy of it, so that they
    leave nothing behind, and yet need not compile again what no fault has changed.
    """

    def __init__(self, compiled: Path, limit: float) -> None:
        self.compiled = compiled.absolute()
        self.limit = limit

    def __call__(self, stage: Stage, fault: str | None) -> StageEnd:
        with tempfile.TemporaryDirectory(prefix="normbench-") as work:
            folder = Path(work)
            command = stage_command(stage, fault, folder)
            environment = self._environment(folder, fault)
            start = time.monotonic()
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=self.limit,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                told = f"stopped after {self.limit:g} s, the limit"
                return StageEnd(stage=stage.name, code=STOPPED, seconds=self.limit, told=told)
            seconds = round(time.monotonic() - start, 1)
            test, told = (
                _first_failure(folder / "junit.xml") if done.returncode == FAILED else ("", "")
            )
            if done.returncode and not test:
                told = last_words(done.stdout)
            return StageEnd(
                stage=stage.name, code=done.returncode, seconds=seconds, test=test, told=told
            )

    def _environment(self, folder: Path, fault: str | None) -> dict[str, str]:
        """Return the environment of a user's with one thread, and nothing of an outer pytest."""
        kept = environment_of_a_user()
        compiled = self.compiled
        if fault is not None:
            compiled = folder / "compiled"
            if self.compiled.is_dir():
                shutil.copytree(self.compiled, compiled)
        # this normbench, whatever folder the process starts in
        path = [str(Path(normbench.__file__).parents[1]), kept.get("PYTHONPATH", "")]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(compiled),
        }


def stage_command(stage: Stage, fault: str | None, folder: Path) -> list[str]:
    """Return the command of a stage that leaves its results in ``folder``."""
    return [
        *(sys.executable, "-m", "pytest", *suite_settings(folder)),
        *("-p", "no:cacheprovider", "-p", "no:xdist", "-x", "--tb", "short"),
        *("--junitxml", str(folder / "junit.xml"), "--bench-results", str(folder / "results")),
        str(SUITE / stage.file),
        *stage.arguments,
        *(() if fault is None else ("--bench-plant", fault)),
    ]


def _first_failure(junit: Path) -> tuple[str, str]:
    """Return the first test that failed and what it said; two empty texts where none did."""
    if not junit.exists():
        return "", ""
    for case in ElementTree.parse(junit).iter("testcase"):
        for outcome in (*case.iter("failure"), *case.iter("error")):
            return case.get("name", ""), _in_one_line(outcome.get("message", ""))
    return "", ""


def _in_one_line(message: str) -> str:
    """Return the first line of what an assertion said, and of several things broken the first."""
    first = next(iter(message.splitlines()), "").removeprefix("AssertionError: ")
    listed = re.match(r"assert not [\[(](['\"])(.*?)\1[,\])]", first)
    return (listed[2] if listed else first)[:TOLD_CHARACTERS]


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, to one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
