"""Tables: a row a case, figures worked out by hand, nothing shown that was not measured."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from normbench.analysis.claims import stored_claims
from normbench.analysis.comparison import compare
from normbench.analysis.statistics import Variance
from normbench.analysis.verdicts import case_verdict
from normbench.cases.case import Case, Claim, Contrast, Published
from normbench.report.tables import (
    case_tables,
    csv_text,
    markdown_table,
    terminal_claims,
    terminal_comparison,
    write_tables,
)
from normbench.results import JUDGED, ClaimVerdict, RunResult, Status
from normbench.spec import RunSpec
from normbench.storage.documents import StoredCase
from normbench.storage.session import read_session

from ..analysis.simulation import baseline_of
from ..storage.stored import finished, golden_copy, judged, store_session

SPEC = RunSpec("digits", "digits", "group:4", regularizer="l1:0.001", batch_size=64, epochs=2)
CASE = Case("digits", "smoke", SPEC, target=0.9, seeds=2)


def run(seed: int, accuracies: tuple[float, ...], status: Status = "ok") -> RunResult:
    spec = SPEC.with_seed(seed)
    return finished(spec, *accuracies) if status == "ok" else RunResult(spec, status, "died")


def table(
    results: Path,
    case: Case,
    runs: Sequence[RunResult],
    outcome: str = "passed",
    before: Iterable[RunResult] | None = None,
) -> pd.DataFrame:
    """Return the table of a session of one case; ``before`` are a baseline's runs of it."""
    stored = judged([case], runs, {case.id: outcome}, before)
    return case_tables(store_session(results, stored, runs))["digits"]


def test_a_row_holds_the_means_over_the_seeds(tmp_path: Path) -> None:
    row = table(tmp_path, CASE, [run(0, (0.96, 0.92)), run(1, (0.90, 0.94))]).iloc[0]
    assert row["seeds"] == 2
    assert row["test_accuracy_percent"] == pytest.approx(93.0)
    assert row["test_accuracy_std_percent"] == pytest.approx(2**0.5)
    assert row["best_test_accuracy_percent"] == pytest.approx(95.0)
    assert row["train_accuracy_percent"] == pytest.approx(97.0)
    assert (row["seconds"], row["cpu_seconds"]) == (5.0, 4.0)
    assert row["target_percent"] == pytest.approx(90.0)
    assert (row["norm"], row["regularizer"]) == ("group:4", "l1:0.001")


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    assert table(tmp_path, CASE, [run(0, (0.9, 0.9))])["test_accuracy_std_percent"].isna().all()


def test_the_interval_is_students_with_the_variance_of_the_sessions_runs(tmp_path: Path) -> None:
    # a variance of 2e-4: six cases of two runs, one degree of freedom each, that scatter alike
    specs = [SPEC, *(RunSpec("digits", "digits", "batch", f"l2:{n}") for n in range(1, 6))]
    cases = [Case("digits", "smoke", spec, 0.9, seeds=2) for spec in specs]
    runs = [finished(s.with_seed(n), 0.9, a) for s in specs for n, a in enumerate((0.92, 0.94))]
    session = store_session(tmp_path, judged(cases, runs), runs)
    # t of 0.975 on six degrees of freedom, times the standard error of two runs
    intervals = case_tables(session)["digits"]["interval_points"]
    assert list(intervals) == pytest.approx([100 * 2.446912 * 0.01] * 6)


def test_the_interval_of_single_runs_has_the_variance_of_the_baseline(tmp_path: Path) -> None:
    # ten degrees of freedom: eleven runs of a variance of 2e-4
    accuracies = [0.92, *(0.92 - 0.001**0.5, 0.92 + 0.001**0.5), *(0.92,) * 8]
    before = [run(seed, (0.9, accuracy)) for seed, accuracy in enumerate(accuracies)]
    now = [run(0, (0.9, 0.95))]
    row = table(tmp_path, CASE, now, before=before).iloc[0]
    assert row["interval_points"] == pytest.approx(100 * 2.228139 * 0.0002**0.5)
    assert table(tmp_path, CASE, now)["interval_points"].isna().all()


