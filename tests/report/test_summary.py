"""The page for a CI run: what failed first, a pivot, and a size that GitHub takes."""

from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.comparison import compare
from normbench.cases.case import Case, Claim, Contrast
from normbench.report.summary import (
    STEP_SUMMARY_BYTES,
    alarm_summary,
    pivot,
    session_summary,
    write_summary,
)
from normbench.report.tables import case_tables
from normbench.results import ClaimVerdict, RunResult
from normbench.spec import RunSpec
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession, read_session

from ..analysis.simulation import baseline_of
from ..storage.stored import finished, golden_copy, judged, store_session

ROWS = [
    ("batch", "none", 32, 99.512, "passed"),
    ("batch", "none", 64, 99.4, "marginal"),
    ("layer", "none", 32, 98.0, "failed"),
    ("layer", "none", 64, None, "crashed"),
    ("a|b", "none", 32, None, "skipped"),
]


def mnist(results: Path, **parts: Any) -> StoredSession:
    """Store a session that has the cases of ROWS."""
    cases, runs = [], []
    for norm, _, size, percent, verdict in ROWS:
        spec = RunSpec("mnist", "mnist", norm, batch_size=size)
        cases.append(StoredCase.of(Case("mnist", "standard", spec, 0.99), verdict=verdict))
        if percent is not None:
            runs.append(finished(spec, percent / 100))
        elif verdict == "crashed":
            runs.append(RunResult(spec, "crashed", "died"))
    return store_session(results, cases, runs, **parts)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")][1:-1]


def test_a_pivot_has_norms_down_and_configurations_across(tmp_path: Path) -> None:
    lines = pivot(case_tables(mnist(tmp_path))["mnist"]).splitlines()
    assert cells(lines[0]) == ["norm", "none, 32", "none, 64"]
    assert cells(lines[2]) == ["batch", "99.51", "99.40"]
    assert cells(lines[3]) == ["layer", "98.00", ""]
    assert len(lines) == 4


def test_what_failed_stands_first(tmp_path: Path) -> None:
    text = session_summary(mnist(tmp_path))
    assert text.startswith(
        "## normbench: 1 passed, 1 marginal, 1 failed, 1 crashed, 1 skipped\n\n"
        "### mnist: not passed\n\n| data set"
    )
    failures = text.partition("test accuracy, last epoch (%)\n")[0]
    assert "| layer" in failures
    assert "a\\|b" not in failures
    assert "Some CPU (2 cores)" in text


def test_why_cases_ended_badly_or_were_skipped_is_told(tmp_path: Path) -> None:
    cases = [
        Case("mnist", "standard", RunSpec("mnist", "mnist", norm), 0.9)
        for norm in ("batch", "layer", "none")
    ]
    runs = [
        RunResult(cases[0].spec, "diverged", "the loss was no longer finite in epoch 2"),
        RunResult(cases[1].spec, "error", "ValueError: of\ntwo lines"),
    ]
    outcomes = {cases[0].id: "failed", cases[1].id: "failed", cases[2].id: "skipped"}
    why = {cases[2].id: "MNIST is not there"}
    stored = judged(cases, runs, outcomes, skipped=why)
    assert [case.reason for case in stored] == [
        "the loss was no longer finite in epoch 2",
        "ValueError: of two lines",
        "MNIST is not there",
    ]
    session = store_session(tmp_path, stored, runs)
    text = session_summary(session)
    assert "| the loss was no longer finite in epoch 2 |" in text
    assert "1 skipped: MNIST is not there\n" in text
    table = case_tables(session)["mnist"]
    assert table["reason"].tolist() == [case.reason for case in stored]


def test_regressions_stand_before_the_pivot(tmp_path: Path) -> None:
    spec = RunSpec("mnist", "mnist", "batch")
    before = baseline_of({spec: [0.995, 0.996, 0.994]})
    now = baseline_of({spec: [0.98, 0.98, 0.98]})
    text = session_summary(mnist(tmp_path, comparison=compare(before, now)))
    regressed = text.index("| mnist batch-none-b64, 1 epoch |")
    assert text.index("### Beside the baseline simulated") < regressed
    assert regressed < text.index("### mnist: test accuracy")


