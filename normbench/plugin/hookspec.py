"""The hook that others may implement: in a conftest.py, or in a plugin of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normbench.storage.session import StoredSession


def pytest_bench_session_finished(session: StoredSession) -> None:
    """Hear of a session once all of it is stored and drawn; feed a tracker, for instance.

    It is called once, in the process that started pytest and never in a worker, also for a session
    that was interrupted (``session.document.status``), and not where nothing was stored. What it
    raises is told in a line; it neither fails the session nor keeps others from hearing of it.
    ``session`` is the session as its folder holds it, and not pytest's own of that name.
    """