def test_a_case_that_passed_with_little_room_is_marginal(tmp_path: Path) -> None:
    runs = [run(0, (0.9, 0.92)), run(1, (0.9, 0.94))]

    def verdict(standard_error: float, outcome: str = "passed") -> str:
        variance = Variance(2 * standard_error**2, 10)
        stored = StoredCase.of(CASE, verdict=case_verdict(CASE, outcome, runs, variance))
        session = store_session(tmp_path, [stored], runs)
        return str(case_tables(session)["digits"]["verdict"][0])

    # three points above its target
    assert verdict(0.016) == "marginal"
    assert verdict(0.014) == "passed"
    assert verdict(0.016, "failed") == "failed"


def test_the_difference_is_our_best_epoch_less_the_published_one(tmp_path: Path) -> None:
    case = Case("digits", "smoke", SPEC, 0.9, Published(0.9537, 0.001, "grid"))
    row = table(tmp_path, case, [run(0, (0.96, 0.92))]).iloc[0]
    assert row["published_percent"] == pytest.approx(95.37)
    assert row["difference_points"] == pytest.approx(0.63)


def test_a_failed_run_has_a_verdict_and_no_figure(tmp_path: Path) -> None:
    row = table(tmp_path, CASE, [run(0, (), status="crashed")], "failed").iloc[0]
    assert row["verdict"] == "crashed"
    assert row["seeds"] == 0
    assert pd.isna(row["test_accuracy_percent"])


def test_a_case_that_was_not_run_has_no_row(tmp_path: Path) -> None:
    assert case_tables(store_session(tmp_path, judged([CASE], [], {}))) == {}


def test_there_is_one_table_per_grid_in_the_order_of_the_grids(tmp_path: Path) -> None:
    first, second = (Case(g, "smoke", SPEC, 0.9) for g in ("own", "digits"))
    batch = Case("own", "smoke", RunSpec("digits", "digits", "batch"), 0.9)
    runs = [run(0, (0.9, 0.95))]
    tables = case_tables(store_session(tmp_path, judged([first, second, batch], runs), runs))
    assert {grid: list(t["norm"]) for grid, t in tables.items()} == {
        "own": ["group:4", "batch"],
        "digits": ["group:4"],
    }
    assert list(tables) == ["own", "digits"]


def test_markdown_keeps_a_bar_in_a_name_from_ending_its_cell(tmp_path: Path) -> None:
    spec = RunSpec("digits", "digits", "pkg:a|b")
    case = Case("digits", "smoke", spec, 0.9)
    text = markdown_table(table(tmp_path, case, [], "skipped"))
    assert "pkg:a\\|b" in text


def test_the_files_say_where_the_figures_come_from(tmp_path: Path) -> None:
    runs = [run(0, (0.96, 0.92))]
    session = store_session(tmp_path, judged([CASE], runs), runs)
    write_tables(session)
    tables = session.folder / "tables"
    text = (tables / "digits.md").read_text()
    assert "session 20260101-000000-1 on Some CPU (2 cores), 2 workers; Python 3.11.7" in text
    assert "torch 2.15.0, torchvision 0.29.2, commit abc" in text
    assert "| group:4" in text
    read = pd.read_csv(tables / "digits.csv")
    assert list(read) == list(case_tables(session)["digits"])
    assert read["test_accuracy_percent"][0] == pytest.approx(92.0)
    assert read["verdict"].tolist() == ["passed"]
    assert {file.name for file in tables.iterdir()} == {"digits.md", "digits.csv"}


@pytest.mark.parametrize("text", ["=1+2", "+cmd|' /C calc'!A0", "-x", "@SUM(1)", "\t=1", "\n=1"])
def test_no_text_is_a_formula_to_a_spreadsheet(text: str) -> None:
    frame = pd.DataFrame({"reason": [text, "a = b", None], "difference": [-0.5, 0.25, None]})
    (first, second, third) = csv.DictReader(io.StringIO(csv_text(frame), newline=""))
    assert first == {"reason": f"'{text}", "difference": "-0.5"}
    assert second == {"reason": "a = b", "difference": "0.25"}
    assert third == {"reason": "", "difference": ""}


def test_no_text_begins_a_row_of_its_own() -> None:
    written = csv_text(pd.DataFrame({"reason": ["died\r=1+2", "died\r\n=1"]}))
    assert [row["reason"] for row in csv.DictReader(io.StringIO(written, newline=""))] == [
        "died\n=1+2",
        "died\n=1",
    ]


def test_a_number_that_is_a_text_stays_one() -> None:
    assert csv_text(pd.DataFrame({"says": ["-0.5", "+1e3"]})) == "says\n-0.5\n+1e3\n"