def test_claims_that_come_out_otherwise_than_on_record_are_counted(tmp_path: Path) -> None:
    cases = [
        Case("digits", "smoke", RunSpec("digits", "digits", norm), 0.5, seeds=2)
        for norm in ("batch", "layer")
    ]
    accuracies = {"batch": (0.95, 0.952), "layer": (0.90, 0.902)}
    runs = [
        finished(spec, accuracies[spec.norm][spec.seed]) for case in cases for spec in case.specs
    ]
    contrast = Contrast(cases[1], cases[0], low=0.0)
    expected = (ClaimVerdict.HOLDS,)
    claim = Claim("c", "Layer is better.", "hearsay", "smoke", expected, 2, (contrast,))
    text = session_summary(store_session(tmp_path, judged(cases, runs), runs, claims=[claim]))
    assert text.startswith("## normbench: 2 passed, 1 claim, 1 of them not as expected\n")
    assert "| refuted (!) | c" in text
    assert "Layer is better." in text


@pytest.mark.parametrize("name", ["session-1", "session-2"])
def test_a_session_of_every_schema_is_summed_up(tmp_path: Path, name: str) -> None:
    text = session_summary(read_session(golden_copy(name, tmp_path)))
    assert text.startswith("## normbench: 3 failed, 2 passed, 1 marginal, 1 diverged, 2 claims\n")
    assert "### Beside the baseline golden" in text
    table = text.partition("### tiny: test accuracy, last epoch (%)\n\n")[2].splitlines()
    assert cells(table[0]) == ["norm", "l2:0.001, 64"]
    # 427, 416, 424 and 47 images of 449
    assert [cells(line) for line in table[2:6]] == [
        ["batch", "95.10"],
        ["layer", "92.65"],
        ["group:4", "94.43"],
        ["own_norms:Faulty", "10.47"],
    ]


def test_it_is_added_to_the_steps_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    session = mnist(tmp_path)
    write_summary(session)
    text = session_summary(session)
    assert step.read_text() == f"before\n{text}"
    assert (session.folder / "summary.md").read_text() == text


def test_a_steps_summary_is_cut_to_what_github_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step.md"
    step.write_text("x" * 100)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    specs = [RunSpec("digits", "digits", f"{'ü' * 200}{number}") for number in range(2500)]
    session = store_session(
        tmp_path,
        [StoredCase.of(Case("digits", "smoke", spec, 0.9), verdict="crashed") for spec in specs],
    )
    write_summary(session)
    text = session_summary(session)
    assert (session.folder / "summary.md").read_text() == text
    assert len(text.encode()) > STEP_SUMMARY_BYTES
    written = step.read_text().removeprefix("x" * 100)
    note = "\n\nCut here: GitHub takes no more.\n"
    assert written.endswith(note)
    # as many whole lines as there is room for
    kept = written.removesuffix(note)
    assert text.startswith(kept)
    assert kept.endswith("|\n")
    following = text[len(kept) :].partition("\n")[0] + "\n"
    assert step.stat().st_size <= STEP_SUMMARY_BYTES
    assert step.stat().st_size + len(following.encode()) > STEP_SUMMARY_BYTES
    write_summary(session)
    assert step.stat().st_size <= STEP_SUMMARY_BYTES


def test_without_a_step_only_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    session = mnist(tmp_path)
    before = {file.name for file in session.folder.iterdir()}
    write_summary(session)
    assert {file.name for file in session.folder.iterdir()} - before == {"summary.md"}
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


def test_an_issue_is_told_of_without_pivots_and_with_since_when(tmp_path: Path) -> None:
    session = mnist(tmp_path)
    text = alarm_summary(session, ["Since Monday."])
    assert "### Since when\n\nSince Monday.\n\nGenerated by the session" in text
    assert "### mnist: not passed" in text
    assert "test accuracy, last epoch (%)\n" not in text
    assert "### Since when\n\nSince Monday." in session_summary(session, ["Since Monday."])


def test_an_issue_is_cut_to_what_github_takes(tmp_path: Path) -> None:
    specs = [RunSpec("digits", "digits", f"own:{number}") for number in range(1000)]
    cases = [StoredCase.of(Case("digits", "smoke", s, 0.9), verdict="crashed") for s in specs]
    text = alarm_summary(store_session(tmp_path, cases))
    assert text.endswith("|\n\n\nCut here: GitHub takes no more.\n")
    assert 64900 < len(text.encode()) < 65536


def test_a_planted_fault_is_told_before_anything_else(tmp_path: Path) -> None:
    _, told, *_ = session_summary(mnist(tmp_path, planted="no-decay")).split("\n\n")
    assert told == (
        "**The fault no-decay was planted** (`--bench-plant`): what follows is of broken code."
    )
