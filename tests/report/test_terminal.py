"""The end of a session on the terminal: all cases, or counts, what needs a look, and pivots."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from normbench.analysis.comparison import compare
from normbench.cases.case import Case
from normbench.report.terminal import MOST_LOOKS, Terminal, session_sections
from normbench.spec import RunSpec
from normbench.storage.session import StoredSession

from ..analysis.simulation import baseline_of
from ..storage.stored import finished, judged, store_session

LOG = Terminal()
NORMS = ("none", "batch", "group:4")
REGULARIZERS = ("none", "l1:0.001", "mypkg.regularizers:group_lasso:0.01", "l2:0.001")


def cases(batch_sizes: tuple[int, ...] = (32, 64)) -> list[Case]:
    specs = (
        RunSpec("digits", "digits", norm, regularizer=regularizer, batch_size=size, epochs=1)
        for size, norm, regularizer in product(batch_sizes, NORMS, REGULARIZERS)
    )
    return [Case("digits", "smoke", spec, target=0.9) for spec in specs]


def session(results: Path, planned: list[Case], failed: tuple[str, ...] = ()) -> StoredSession:
    runs = [finished(case.spec, 0.95) for case in planned]
    outcomes = {c.id: "failed" if c.id in failed else "passed" for c in planned}
    return store_session(results, judged(planned, runs, outcomes), runs)


def sections(stored: StoredSession, kind: str, terminal: Terminal = LOG) -> dict[str, str]:
    return {s.title: s.text for s in session_sections(stored, kind, terminal)}


def cells(text: str) -> Iterator[list[str]]:
    """Yield the cells of each line, of a table whose columns are two blanks apart."""
    yield from (re.split(r"  +", line.strip()) for line in text.splitlines())


def test_all_is_a_row_for_each_case_without_the_columns_that_have_no_figure(tmp_path: Path) -> None:
    text = sections(session(tmp_path, cases()), "all")["digits"]
    heading, _, *rows = cells(text)
    assert len(rows) == 24
    assert not {"publ.", "±"} & set(heading)
    assert max(map(len, text.splitlines())) <= 142
    row = dict(zip(heading, rows[1], strict=True))
    assert (row["norm"], row["regularizer"], row["batch"]) == ("none", "l1:0.001", "32")
    assert (row["test %"], row["target"], row["verdict"]) == ("95.00", "90.00", "passed")


@pytest.mark.parametrize("count", [80, 81])
def test_auto_is_all_up_to_80_cases(tmp_path: Path, count: int) -> None:
    planned = cases(tuple(2**exponent for exponent in range(7)))[:count]
    stored = session(tmp_path, planned)
    assert sections(stored, "auto") == sections(stored, "all" if count == 80 else "short")


def test_none_shows_no_case(tmp_path: Path) -> None:
    assert not sections(session(tmp_path, cases()), "none")


def test_short_begins_with_the_counts_and_what_needs_a_look(tmp_path: Path) -> None:
    planned = cases()
    stored = session(tmp_path, planned, failed=(planned[5].id,))
    counts, _, heading, _, look = sections(stored, "short")["24 cases"].splitlines()
    assert counts == "23 passed, 1 failed"
    assert heading.split() == ["verdict", "case", "test", "%", "target", "reason"]
    assert look.split() == ["failed", planned[5].id, "95.00", "90.00"]


def test_short_ends_with_the_accuracies_as_norm_by_regularizer(tmp_path: Path) -> None:
    planned = cases()
    text = sections(session(tmp_path, planned, failed=(planned[1].id,)), "short")["digits"]
    pivots = text.split("digits, batch size ")[1:]
    assert [pivot.split(":")[0] for pivot in pivots] == ["32", "64"]
    heading, _, none, batch, group = list(cells(pivots[0]))[1:6]
    assert heading == ["norm", *REGULARIZERS]
    assert none == ["none", "95.00", "95.00!", "95.00", "95.00"]
    assert (batch[0], group[0]) == ("batch", "group:4")
    assert text.endswith("! failed, or worse than the baseline")


def test_a_pivot_that_is_too_wide_goes_on_below(tmp_path: Path) -> None:
    stored = session(tmp_path, cases((32,)))
    text = sections(stored, "short", Terminal(60))["digits"]
    assert max(map(len, text.splitlines())) <= 60
    headings = [line for line in cells(text) if line[0] == "norm"]
    assert [name for heading in headings for name in heading[1:]] == list(REGULARIZERS)
    assert len(headings) == 2


def test_what_is_worse_than_the_baseline_or_undecided_is_marked(tmp_path: Path) -> None:
    planned = cases((32,))[:3]
    worse, undecided, sound = (case.spec for case in planned)
    before = baseline_of({spec: [0.949, 0.95, 0.951] for spec in (worse, undecided, sound)})
    now = {worse: [0.93] * 5, undecided: [0.948] * 2, sound: [0.951] * 5}
    comparison = compare(before, baseline_of(now), minimum_effect=0.002)
    runs = [finished(case.spec, now[case.spec][0]) for case in planned]
    stored = store_session(tmp_path, judged(planned, runs), runs, comparison=comparison)
    told = sections(stored, "short")
    counts, _, _, _, first, second = told["3 cases"].splitlines()
    assert counts == "3 passed, 1 regression, 1 undecided"
    assert first.endswith("regression: -2.00 points")
    assert second.endswith("undecided: -0.20 points")
    row = list(cells(told["digits"]))[3]
    assert row == ["none", "93.00!", "94.80?", "95.10"]


def test_of_many_that_need_a_look_the_worst_are_told(tmp_path: Path) -> None:
    planned = cases(tuple(2**exponent for exponent in range(5)))
    failed = tuple(case.id for case in planned[-MOST_LOOKS - 2 :])
    text = sections(session(tmp_path, planned, failed), "short")["60 cases"]
    assert text.count("\nfailed") == MOST_LOOKS
    assert text.endswith("2 more: see the tables in the session's folder")


def test_a_narrow_terminal_does_without_some_columns(tmp_path: Path) -> None:
    stored = session(tmp_path, cases((32,)))
    wide, narrow = (sections(stored, "all", Terminal(width))["digits"] for width in (140, 90))
    assert max(map(len, narrow.splitlines())) <= 90
    assert "params" in wide
    assert "params" not in narrow
    assert "verdict" in narrow


def test_a_terminal_with_colours_shows_what_failed_in_red(tmp_path: Path) -> None:
    planned = cases((32,))[:2]
    stored = session(tmp_path, planned, failed=(planned[0].id,))
    red = "\x1b[1;31mfailed"
    assert red in sections(stored, "all", Terminal(120, colours=True))["digits"]
    assert "\x1b" not in sections(stored, "all", Terminal(120))["digits"]