def test_the_reason_of_a_run_that_failed_is_no_formula(tmp_path: Path) -> None:
    failed = RunResult(SPEC, "error", "=HYPERLINK(A1)")
    session = store_session(tmp_path, judged([CASE], [failed]), [failed])
    write_tables(session)
    (row,) = pd.read_csv(session.folder / "tables" / "digits.csv").to_dict("records")
    assert row["reason"] == "'=HYPERLINK(A1)"


def test_the_comparison_is_written_and_its_regressions_are_told_in_the_terminal(
    tmp_path: Path,
) -> None:
    same = RunSpec("digits", "digits", "batch")
    before = baseline_of({SPEC: [0.99, 0.991, 0.992], same: [0.99, 0.991, 0.992]})
    comparison = compare(before, baseline_of({SPEC: [0.95] * 5, same: [0.991] * 5}))
    session = store_session(tmp_path, comparison=comparison)
    write_tables(session)
    written = pd.read_csv(session.folder / "tables" / "comparison.csv").set_index("case")
    assert list(written["outcome"]) == ["regression", "no regression"]
    row = written.loc["digits group:4-l1:0.001-b64, 2 epochs"]
    assert row["difference_points"] == pytest.approx(-4.1)
    assert (row["baseline_runs"], row["now_runs"]) == (3, 5)
    # the variance is 1e-6 on four degrees of freedom; 1/3 + 1/5 of it that of the difference
    assert row["interval_points"] == pytest.approx(100 * 2.776445 * 0.001 * (8 / 15) ** 0.5)
    told = terminal_comparison(comparison)
    assert "digits group:4-l1:0.001-b64, 2 epochs" in told
    assert "digits batch-none-b64" not in told
    assert told.endswith("1 regression, 1 no regression; at 1.00 of the baseline's speed")


def test_claims_are_written_with_what_they_stand_on(tmp_path: Path) -> None:
    cases = [
        Case("digits", "smoke", RunSpec("digits", "digits", norm), 0.5, seeds=2)
        for norm in ("batch", "layer")
    ]
    accuracies = {"batch": (0.95, 0.952), "layer": (0.90, 0.902)}
    runs = [
        finished(spec, accuracies[spec.norm][spec.seed]) for case in cases for spec in case.specs
    ]
    contrast = Contrast(cases[0], cases[1], low=0.02)
    claim = Claim("better", "Batch is better.", "hearsay", "smoke", JUDGED, 2, (contrast,))
    session = store_session(tmp_path, judged(cases, runs), runs, claims=[claim])
    write_tables(session)
    (row,) = pd.read_csv(session.folder / "tables" / "claims.csv").to_dict("records")
    assert (row["verdict"], row["subject"]) == ("holds", "batch-none-b64 less layer-none-b64")
    assert row["difference_points"] == pytest.approx(5.0)
    # the variance is 2e-6 on two degrees of freedom, as is that of the difference of two means
    assert row["interval_points"] == pytest.approx(100 * 4.302653 * 2e-6**0.5)
    assert "Batch is better." in (session.folder / "tables" / "claims.md").read_text()
    ((judged_claim, stored),) = session.claims
    assert (judged_claim, stored.verdict) == (claim, ClaimVerdict.HOLDS)


@pytest.mark.parametrize("grid", ["tiny", "claims-tiny"])
def test_tables_of_schema_1_are_drawn_again_as_they_were(tmp_path: Path, grid: str) -> None:
    folder = golden_copy("session-1", tmp_path)
    written = pd.read_csv(folder / "tables" / f"{grid}.csv")
    # with a column more, for why a run ended badly
    drawn = case_tables(read_session(folder))[grid].drop(columns="reason")
    pd.testing.assert_frame_equal(
        drawn.astype(written.dtypes.to_dict()), written, check_dtype=False, rtol=1e-9
    )


def test_what_the_terminal_tells_of_claims_ends_with_their_number(tmp_path: Path) -> None:
    session = read_session(golden_copy("session-2", tmp_path))
    told = terminal_claims(stored_claims(session)).splitlines()
    assert told[-1] == "1 holds, 1 refuted"
    assert any(line.startswith("refuted") and "batch-beats-layer" in line for line in told)
    assert any("batch, 3 images x 8 channels" in line for line in told)
