"""--bench-replay: cases that would come out the same are unchanged, wherever they are told of."""

from xml.etree import ElementTree

import pytest
import torch

from normbench.results import CaseVerdict, Outcome

from ..conftest import Project


def test_unchanged_cases_are_called_so_wherever_they_are_told_of(alone: Project) -> None:
    # of one run a case, or of an epoch or two, nothing could be compared
    alone.grid(epochs=5)
    seeds = ["--bench-seeds", "1:4"]
    alone.run(*seeds, "--bench-save-baseline", "before").assert_outcomes(passed=4)
    replaying = ["--bench-replay", "same", "--bench-baseline", "before"]
    first = alone.run(*replaying)
    first.assert_outcomes(passed=4)
    first.stdout.fnmatch_lines(["normbench: --bench-replay: no earlier session has traced*"])
    trained, since = alone.rows, alone.session.name
    second = alone.run(*replaying, "--bench-strict", "--junitxml", "junit.xml")
    assert second.ret == pytest.ExitCode.OK
    second.stdout.fnmatch_lines(
        [
            "*batch * 64 * 0 * unchanged*",
            "4 unchanged",
            f"normbench: 4 rows taken from the session {since}",
            "*4 unchanged in *",
        ]
    )
    assert [run.replayed for run in alone.rows] == [since] * 4
    assert {r.spec: r.epochs for r in alone.rows} == {r.spec: r.epochs for r in trained}
    assert set(alone.verdicts.values()) == {CaseVerdict.UNCHANGED}
    compared = alone.stored.document.comparison
    assert compared is not None
    assert {case.outcome for case in compared.cases} == {Outcome.UNCHANGED}
    tests = ElementTree.parse(alone.path / "junit.xml").iter("testcase")
    told = [{p.get("name"): p.get("value") for p in test.iter("property")} for test in tests]
    assert {(each["beside_baseline"], each["unchanged_since"]) for each in told} == {
        ("unchanged", since)
    }
    report = (alone.session / "report.html").read_text(encoding="utf-8")
    assert "4 unchanged" in report
    assert "0 runs in " in report
    assert f"4 rows taken from the session {since}." in report
    summary = (alone.session / "summary.md").read_text(encoding="utf-8")
    assert f"4 rows taken from the session {since}" in summary
    # and what was taken is no measure for others
    refused = alone.run("--bench-baseline", str(alone.session))
    refused.stderr.fnmatch_lines(["*all its rows were taken from earlier sessions*"])


def test_workers_take_rows_and_one_of_them_audits(alone: Project) -> None:
    # as each worker has: rows are taken where the threads are as many
    torch.set_num_threads(1)
    alone.run("--bench-replay", "same").assert_outcomes(passed=4)
    alone.workers = ("-n", "2")
    result = alone.run("--bench-replay", "same", "--bench-replay-audit", "1000")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["normbench: audit: 4 runs trained again, all equal to the stored rows"]
    )
    assert [bool(run.audits) for run in alone.rows] == [True] * 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bench-replay", "all"], "*--bench-replay: 'all': expected same or trace*"),
        (["--bench-replay-audit", "9"], "*--bench-replay-audit needs --bench-replay*"),
        (
            ["--bench-replay", "same", "--bench-replay-audit", "-1"],
            "*--bench-replay-audit: '-1': expected a number of seconds above 0*",
        ),
        (
            ["--bench-replay", "same", "--bench-seeds", "auto", "--bench-baseline", "digits"],
            "*--bench-replay: with --bench-seeds auto*expected a number of seeds*",
        ),
        (
            ["--bench-replay", "same", "--bench-save-baseline", "x"],
            "*--bench-replay: rows that are taken enter no baseline*",
        ),
        (
            ["--bench-replay", "same", "--bench-plant", "batch-square-for-root"],
            "*--bench-replay: with --bench-plant*leave the other one out*",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(alone: Project, options: list[str], told: str) -> None:
    result = alone.run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])
