"""The run store: each spec once, whole lines only, nothing lost."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from normbench.results import Epoch, RunFailed, RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore

SPEC = RunSpec("digits", "digits", "batch")


def finished(spec: RunSpec = SPEC, accuracies: tuple[float, ...] = (0.5, 0.9)) -> RunResult:
    epochs = tuple(
        Epoch(n, 0.1, 1.0, 0.6, 0.8, accuracy, 2.0, 0.5)
        for n, accuracy in enumerate(accuracies, start=1)
    )
    return RunResult(spec, "ok", parameters=12, epochs=epochs, confusion=((7, 1), (0, 2)))


def test_a_row_comes_back_as_the_run_that_it_was(tmp_path):
    RunStore(tmp_path).append(finished())
    assert RunStore(tmp_path).find(SPEC) == finished()
    assert RunStore(tmp_path).find(SPEC.with_seed(1)) is None


def test_a_row_has_the_documented_fields(tmp_path):
    RunStore(tmp_path).append(finished(accuracies=(0.9, 0.7)))
    row = json.loads((tmp_path / "runs.jsonl").read_text())
    assert row["schema"] == 1
    assert row["spec"]["norm"] == "batch"
    assert (row["test_accuracy"], row["best_test_accuracy"]) == (0.7, 0.9)
    assert (row["train_seconds"], row["test_seconds"]) == (4.0, 1.0)
    assert row["incorrect"] == 1
    assert row["epochs"][0]["epoch"] == 1


def test_a_spec_is_trained_once(tmp_path):
    trained = []

    def train(spec):
        trained.append(spec)
        return finished(spec)

    store = RunStore(tmp_path)
    assert store.get_or_train(SPEC, train) == store.get_or_train(SPEC, train)
    RunStore(tmp_path, "gw1").get_or_train(SPEC, train)
    assert trained == [SPEC]


def _train_slowly(folder: Path, worker: str) -> None:
    def train(spec: RunSpec) -> RunResult:
        with (folder / "trained").open("a") as file:
            file.write(f"{worker}\n")
        time.sleep(0.3)
        return finished(spec)

    for seed in range(3):
        RunStore(folder, worker).get_or_train(SPEC.with_seed(seed), train)


def test_processes_that_ask_at_once_share_one_training(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_train_slowly, args=(tmp_path, f"gw{n}")) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len((tmp_path / "trained").read_text().splitlines()) == 3
    assert len(RunStore(tmp_path).results()) == 3


def test_a_torn_line_is_not_read_and_cut_off_by_the_next_writer(tmp_path):
    store = RunStore(tmp_path)
    store.append(finished())
    with store.file.open("ab") as file:
        file.write(b'{"schema": 1, "spec": {"data')
    assert list(RunStore(tmp_path).results()) == [SPEC.key]
    store.append(finished(SPEC.with_seed(1)))
    rows = [json.loads(line) for line in store.file.read_text().splitlines()]
    assert [row["spec"]["seed"] for row in rows] == [0, 1]
    assert len(store.results()) == 2


def test_an_exception_is_stored_and_passed_on(tmp_path):
    def fail(spec):
        raise RuntimeError("out of memory")

    store = RunStore(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory"):
        store.get_or_train(SPEC, fail)
    known = store.find(SPEC)
    assert (known.status, known.message) == ("error", "RuntimeError: out of memory")
    with pytest.raises(RunFailed, match=r"seed 0 error: RuntimeError: out of memory"):
        _ = known.test_accuracy


def _die(folder: Path) -> None:
    RunStore(folder, "gw3").get_or_train(SPEC, lambda spec: os.kill(os.getpid(), 9), "my-case")


def test_what_a_killed_worker_was_training_is_stored_as_crashed(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    store = RunStore(tmp_path)
    assert store.find(SPEC) is None
    assert store.record_crash("gw3") == "my-case"
    assert store.find(SPEC).status == "crashed"
    assert store.record_crash("gw3") is None
    assert store.record_crash("gw4") is None


def test_a_row_of_another_schema_is_refused(tmp_path):
    store = RunStore(tmp_path)
    store.append(finished())
    store.file.write_text(store.file.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match=r"a stored run has schema 2: this version reads 1"):
        RunStore(tmp_path).results()


def test_means_are_taken_over_the_seeds_and_refuse_a_failed_one():
    runs = Runs.of([finished(accuracies=(0.5, 0.9)), finished(accuracies=(0.8, 0.7))])
    assert runs.test_accuracy == pytest.approx(0.8)
    assert runs.best_test_accuracy == pytest.approx(0.85)
    with pytest.raises(RunFailed, match="crashed: died"):
        _ = Runs.of([finished(), RunResult(SPEC, "crashed", "died")]).test_accuracy
