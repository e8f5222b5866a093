"""Locks between processes, and file systems that have none."""

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from normbench.locks import locked, locks_work


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("flock", [refuse, lambda *_: None], ids=["refused", "granted to all"])
def test_where_locks_do_not_work_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None]
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    assert not locks_work(tmp_path)
    with locked(tmp_path / "a.lock", timeout=0), locked(tmp_path / "a.lock", timeout=0):
        assert list(tmp_path.iterdir()) == []


def test_where_they_do_one_waits_for_the_other(tmp_path: Path) -> None:
    assert locks_work(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a.lock"):
        with pytest.raises(Timeout), locked(tmp_path / "a.lock", timeout=0):
            pass
        with locked(tmp_path / "b.lock", timeout=0):
            pass


def test_a_folder_that_cannot_be_written_to_is_no_matter_of_locks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locks_work(tmp_path / "missing")
