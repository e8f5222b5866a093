"""Locks between processes, as far as the file system has any.

Some network file systems have none (NFS without its lock service, Lustre without ``flock``), and
refuse them or grant them to everyone.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

try:
    import fcntl
except ImportError:  # on Windows, whose locks are the file system's own
    fcntl = None  # type: ignore[assignment]  # the module, or nothing


@functools.lru_cache(maxsize=64)
def locks_work(folder: Path) -> bool:
    """Return whether a file in ``folder``, which is there, can be locked against others.

    Two locks of one file are tried, of which the second has to be refused. Raises OSError where
    nothing can be written.
    """
    if fcntl is None:
        return True
    file = folder / f".locks.{os.getpid()}"
    try:
        with file.open("wb") as first, file.open("wb") as second:
            return _lock(first) and not _lock(second)
    finally:
        file.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def locked(file: Path, timeout: float = -1) -> Iterator[None]:
    """Keep others out of a block by a lock on ``file``, or nobody where locks do not work.

    Waits ``timeout`` seconds, without end where it is negative; raises filelock.Timeout after
    them, and OSError where the file cannot be made.
    """
    if not locks_work(file.parent):
        yield
        return
    with FileLock(file, timeout=timeout):
        yield
