"""``normbench alarm`` and ``report --summary``: what a nightly tells of itself."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from normbench.analysis.comparison import CaseComparison, Comparison
from normbench.commands.alarm import commits_between, gh, raise_alarm
from normbench.commands.main import main
from normbench.results import Outcome
from normbench.spec import RunSpec
from normbench.storage.documents import Status
from normbench.storage.session import StoredSession

from ..storage.stored import store_session

SPEC = RunSpec("mnist", "mnist", "batch")


class GitHub:
    """Stands for gh: it has open issues, and keeps what it is asked for."""

    def __init__(self, *numbers: int) -> None:
        self.issues = json.dumps([{"number": number} for number in numbers])
        self.asked: list[tuple[list[str], str]] = []

    def __call__(self, arguments: Sequence[str], text: str) -> str:
        if arguments[:2] == ["issue", "list"]:
            assert arguments[2:] == ["--label", "cpu", "--state", "open", "--json", "number"]
            return self.issues
        self.asked.append((list(arguments), text))
        return ""


def night(
    results: Path,
    outcome: Outcome,
    name: str = "20260102",
    status: Status = "finished",
    commit: str = "def",
) -> StoredSession:
    compared = Comparison("monday", (CaseComparison(SPEC, outcome),))
    at = {"commit": commit}
    return store_session(results, name=name, comparison=compared, status=status, environment=at)


def test_a_regression_opens_an_issue_with_what_is_worse_and_since_when(tmp_path: Path) -> None:
    night(tmp_path, Outcome.NO_REGRESSION, "20260101", commit="abc")
    github = GitHub()
    told = raise_alarm(night(tmp_path, Outcome.REGRESSION), "cpu", github)
    assert told.startswith("opened: cpu: regression of mnist batch-none-b64, 1 epoch\n")
    (label, _), (create, text) = github.asked
    assert label[:4] == ["label", "create", "cpu", "--force"]
    title = "cpu: regression of mnist batch-none-b64, 1 epoch"
    assert create == ["issue", "create", "--title", title, "--label", "cpu", "--body-file", "-"]
    assert "### Beside the baseline monday\n\n| case" in text
    assert "Suspects, the commits of `abc..def`" in text


def test_an_issue_that_is_open_is_updated_and_told_of_the_session(tmp_path: Path) -> None:
    github = GitHub(7, 3)
    raise_alarm(night(tmp_path, Outcome.REGRESSION), "cpu", github)
    (edit, text), (comment, _) = github.asked
    assert edit[:3] == ["issue", "edit", "7"]
    assert text.startswith("## normbench: ")
    assert comment == ["issue", "comment", "7", "--body", "Still so in the session 20260102."]


def test_a_pass_closes_what_is_open(tmp_path: Path) -> None:
    github = GitHub(7, 3)
    told = raise_alarm(night(tmp_path, Outcome.NO_REGRESSION), "cpu", github)
    assert told == "20260102 passes; closed #7, #3"
    recovered = "Recovered: the session 20260102 passes."
    assert [asked for asked, _ in github.asked] == [
        ["issue", "close", "7", "--comment", recovered],
        ["issue", "close", "3", "--comment", recovered],
    ]


@pytest.mark.parametrize(
    ("outcome", "status", "why"),
    [
        (Outcome.ONLY_NOW, "finished", "nothing was compared with the baseline monday"),
        (Outcome.NO_REGRESSION, "interrupted", "it is interrupted"),
    ],
)
def test_what_is_neither_an_alarm_nor_a_pass_leaves_the_issue_as_it_is(
    tmp_path: Path, outcome: Outcome, status: Status, why: str
) -> None:
    github = GitHub(7)
    told = raise_alarm(night(tmp_path, outcome, status=status), "cpu", github)
    assert told.startswith(f"20260102 raises no alarm, and is no pass: {why}")
    assert github.asked == []


def test_a_dry_run_prints_the_issue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = night(tmp_path, Outcome.REGRESSION)
    assert main(["alarm", str(session.folder), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("opened: nightly: regression of mnist batch-none-b64, 1 epoch\n\n## ")


def test_a_planted_fault_is_no_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = store_session(tmp_path, planted="no-decay")
    assert main(["alarm", str(session.folder)]) == 2
    assert "had the fault 'no-decay' planted, and is to fail" in capsys.readouterr().err


def test_gh_that_is_missing_or_fails_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"^gh, GitHub's command, is not installed; install it"):
        gh(["issue", "list"], "")
    program = tmp_path / "gh"
    program.write_text(
        '#!/bin/sh\n[ $1 = say ] && read line && echo "$line" && exit\necho no token >&2; exit 4\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert gh(["say"], "hello\n") == "hello\n"
    with pytest.raises(ValueError, match=r"^gh issue list failed: no token$"):
        gh(["issue", "list", "--label", "x"], "")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Outcome.NO_REGRESSION, 0), (Outcome.REGRESSION, 1), (Outcome.ONLY_NOW, 3)],
)
def test_a_summary_says_by_its_exit_code_what_came_of_the_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outcome: Outcome, code: int
) -> None:
    session = night(tmp_path, outcome)
    assert main(["report", "--summary", str(session.folder)]) == code
    told = capsys.readouterr().out
    assert told.startswith("## normbench: ")
    assert ("### Since when\n" in told) == (code == 1)


def test_the_worst_of_several_sessions_counts(tmp_path: Path) -> None:
    folders = [
        str(night(tmp_path, outcome, f"2026010{day}").folder)
        for day, outcome in enumerate((Outcome.REGRESSION, Outcome.ONLY_NOW), 1)
    ]
    assert main(["report", "--summary", *folders]) == 1


def test_the_commits_between_two_are_those_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    hashes = []
    for subject in ("one", "two", "three"):
        git("commit", "-q", "--allow-empty", "-m", subject)
        hashes.append(git("rev-parse", "HEAD"))
    found = commits_between(hashes[0], hashes[2], tmp_path)
    assert [line.partition(" ")[2] for line in found] == ["three", "two"]
    assert commits_between("0" * 12, hashes[2], tmp_path) == []
    assert commits_between(hashes[0], hashes[2], tmp_path / "nowhere") == []
