"""What a session hands to others when it ends: files of JSON, and the hook."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from normbench.plugin import hookspec
from normbench.report.exports import SESSION_FORMATS, to_json
from normbench.storage.files import write_atomic
from normbench.storage.session import StoredSession

HOOK = hookspec.pytest_bench_session_finished.__name__


class OutputError(ValueError):
    """A file that was asked for and cannot be written."""


def json_files(config: pytest.Config) -> list[tuple[str, Path]]:
    """Return the files of ``--bench-json``, each with its format.

    Raises OutputError where one is to be written twice.
    """
    here = config.invocation_params.dir
    files = [(kind, here / name) for kind, name in config.getoption("--bench-json")]
    named = [file.resolve() for _, file in files]
    twice = next((file for file in named if named.count(file) > 1), None)
    if twice is not None:
        raise OutputError(
            f"--bench-json: {twice} is given twice; expected another file for each format"
        )
    return files


def make_way(files: Iterable[tuple[str, Path]]) -> None:
    """Make sure that the files can be written, and remove what an earlier session has left there.

    A session that does not come to its end must not leave the figures of another one. Raises
    OutputError where a file cannot be written.
    """
    for _, file in files:
        try:
            with tempfile.TemporaryFile(dir=file.parent):
                pass
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"--bench-json: cannot write to {file}: {error.strerror or error}; expected a file "
                "in a folder to write to: name another one"
            ) from error


def write_files(files: Iterable[tuple[str, Path]], session: StoredSession) -> list[str]:
    """Write the session to each file in its format; return what could not be written, and why."""
    notes = []
    for kind, file in files:
        try:
            write_atomic(file, to_json(SESSION_FORMATS[kind](session)))
        except Exception as error:
            notes.append(
                f"{file} could not be written: {_told(error)}; all runs and verdicts are in "
                f"{session.folder}"
            )
    return notes


def tell_others(config: pytest.Config, session: StoredSession) -> list[str]:
    """Call each implementation of the hook; return, a line each, which have failed, and of what.

    They are called one by one: one that fails must not keep the session from the next one.
    """
    manager = config.pluginmanager
    plugins = [each.plugin for each in getattr(config.hook, HOOK).get_hookimpls()]
    notes = []
    for plugin in plugins:
        others: Sequence[Any] = [other for other in plugins if other is not plugin]
        try:
            manager.subset_hook_caller(HOOK, others)(session=session)
        # pytest.fail and pytest.skip raise what is no Exception
        except (Exception, SystemExit, pytest.fail.Exception, pytest.skip.Exception) as error:
            notes.append(f"{HOOK} of {manager.get_name(plugin)} failed: {_told(error)}")
    return notes


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
