"""The keys of what the plugin keeps with a pytest configuration, and with the report of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from normbench.plugin.collection import Collected
    from normbench.plugin.session import SessionPlugin
    from normbench.plugin.workers import Workers

COLLECTED: pytest.StashKey[Collected] = pytest.StashKey()
SESSION: pytest.StashKey[SessionPlugin] = pytest.StashKey()
WORKERS: pytest.StashKey[Workers] = pytest.StashKey()

CASE_PROPERTY = "normbench_case"
CLAIM_PROPERTY = "normbench_claim"
CHECK_PROPERTY = "normbench_check"
MEASURED_PROPERTY = "normbench_measured"
SEEDS_PROPERTY = "normbench_seeds"
# as Runs.figures has it
UNCHANGED_PROPERTY = "unchanged_since"
