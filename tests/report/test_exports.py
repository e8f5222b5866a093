"""A session, and a comparison, as programs read them."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.comparison import compare
from normbench.analysis.traces import TraceCounts
from normbench.cases.case import Case
from normbench.report.exports import (
    COMPARISON_FORMATS,
    SESSION_FORMATS,
    accuracy_entries,
    has_passed,
    seconds_entries,
    session_document,
    to_json,
)
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.session import StoredSession, read_session

from ..storage.stored import (
    baseline_of,
    edit_document,
    finished,
    golden_copy,
    judged,
    store_session,
)

BATCH, LAYER = (
    Case("tiny", "smoke", RunSpec("digits", "digits", norm, recipe="digits"), 0.9, seeds=2)
    for norm in ("batch", "layer")
)
# Means of 95 %, of which the last epoch is no best one, and of 98 %.
RUNS = [
    finished(BATCH.spec, 0.97, 0.94),
    finished(BATCH.spec.with_seed(1), 0.95, 0.96),
    finished(LAYER.spec, 0.97),
    finished(LAYER.spec.with_seed(1), 0.99),
]
BEFORE = [finished(BATCH.spec.with_seed(seed), 0.96 + 0.02 * (seed % 2)) for seed in range(4)]


def session(results: Path, **parts: Any) -> StoredSession:
    """Store a session of both cases, of which a baseline has the first one."""
    comparison = compare(baseline_of(BEFORE), baseline_of(RUNS))
    cases = judged([BATCH, LAYER], RUNS)
    return store_session(results, cases, RUNS, comparison=comparison, **parts)


def golden(results: Path) -> StoredSession:
    """Return a session with cases that failed, claims, and a comparison with regressions."""
    return read_session(golden_copy("session-2", results))


def test_a_document_has_each_case_with_its_figures_and_how_it_stands(tmp_path: Path) -> None:
    document = json.loads(to_json(session_document(session(tmp_path))))
    assert document["schema"] == 1
    assert (document["status"], document["workers"]) == ("finished", 2)
    assert document["environment"]["torch"] == "2.15.0"
    assert document["options"]["seeds"] == 3
    batch, layer = document["cases"]
    assert (batch["id"], batch["grid"], batch["tier"]) == ("tiny-batch-none-b64", "tiny", "smoke")
    assert batch["spec"]["norm"] == "batch"
    assert (batch["target"], batch["verdict"], batch["n"]) == (0.9, "passed", 2)
    assert batch["test_accuracy"] == pytest.approx(0.95)
    assert batch["best_test_accuracy"] == pytest.approx((0.97 + 0.96) / 2)
    # two epochs of 2.0 and 0.5 seconds
    assert (batch["train_seconds"], batch["test_seconds"]) == (4.0, 1.0)
    beside = batch["beside_baseline"]
    assert (beside["outcome"], beside["difference"]) == ("undecided", pytest.approx(-0.02))
    assert beside["margin_of_error"] > 0
    assert layer["beside_baseline"]["outcome"] == "not in the baseline"
    assert layer["beside_baseline"]["difference"] is None
    assert document["counts"]["cases"] == {"passed": 2}
    assert document["counts"]["outcomes"] == {"undecided": 1, "not in the baseline": 1}
    assert document["comparison"]["baseline"] == "runs"
    assert (document["passed"], document["shortcomings"]) == (True, [])


def test_a_case_without_a_run_that_ended_well_has_no_figures(tmp_path: Path) -> None:
    runs = [RunResult(BATCH.spec, "diverged", "the loss was no longer finite in epoch 1")]
    cases = judged([BATCH], runs, {BATCH.id: "failed"})
    stored = store_session(tmp_path, cases, runs)
    (case,) = session_document(stored)["cases"]
    assert (case["verdict"], case["n"], case["test_accuracy"]) == ("diverged", 0, None)
    assert case["train_seconds"] is None
    assert case["reason"] == "the loss was no longer finite in epoch 1"
    assert case["beside_baseline"] is None
    assert accuracy_entries(stored) == seconds_entries(stored) == []
    assert not has_passed(stored)


def test_claims_and_why_the_session_is_no_pass_are_told(tmp_path: Path) -> None:
    document = json.loads(to_json(session_document(golden(tmp_path))))
    assert document["counts"]["claims"] == {"refuted": 1, "holds": 1}
    (contrast, _) = document["claims"]
    assert (contrast["verdict"], contrast["unexpected"]) == ("refuted", False)
    (evidence,) = contrast["evidence"]
    assert evidence["subject"] == "batch-l2:0.001-b64 less layer-l2:0.001-b64"
    assert evidence["difference"] == pytest.approx(0.963252 - 0.939866, abs=1e-5)
    assert not document["passed"]
    (reason,) = document["shortcomings"]
    assert reason.startswith("2 cases worse than in golden: ")


def test_a_session_that_was_interrupted_has_not_passed(tmp_path: Path) -> None:
    stored = session(tmp_path)
    assert has_passed(stored)
    edit_document(stored.folder, status="interrupted")
    assert not has_passed(read_session(stored.folder))


def test_entries_are_as_github_action_benchmark_reads_them(tmp_path: Path) -> None:
    stored = session(tmp_path)
    batch, layer = json.loads(to_json(accuracy_entries(stored)))
    assert (batch["name"], batch["unit"]) == ("tiny-batch-none-b64", "%")
    assert batch["value"] == pytest.approx(95)
    assert layer["value"] == pytest.approx(98)
    # its extractRangeInfo takes a prefix, then what JavaScript's Number takes
    spread = re.fullmatch(r"(?P<prefix>(\+-|±)\s*)(?P<value>\d.*)", batch["range"])
    assert spread is not None
    interval = session_document(stored)["cases"][0]["margin_of_error"]
    assert float(spread["value"]) == pytest.approx(100 * interval, abs=0.005)
    lines = batch["extra"].splitlines()
    assert lines[0] == "passed: target 90.00 %, n = 2"
    assert re.fullmatch(r"beside the baseline: undecided, -2\.00 ± \d\.\d\d points", lines[1])
    assert lines[2] == f"torch 2.15.0, Some CPU, {stored.name}"
    assert {type(value) for value in batch.values()} == {str, float}
    seconds, _ = seconds_entries(stored)
    assert (seconds["name"], seconds["unit"], seconds["value"]) == (batch["name"], "s", 5.0)
    assert seconds["range"] == "± 0.00"


def test_a_case_whose_rows_were_taken_says_from_where_and_has_no_seconds(tmp_path: Path) -> None:
    runs = [dataclasses.replace(run, replayed="20251231-000000-1") for run in RUNS[:2]] + RUNS[2:]
    stored = store_session(tmp_path, judged([BATCH, LAYER], runs), runs)
    batch, layer = session_document(stored)["cases"]
    assert (batch["verdict"], batch["n"], layer["n"]) == ("unchanged", 0, 2)
    assert (batch["taken_from"], layer["taken_from"]) == (["20251231-000000-1"], [])
    assert batch["test_accuracy"] == pytest.approx(0.95)
    assert [entry["value"] for entry in accuracy_entries(stored)] == pytest.approx([95, 98])
    assert [entry["name"] for entry in seconds_entries(stored)] == [LAYER.id]
    assert has_passed(stored)


def test_a_comparison_has_entries_of_what_was_compared() -> None:
    now = baseline_of(RUNS)
    comparison, traces = compare(baseline_of(BEFORE), now), TraceCounts(0, (), ())
    batch, layer = COMPARISON_FORMATS["github-accuracy"](comparison, now, traces)
    assert (batch["name"], batch["value"]) == ("digits batch-none-b64, 1 epoch", pytest.approx(95))
    assert "beside the baseline: undecided, -2.00 ±" in batch["extra"]
    assert layer["extra"] == "n = 2\nbeside the baseline: not in the baseline"
    first, second = COMPARISON_FORMATS["github-seconds"](comparison, now, traces)
    assert (first["value"], second["value"]) == (5.0, 2.5)
    assert COMPARISON_FORMATS.keys() == SESSION_FORMATS.keys()
