"""What ``make torture`` counts, and how it looks at a session: without killing anything."""

import dataclasses
import random
from pathlib import Path

from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore

from .storage.stored import finished
from .torture import Torture, changed, section, stored_calls
from .torture_point import Point

SPECS = [RunSpec("digits", "digits", "batch", epochs=1).with_seed(seed) for seed in range(3)]
RUNS = {spec.key: finished(spec, 0.9) for spec in SPECS}


def wrong(results: Path, *after: RunResult) -> dict[str, int]:
    """Look at a session that has these rows, and had all of RUNS before it was resumed."""
    folder = results / "runs" / "session"
    folder.mkdir(parents=True, exist_ok=True)
    (results / "latest").unlink(missing_ok=True)
    (results / "latest").symlink_to(folder)
    RunStore(folder).write(after)
    expected = {key: run.decided for key, run in RUNS.items()}
    found = Torture(results, random.Random(0), expected=expected).wrong(results, RUNS)
    return {name: number for name, number in found.items() if number}


def test_nothing_is_wrong_with_a_session_that_has_its_rows(tmp_path: Path) -> None:
    assert wrong(tmp_path, *RUNS.values()) == {}


def test_what_is_wrong_with_a_session_is_counted(tmp_path: Path) -> None:
    first, second, third = RUNS.values()
    assert wrong(tmp_path, first, second) == {"lost": 1}
    other = finished(third.spec, 0.8)
    # it was there before, and is another one now
    assert wrong(tmp_path, first, second, other) == {"lost": 1, "different": 1}
    folder = tmp_path / "runs" / "session"
    (folder / "session.json").write_text('{"schema": ')
    (folder / ".session.json.4711").touch()
    assert wrong(tmp_path, *RUNS.values()) == {"unreadable": 1, "left": 1}


def test_a_finished_row_may_not_change_and_a_crashed_one_may() -> None:
    first, second, _ = RUNS.values()
    assert changed(RUNS, RUNS) == set()
    assert changed(RUNS, {}) == set(RUNS)
    assert changed(RUNS, RUNS | {second.spec.key: finished(second.spec, 0.8)}) == {second.spec.key}
    crashed = dataclasses.replace(first, status="crashed")
    assert changed(RUNS | {first.spec.key: crashed}, RUNS) == set()


def test_counts_add_up_over_calls() -> None:
    calls = [
        {"begun": "2026-01-02T00:00:00", "counts": {"group": {"kills": 3, "resumed": 2}}},
        {
            "begun": "2026-01-05T00:00:00",
            "counts": {"group": {"kills": 4, "resumed": 4, "lost": 1}},
        },
        {"begun": "2026-01-03T00:00:00", "counts": {"row": {"kills": 1}, "full": {"sessions": 2}}},
    ]
    told = section(calls)
    assert "| all processes at once | 7 | 6 | 0 | 1 | 0 |" in told
    assert "| all | 8 | 6 | 0 | 1 | 0 |" in told
    assert "Calls: 3, from 2026-01-02 to 2026-01-05." in told
    assert "- a disk that fills up: sessions 2, not as they should be 0" in told


def test_one_process_alone_dies_when_it_has_counted_far_enough(tmp_path: Path) -> None:
    first, second = Point(3, tmp_path / "died"), Point(2, tmp_path / "died")
    assert [first.reached() for _ in range(3)] == [False, False, True]
    assert [second.reached() for _ in range(3)] == [False, False, False]


def test_the_page_has_the_counts_that_are_stored() -> None:
    calls = stored_calls()
    page = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert section(calls) in page
