"""Since when something is not well, as an issue says it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normbench.analysis.alarms import Since, Subject
from normbench.cases.case import Case
from normbench.report.since import MOST_COMMITS, since_paragraphs
from normbench.spec import RunSpec
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession

from ..storage.stored import store_session

SPEC = RunSpec("mnist", "mnist", "batch")
CASE = StoredCase.of(Case("mnist", "standard", SPEC, 0.9), verdict="failed")
REGRESSION = Subject("regression of", SPEC.title)
TRACE = Subject("trace", "digits-batch-none")


def session(results: Path, name: str, **environment: Any) -> StoredSession:
    return store_session(results, [CASE], name=name, environment=environment)


def no_log(good: str, bad: str) -> Sequence[str]:
    return ()


def test_suspects_are_the_commits_between_the_last_good_and_the_first_bad_session(
    tmp_path: Path,
) -> None:
    good = session(tmp_path, "monday", commit="aaa", torch="2.14.1")
    bad = session(tmp_path, "tuesday", commit="ccc+")
    asked: list[tuple[str, str]] = []

    def log(first: str, last: str) -> Sequence[str]:
        asked.append((first, last))
        return ["ccc Say `so`", "bbb Faster"]

    since = Since(good, bad)
    told = since_paragraphs({REGRESSION: since, TRACE: since}, log)
    assert told == [
        "`regression of mnist batch-none-b64, 1 epoch`, `trace digits-batch-none`: last well in "
        "the session monday (2026-01-01, torch 2.14.1, commit aaa), first not in the session "
        "tuesday (2026-01-01, torch 2.15.0, commit ccc+).",
        "Changed in between: torch 2.14.1 → 2.15.0.",
        "Suspects, the commits of `aaa..ccc`:\n\n- `ccc Say  so `\n- `bbb Faster`",
        f"This finds the one: `normbench bisect {CASE.case.id} --good aaa --bad ccc`",
    ]
    assert asked == [("aaa", "ccc")]


def test_where_git_knows_nothing_the_range_is_told(tmp_path: Path) -> None:
    since = Since(session(tmp_path, "monday"), session(tmp_path, "tuesday", commit="def"))
    assert since_paragraphs({TRACE: since}, no_log)[1:] == ["Suspects, the commits of `abc..def`."]


def test_many_commits_are_counted(tmp_path: Path) -> None:
    since = Since(session(tmp_path, "monday"), session(tmp_path, "tuesday", commit="def"))
    _, told = since_paragraphs({TRACE: since}, lambda *_: ["a"] * (MOST_COMMITS + 2))
    assert told.count("\n- `a`") == MOST_COMMITS
    assert told.endswith("\n- and 2 more")


def test_what_was_never_seen_well_says_so(tmp_path: Path) -> None:
    (told,) = since_paragraphs({TRACE: Since(None, session(tmp_path, "tuesday"))}, no_log)
    assert told.startswith("`trace digits-batch-none`: first not well in the session tuesday (")
    assert told.endswith("no stored session tells that it was well before.")


def test_of_equal_ground_it_is_said_that_nothing_has_changed(tmp_path: Path) -> None:
    since = Since(session(tmp_path, "monday"), session(tmp_path, "tuesday"))
    told = since_paragraphs({TRACE: since}, no_log)
    assert told[1:] == ["The commit is the same in both, or not known."]
