"""A plugin of pytest that kills its process between two of its writes, for tests/torture.py.

``NORMBENCH_TORTURE="rename 5 FILE"`` kills the first process that renames a file for the fifth
time, just before it does; ``row`` the first one that has written its fifth row, with the half of it
on disk. FILE is made then, and keeps all others from it.
"""

import os
import signal
from pathlib import Path

WHERE, _, _REST = os.environ.get("NORMBENCH_TORTURE", "").partition(" ")


class Point:
    """Counts, and kills when it has counted far enough."""

    def __init__(self, at: int, died: Path) -> None:
        self.at = at
        self.died = died
        self.passed = 0

    def reached(self) -> bool:
        self.passed += 1
        if self.passed < self.at:
            return False
        try:
            self.died.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if WHERE:
    _AT, _, _FILE = _REST.partition(" ")
    POINT = Point(int(_AT), Path(_FILE))
    REPLACE, FSYNC = Path.replace, os.fsync

    def replace(self: Path, target: Path) -> Path:
        if POINT.reached():
            kill()
        return REPLACE(self, target)

    def fsync(descriptor: int) -> None:
        if POINT.reached():
            end = os.fstat(descriptor).st_size
            os.truncate(descriptor, end - 100)
            kill()
        FSYNC(descriptor)

    if WHERE == "rename":
        Path.replace = replace  # type: ignore[assignment,method-assign]  # the one of this process
    else:
        os.fsync = fsync  # type: ignore[assignment]  # the one of this process
