"""A session without pytest: opened, its outcomes noted, closed with its verdicts."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from normbench.cases.case import Case, GridOptions
from normbench.engine.controller import Controller, SessionOutcome, selected
from normbench.engine.options import Options
from normbench.engine.runner import Runner
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore
from normbench.storage.session import latest_session, read_session
from normbench.storage.traces import has_case_traces
from normbench.training.datasets import DATASETS
from normbench.training.fingerprints import code_digest, fingerprint

CASES = [
    Case("tiny", "smoke", RunSpec("digits", "digits", norm, recipe="digits"), 0.9, seeds=3)
    for norm in ("batch", "layer")
]
NAME = "20260101-000000-1"


def options(folder: Path, **changes: Any) -> Options:
    return Options(
        grid=GridOptions(data=folder / "data"),
        device="cpu",
        cases=(),
        results=folder / "results",
        reference=folder / "reference",
        **changes,
    )


def perfect(spec: RunSpec, *_: Any) -> RunResult:
    """Return a run that classified each of the 449 test images right."""
    right = [45] * 9 + [44]
    confusion = tuple(tuple(n if i == j else 0 for j in range(10)) for i, n in enumerate(right))
    epochs = (Epoch(1, 0.1, 0.2, 1.0, 0.1, 1.0, 2.0, 0.5),)
    return RunResult(spec, "ok", parameters=120, epochs=epochs, confusion=confusion, torch="2")


def session(
    folder: Path, outcomes: Mapping[str, str], *, finished: bool = True, **changes: Any
) -> SessionOutcome:
    """Run a session of both cases, in which each run is perfect, and return what it came to."""
    name = changes.pop("name", NAME)
    controller = Controller(options(folder, **changes), name, folder)
    assert controller.prepare(selected(CASES, []), workers=1) == []
    runner = Runner(controller.options, controller.session.folder, train=perfect)
    for case in controller.cases:
        if case.id in outcomes:
            runner.run_case(case)
            controller.record_outcome(case.id, outcomes[case.id])
    return controller.finish(finished=finished)


PASSED = {case.id: "passed" for case in CASES}


def test_a_session_without_a_single_mistake_ends_well(tmp_path: Path) -> None:
    outcome = session(tmp_path, PASSED, save_baseline="perfect")
    assert outcome.notes == (f"baseline perfect written to {tmp_path}/reference/perfect.json",)
    assert outcome.session is not None
    stored = read_session(latest_session(tmp_path / "results"))
    assert stored == outcome.session
    assert stored.document.status == "finished"
    for case in stored.document.cases:
        assert (case.verdict, case.runs, case.test_accuracy) == ("passed", 3, 1.0)
        # by the t of 4 degrees of freedom, two a case: accuracies in steps of 1/449 vary by
        # rounding at least, 1 / 449**2 / 12, and the mean is one of three runs
        assert case.margin_of_error == pytest.approx(2.776445 / 449 / 12**0.5 / 3**0.5)
    assert (stored.folder / "report.html").is_file()
    assert "100.00" in (stored.folder / "summary.md").read_text(encoding="utf-8")
    # and beside itself, where both spreads are zero
    again = session(tmp_path, PASSED, name="20260101-000000-2", baselines=("perfect",))
    assert again.notes == ()
    assert again.session is not None
    compared = again.session.document.comparison
    assert compared is not None
    assert [str(case.outcome) for case in compared.cases] == ["no regression"] * 2


def test_a_case_without_an_outcome_has_no_verdict(tmp_path: Path) -> None:
    outcome = session(tmp_path, {CASES[1].id: "passed"}, finished=False, save_baseline="part")
    assert outcome.session is not None
    assert [case.verdict for case in outcome.session.document.cases] == [None, "passed"]
    assert outcome.session.document.status == "interrupted"
    assert (outcome.cases, outcome.left, outcome.shortcomings) == (2, 1, [])
    assert outcome.notes == (
        "the session is no baseline, as it was interrupted: part was not written",
    )


def test_the_session_keeps_what_its_runs_were_trained_on_and_tells_of_another_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = dataclasses.replace(DATASETS["digits"], content="the usual")
    monkeypatch.setitem(DATASETS, "digits", usual)
    for content, notes in (("the usual", 0), ("another", 1)):
        controller = Controller(options(tmp_path), content, tmp_path)
        controller.prepare(selected(CASES[:1], []), workers=1)
        run = dataclasses.replace(perfect(CASES[0].spec), data=content)
        controller.store.append(run)
        controller.record_outcome(CASES[0].id, "passed")
        outcome = controller.finish(finished=True)
        assert outcome.session is not None
        assert outcome.session.document.datasets["digits"].content == content
        assert len(outcome.notes) == notes
    assert outcome.notes[0].startswith(
        "digits has the fingerprint another, and targets and baselines stand on the usual: its"
    )


def test_of_several_tests_of_one_case_a_failed_one_counts(tmp_path: Path) -> None:
    controller = Controller(options(tmp_path), NAME, tmp_path)
    for outcome in ("passed", "failed", "passed"):
        controller.record_outcome("a-case", outcome)
    assert controller.outcomes == {"a-case": "failed"}


def test_a_session_that_is_stopped_before_its_first_case_can_be_resumed(tmp_path: Path) -> None:
    outcome = session(tmp_path, {}, finished=False)
    assert outcome == SessionOutcome(cases=2, left=2)
    folder = latest_session(tmp_path / "results")
    assert read_session(folder).document.status == "interrupted"
    assert [file.name for file in folder.iterdir()] == ["session.json"]
    resumed = session(tmp_path, PASSED, resume=True)
    assert resumed.session is not None
    assert (resumed.session.name, resumed.session.document.resumed) == (NAME, 1)
    assert [case.verdict for case in resumed.session.document.cases] == ["passed", "passed"]


@pytest.mark.parametrize(("processor", "kept"), [(None, True), ("another", False)])
def test_traces_of_cases_are_dropped_where_a_session_goes_on_with_another_processor(
    tmp_path: Path, processor: str | None, kept: bool
) -> None:
    session(tmp_path, {}, finished=False)
    folder = latest_session(tmp_path / "results")
    (folder / "case-traces").mkdir()
    if processor is not None:
        document = json.loads((folder / "session.json").read_text())
        document["environment"]["processor"] = processor
        (folder / "session.json").write_text(json.dumps(document))
    session(tmp_path, PASSED, resume=True)
    assert has_case_traces(folder) is kept


def test_a_worker_that_dies_before_it_trains_costs_a_run_of_its_tests_case(tmp_path: Path) -> None:
    controller = Controller(options(tmp_path), NAME, tmp_path)
    first, second = CASES
    tests = {"test_tiny[first]": first.id, "test_tiny[second]": second.id}
    controller.prepare(selected(CASES, [], tests=tests), workers=1)
    store = controller.store
    store.append(perfect(first.specs[0]))
    assert controller.record_crash("gw0", "test_tiny[first]") == first.id
    crashed = store.find(first.specs[1])
    assert crashed is not None
    assert (crashed.status, crashed.worker) == ("crashed", "gw0")
    assert crashed.message == "the process of worker gw0 died before it trained this run"
    assert crashed.ended
    assert store.find(first.specs[2]) is None
    # all that the other one asks for is there, so that it died of something else
    for spec in second.specs:
        store.append(perfect(spec))
    assert controller.record_crash("gw1", "test_tiny[second]") == second.id
    assert all(run.status == "ok" for run in map(store.find, second.specs) if run)
    assert controller.record_crash("gw1", "test_of_something_else") is None


def test_a_session_that_is_not_prepared_leaves_nothing(tmp_path: Path) -> None:
    controller = Controller(options(tmp_path), NAME, tmp_path)
    assert controller.finish(finished=True) == SessionOutcome()
    assert not (tmp_path / "results").exists()


def test_a_session_in_the_midst_of_another_process_is_not_resumed(tmp_path: Path) -> None:
    controller = Controller(options(tmp_path), NAME, tmp_path)
    controller.prepare(selected(CASES, []), workers=1)
    other = Controller(options(tmp_path, resume=True), "another", tmp_path)
    assert other.session.name == NAME
    with pytest.raises(ValueError, match="is still running in another process"):
        other.prepare(selected(CASES, []), workers=1)
    controller.finish(finished=False)


def test_damaged_data_opens_no_session(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"cut off")
    case = Case("tiny", "smoke", RunSpec("mnist", "mnist", "batch"), 0.9)
    controller = Controller(options(tmp_path), NAME, tmp_path)
    with pytest.raises(ValueError, match=r"MNIST/raw lacks train-images-idx3-ubyte"):
        controller.prepare(selected([case], []), workers=1)
    assert controller.finish(finished=False) == SessionOutcome()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "old"},
        {"code": "old"},
        {"code": ""},
        {"data": "other images"},
        {"spec": dataclasses.replace(CASES[1].spec, recipe="of long ago")},
    ],
)
def test_runs_of_other_code_or_another_recipe_are_trained_again(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    specs = [case.spec for case in CASES]
    first, second = (
        dataclasses.replace(
            perfect(spec),
            fingerprint=fingerprint(spec),
            code=code_digest(spec),
        )
        for spec in specs
    )
    session(tmp_path, {}, finished=False)
    store = RunStore(latest_session(tmp_path / "results"))
    for run in (first, dataclasses.replace(second, **changes)):
        store.append(run)
    controller = Controller(options(tmp_path, resume=True), "another", tmp_path)
    assert controller.prepare(selected(CASES, []), workers=1) == [
        "1 of the stored runs will be trained again: the code, a network, a recipe or the data "
        "have changed since"
    ]
    assert [run.spec for run in RunStore(store.folder).results().values()] == specs[:1]
    controller.finish(finished=False)


def test_a_session_without_a_run_replaces_no_baseline(tmp_path: Path) -> None:
    session(tmp_path, PASSED, save_baseline="good")
    kept = (tmp_path / "reference" / "good.json").read_text(encoding="utf-8")
    controller = Controller(options(tmp_path, save_baseline="good"), f"{NAME}2", tmp_path)
    controller.prepare(selected(CASES, []), workers=1)
    for case in controller.cases:
        controller.record_outcome(case.id, "skipped")
    outcome = controller.finish(finished=True)
    assert outcome.notes == ("the session is no baseline, as it has no runs: good was not written",)
    assert (tmp_path / "reference" / "good.json").read_text(encoding="utf-8") == kept
