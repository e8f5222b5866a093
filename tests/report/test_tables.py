"""Tables: a row a case, figures worked out by hand, nothing shown that was not measured."""

import pandas as pd
import pytest

from normbench.analysis.statistics import UNKNOWN, Variance
from normbench.cases.case import Case, Published
from normbench.report.tables import case_tables, markdown_table, terminal_table, write_tables
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.session import Session

SPEC = RunSpec("digits", "digits", "group:4", l1=0.001, batch_size=64, epochs=2)
CASE = Case("digits", "smoke", SPEC, target=0.9, seeds=2)


def run(seed: int, accuracies: tuple[float, ...], status: str = "ok") -> RunResult:
    epochs = tuple(Epoch(n, 0.1, 0.2, 0.97, 0.3, a, 2.0, 0.5) for n, a in enumerate(accuracies, 1))
    return RunResult(SPEC.with_seed(seed), status, parameters=120, epochs=epochs, cpu_seconds=4.0)


def table(
    case: Case, runs: list[RunResult], verdict: str = "passed", variance: Variance = UNKNOWN
) -> pd.DataFrame:
    results = {r.spec.key: r for r in runs}
    return case_tables([case], results, {case.id: verdict}, {SPEC: variance})["digits"]


def test_a_row_holds_the_means_over_the_seeds():
    row = table(CASE, [run(0, (0.96, 0.92)), run(1, (0.90, 0.94))]).iloc[0]
    assert row["seeds"] == 2
    assert row["test_accuracy_percent"] == pytest.approx(93.0)
    assert row["test_accuracy_std_percent"] == pytest.approx(2**0.5)
    assert row["best_test_accuracy_percent"] == pytest.approx(95.0)
    assert row["train_accuracy_percent"] == pytest.approx(97.0)
    assert (row["seconds"], row["cpu_seconds"]) == (5.0, 4.0)
    assert row["target_percent"] == pytest.approx(90.0)
    assert (row["norm"], row["regularizer"]) == ("group:4", "l1:0.001")


def test_one_seed_has_no_deviation():
    assert table(CASE, [run(0, (0.9, 0.9))])["test_accuracy_std_percent"].isna().all()


def test_the_interval_is_students_with_the_variance_of_all_cases():
    runs = [run(0, (0.9, 0.92)), run(1, (0.9, 0.94))]
    row = table(CASE, runs, variance=Variance(0.0002, 10)).iloc[0]
    # t of 0.975 on ten degrees of freedom, times the standard error of two runs
    assert row["interval_points"] == pytest.approx(100 * 2.228139 * 0.01)
    assert table(CASE, runs)["interval_points"].isna().all()


def test_a_case_that_passed_with_little_room_is_marginal():
    runs = [run(0, (0.9, 0.92)), run(1, (0.9, 0.94))]

    def verdict(standard_error, said="passed"):
        variance = Variance(2 * standard_error**2, 10)
        return table(CASE, runs, said, variance)["verdict"][0]

    # three points above its target
    assert verdict(0.016) == "marginal"
    assert verdict(0.014) == "passed"
    assert verdict(0.016, "failed") == "failed"


def test_the_difference_is_our_best_epoch_less_the_published_one():
    case = Case("digits", "smoke", SPEC, 0.9, Published(0.9537, 0.001, "grid"))
    row = table(case, [run(0, (0.96, 0.92))]).iloc[0]
    assert row["published_percent"] == pytest.approx(95.37)
    assert row["difference_points"] == pytest.approx(0.63)


def test_a_failed_run_has_a_verdict_and_no_figure():
    row = table(CASE, [run(0, (), status="crashed")], "crashed").iloc[0]
    assert row["verdict"] == "crashed"
    assert row["seeds"] == 0
    assert pd.isna(row["test_accuracy_percent"])


def test_a_case_that_was_not_run_has_no_row():
    assert case_tables([CASE], {}, {}, {}) == {}


def test_the_terminals_table_leaves_out_empty_columns_and_fits_120_characters():
    text = terminal_table(table(CASE, [run(0, (0.96, 0.92)), run(1, (0.90, 0.94))]))
    assert "publ." not in text
    assert max(map(len, text.splitlines())) <= 120
    cells = " ".join(text.splitlines()[2].split())
    assert cells == "group:4 l1:0.001 64 2 93.00 95.00 97.00 0.3000 120 2 5.0 90.00 passed"


def test_markdown_keeps_a_bar_in_a_name_from_ending_its_cell():
    spec = RunSpec("digits", "digits", "pkg:a|b")
    case = Case("digits", "smoke", spec, 0.9)
    text = markdown_table(case_tables([case], {}, {case.id: "skipped"}, {})["digits"])
    assert "pkg:a\\|b" in text


def test_the_files_say_where_the_figures_come_from(tmp_path):
    session = Session(tmp_path, "20260101-000000-1", workers=2)
    session.environment = {
        "processor": "Some CPU",
        "cores": 2,
        "gpus": [],
        "python": "3.11.7",
        "torch": "2.15.0",
        "torchvision": "0.29.2",
        "commit": "abc",
    }
    measured = table(CASE, [run(0, (0.96, 0.92))])
    write_tables(tmp_path / "tables", {"digits": measured}, session)
    text = (tmp_path / "tables" / "digits.md").read_text()
    assert "session 20260101-000000-1 on Some CPU (2 cores), 2 workers; Python 3.11.7" in text
    assert "| group:4" in text
    read = pd.read_csv(tmp_path / "tables" / "digits.csv")
    assert list(read) == list(measured)
    assert read["test_accuracy_percent"][0] == pytest.approx(92.0)
    assert read["verdict"].tolist() == ["passed"]
