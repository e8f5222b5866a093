"""xdist's workers, as the controller sees them: what each is given, and what it says back.

The controller never collects. A worker leaves what it will run in a file, whose path it was given,
before it reports its collection to xdist.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from normbench.engine.devices import WorkerSlots, threads_per_worker
from normbench.storage.environment import available_cores, new_session_name

if TYPE_CHECKING:
    from normbench.engine.xdist import LongestFirstScheduling
    from normbench.storage.documents import Selection


class Workers:
    """Gives each worker the session's name, its slot and its threads, and hears what it selects."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.session = self._session_name(config)
        self._baselines = self._resolved_baselines(config)
        self._slots = WorkerSlots()
        self._reports = Path(tempfile.mkdtemp(prefix="normbench-"))
        self._scheduler: LongestFirstScheduling | None = None

    @staticmethod
    def _session_name(config: pytest.Config) -> str:
        """Return a new name, or that of the session to resume; whether it can be is asked later."""
        if config.getoption("--bench-resume"):
            from normbench.plugin.options import options_of
            from normbench.storage.session import latest_session

            return latest_session(options_of(config).results).name
        return new_session_name()

    @staticmethod
    def _resolved_baselines(config: pytest.Config) -> list[str]:
        """Return the baselines as they are meant now, before the session begins."""
        if not config.getoption("--bench-baseline"):
            return []
        from normbench.plugin.options import options_of

        return list(options_of(config).baselines)

    def input(self, node: Any) -> dict[str, Any]:
        """Return what a new worker is told: builtin types only, as xdist sends them."""
        worker = node.gateway.id
        return {
            "session": self.session,
            "worker": worker,
            "slot": self._slots.assign(worker),
            "threads": threads_per_worker(len(node.nodemanager.specs), available_cores()),
            "report": str(self._report(node)),
            "baselines": self._baselines,
        }

    def _report(self, node: Any) -> Path:
        return self._reports / f"{node.gateway.id}.json"

    def release(self, node: Any) -> None:
        self._slots.release(node.gateway.id)

    def selection(self, node: Any) -> Selection | None:
        """Return what a worker that has collected will run; None where it is nothing of ours.

        Raises pytest.UsageError where it could not read the cases.
        """
        file = self._report(node)
        if not file.exists():
            return None
        from normbench.storage.documents import Selection, read_json, validated

        selection = validated(Selection, read_json(file), file)
        if selection.error:
            raise pytest.UsageError(selection.error)
        return selection

    def scheduler(self, config: pytest.Config, log: Any) -> LongestFirstScheduling:
        from normbench.engine.xdist import LongestFirstScheduling

        self._scheduler = LongestFirstScheduling(config, log)
        return self._scheduler

    def put_longest_first(self) -> None:
        """Deal the tests out one at a time from now on, as cases are among them."""
        if self._scheduler is not None:
            self._scheduler.one_at_a_time = True

    def close(self) -> None:
        shutil.rmtree(self._reports, ignore_errors=True)
