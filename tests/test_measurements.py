"""The long measurements: what each runs, and that one that was stopped goes on."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from normbench.storage.session import StoredSession
from tests.storage.stored import store_session

ROOT = Path(__file__).parents[1]


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "perf")
    return import_module("measurements")


def latest(session: StoredSession) -> StoredSession:
    """Let the link to the newest session lead to it."""
    (session.folder.parents[1] / "latest").symlink_to(session.folder)
    return session


def run_of(measurements: ModuleType, folder: Path, returned: int) -> tuple[bool, list[list[str]]]:
    """Measure a part whose commands all return a number; return whether it ended, and them."""
    commands: list[list[str]] = []

    def run(arguments: Sequence[str]) -> int:
        commands.append(list(arguments[2:]))
        return returned

    part = measurements.Part("tiny", "bench/test_digits.py -k 'a and b'", "mine")
    return measurements.measure(part, folder, 2, run), commands


def test_a_part_that_was_never_begun_is_begun_and_one_that_was_stopped_goes_on(
    measurements: ModuleType, tmp_path: Path
) -> None:
    ended, (begun,) = run_of(measurements, tmp_path, 2)
    assert not ended
    assert begun[:4] == ["pytest", "bench/test_digits.py", "-k", "a and b"]
    assert begun[4:8] == ["-n", "2", "--bench-results", str(tmp_path / "tiny")]
    assert "--bench-resume" not in begun
    latest(store_session(tmp_path / "tiny", status="interrupted"))
    ended, (resumed,) = run_of(measurements, tmp_path, 2)
    assert (ended, resumed) == (False, [*begun, "--bench-resume"])


def test_what_has_ended_is_left_alone_and_becomes_a_baseline(
    measurements: ModuleType, tmp_path: Path
) -> None:
    session = latest(store_session(tmp_path / "tiny"))
    ended, (written,) = run_of(measurements, tmp_path, 0)
    assert ended
    assert written == ["normbench", "baseline", "mine", str(session.folder), "--overwrite"]
    assert not run_of(measurements, tmp_path, 1)[0]


def test_each_committed_baseline_but_that_of_the_plain_grid_can_be_made_anew(
    measurements: ModuleType,
) -> None:
    made = {part.baseline for part in measurements.MEASUREMENTS["baselines"]}
    committed = {file.stem for file in (ROOT / "results" / "reference").glob("*.json")}
    assert committed - {"cpu-mnist-plain"} <= made
    for part in (part for parts in measurements.MEASUREMENTS.values() for part in parts):
        first = part.arguments.split()[0]
        assert (ROOT / first).exists()
