"""The run store: whole lines only, nothing lost, and what is going on in every worker."""

import json
import multiprocessing
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normbench.results import Epoch, RunFailed, RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore

SPEC = RunSpec("digits", "digits", "batch", epochs=2)
EPOCH = Epoch(1, 0.1, 1.0, 0.6, 0.8, 0.5, 2.0, 0.5)


def finished(spec: RunSpec = SPEC, accuracies: tuple[float, ...] = (0.5, 0.9)) -> RunResult:
    epochs = tuple(
        Epoch(n, 0.1, 1.0, 0.6, 0.8, accuracy, 2.0, 0.5)
        for n, accuracy in enumerate(accuracies, start=1)
    )
    return RunResult(spec, "ok", parameters=12, epochs=epochs, confusion=((7, 1), (0, 2)))


def test_a_row_comes_back_as_the_run_that_it_was(tmp_path: Path) -> None:
    RunStore(tmp_path).append(finished())
    assert RunStore(tmp_path).find(SPEC) == finished()
    assert RunStore(tmp_path).find(SPEC.with_seed(1)) is None


def test_a_row_has_the_documented_fields(tmp_path: Path) -> None:
    RunStore(tmp_path).append(finished(accuracies=(0.9, 0.7)))
    row = json.loads((tmp_path / "runs.jsonl").read_text())
    assert row["schema"] == 1
    assert row["spec"]["norm"] == "batch"
    assert (row["test_accuracy"], row["best_test_accuracy"]) == (0.7, 0.9)
    assert (row["train_seconds"], row["test_seconds"]) == (4.0, 1.0)
    assert row["incorrect"] == 1
    assert row["epochs"][0]["epoch"] == 1


def test_a_run_that_another_process_stores_is_found(tmp_path: Path) -> None:
    store = RunStore(tmp_path, "gw0")
    assert store.find(SPEC) is None
    RunStore(tmp_path, "gw1").append(finished())
    assert store.find(SPEC) == finished()
    assert list(store.results()) == [SPEC.key]


def _append_in_turns(folder: Path, worker: int) -> None:
    store = RunStore(folder, f"gw{worker}")
    for seed in range(worker, 20, 4):
        store.append(finished(SPEC.with_seed(seed)))


def test_rows_of_processes_that_write_at_once_are_all_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_in_turns, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    seeds = [run.spec.seed for run in RunStore(tmp_path).results().values()]
    assert sorted(seeds) == list(range(20))


def test_a_torn_line_is_not_read_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.append(finished())
    with store.file.open("ab") as file:
        file.write(b'{"schema": 1, "spec": {"data')
    assert list(RunStore(tmp_path).results()) == [SPEC.key]
    store.append(finished(SPEC.with_seed(1)))
    rows = [json.loads(line) for line in store.file.read_text().splitlines()]
    assert [row["spec"]["seed"] for row in rows] == [0, 1]
    assert len(store.results()) == 2


def test_a_spec_is_kept_to_one_process_at_a_time(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with RunStore(tmp_path, "gw0").exclusive(SPEC):
            entered.set()
            leave.wait(60)
            RunStore(tmp_path, "gw0").append(finished())

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(60)
    other = RunStore(tmp_path, "gw1")
    # another spec is free
    with other.exclusive(SPEC.with_seed(1)):
        assert other.find(SPEC) is None
    leave.set()
    with other.exclusive(SPEC):
        assert other.find(SPEC) == finished()
    holder.join(60)


def test_others_see_what_a_worker_is_at_until_it_ends(tmp_path: Path) -> None:
    worker, other = RunStore(tmp_path, "gw0", "cuda:1"), RunStore(tmp_path)
    with worker.exclusive(SPEC), worker.lease(SPEC, "my-case"):
        worker.note_epoch(EPOCH)
        (run,) = other.running()
        assert (run.worker, run.device, run.case, run.spec) == ("gw0", "cuda:1", "my-case", SPEC)
        assert run.epochs == (EPOCH,)
        assert run.share == 0.5
    assert other.running() == []


def test_a_lease_ends_with_an_exception_as_well(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        store.exclusive(SPEC),
        store.lease(SPEC, "my-case"),
    ):
        raise RuntimeError("out of memory")
    assert store.running() == []
    with store.exclusive(SPEC):
        pass


def _die(folder: Path) -> None:
    store = RunStore(folder, "gw3")
    with store.exclusive(SPEC), store.lease(SPEC, "my-case"):
        store.note_epoch(EPOCH)
        os.kill(os.getpid(), 9)


def test_what_a_killed_worker_was_at_is_stored_as_crashed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    store = RunStore(tmp_path)
    assert store.find(SPEC) is None
    assert store.record_crash("gw3") == "my-case"
    crashed = store.find(SPEC)
    assert crashed is not None
    assert (crashed.status, crashed.worker) == ("crashed", "gw3")
    assert "worker gw3 died" in crashed.message
    assert store.running() == []
    # its lock died with it
    with store.exclusive(SPEC):
        pass
    assert store.record_crash("gw3") is None
    assert store.record_crash("gw4") is None


def test_a_session_that_goes_on_forgets_what_another_attempt_may_end_better(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    specs = [SPEC.with_seed(seed) for seed in range(5)]
    old = finished(specs[4], accuracies=(0.1, 0.1))
    for run in (
        finished(specs[0]),
        RunResult(specs[1], "diverged", "the loss was no longer finite in epoch 1"),
        RunResult(specs[2], "crashed", "died"),
        RunResult(specs[3], "error", "RuntimeError: out of memory"),
        old,
    ):
        store.append(run)
    store.reopen(lambda run: run != old)
    assert [run.spec.seed for run in store.results().values()] == [0, 1]
    assert [run.spec.seed for run in RunStore(tmp_path).results().values()] == [0, 1]


def test_the_end_of_a_session_leaves_rows_and_of_an_interrupted_one_checkpoints(
    tmp_path: Path,
) -> None:
    store = RunStore(tmp_path)
    with store.exclusive(SPEC):
        store.append(finished())
    checkpoint = store.checkpoint(SPEC)
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    store.close(finished=False)
    assert {file.name for file in tmp_path.iterdir()} == {"runs.jsonl", "checkpoints"}
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["runs.jsonl"]


def test_a_row_of_another_schema_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.append(finished())
    store.file.write_text(store.file.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match=r"schema 2: this version reads 1; .*: upgrade normbench;"):
        RunStore(tmp_path).results()


def change(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.update({name: value})


def epoch_with(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda row: row["epochs"][0].update(fields)


def remove(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.pop(name)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (remove("spec"), "spec is missing"),
        (change("spec", None), "spec is None: .*"),
        (change("spec", {"dataset": "digits"}), "spec is .*missing .* 'network' and 'norm'"),
        (remove("status"), "status is None: expected one of ok, diverged, crashed, stalled, error"),
        (change("status", "asleep"), "status is 'asleep': expected one of ok, diverged, .*"),
        (remove("epochs"), "epochs is missing"),
        (change("epochs", 3), "epochs is 3: .*"),
        (
            change("epochs", []),
            r"epochs is \[\]: expected at least one of a run whose status is ok",
        ),
        (
            epoch_with(test_accuracy="high"),
            "epochs is .*: test_accuracy = 'high': expected a finite .*",
        ),
        (
            epoch_with(train_accuracy=17),
            "epochs is .*: train_accuracy = 17: expected a fraction, .*",
        ),
        (epoch_with(test_loss=float("nan")), "epochs is .*: test_loss = nan: expected a finite .*"),
        (epoch_with(epoch="1"), "epochs is .*: epoch = '1': expected a whole number"),
        (change("parameters", 1.5), "parameters = 1.5: expected a whole number"),
        (change("cpu_seconds", "0.5"), "cpu_seconds = '0.5': expected a finite number"),
        (change("device", None), "device = None: expected a text"),
        (change("confusion", ["ab"]), r"confusion is \['ab'\]: 'a': expected a whole number"),
        (change("confusion", [[1, 2], [3]]), "confusion is .*: expected as many columns as rows"),
        (change("wrong", [True]), r"wrong is \[True\]: True: expected a whole number"),
        (remove("schema"), "schema is missing"),
        (change("epochs", [{"epoch": 1}]), r"epochs is \[{'epoch': 1}\]: .*'learning_rate'.*"),
        (change("wrong", None), "wrong is None: .*"),
        (change("weights", 3), "weights is 3: .*"),
        (change("activations", [{}]), r"activations is \[{}\]: 'layer'"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line_and_what_is_wrong(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], told: str
) -> None:
    rows = [finished(SPEC.with_seed(seed)).to_row() for seed in range(3)]
    edit(rows[1])
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    place = re.escape(f"{file}, line 2: ")
    with pytest.raises(ValueError, match=f"^{place}{told}; expected a run as normbench .*$") as e:
        RunStore(tmp_path).results()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"schema": 1, "spec": {"data\n', "Invalid control character at: .*"),
        (b"\n", "Expecting value: .*"),
        (b"\x80\x81\n", ".* can't decode byte 0x80 .*"),
        (b"[1]\n", r"it is no JSON object, but \[1\]"),
    ],
)
def test_a_broken_line_in_the_middle_is_named_by_its_number(
    tmp_path: Path, line: bytes, told: str
) -> None:
    whole = [json.dumps(finished(SPEC.with_seed(s)).to_row()).encode() + b"\n" for s in range(2)]
    (tmp_path / "runs.jsonl").write_bytes(whole[0] + line + whole[1])
    with pytest.raises(ValueError, match=rf"runs\.jsonl, line 2: {told}; expected a run as"):
        RunStore(tmp_path).results()


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    row = finished().to_row()
    row["spec"]["later"] = row["epochs"][0]["later"] = row["later"] = {"is": 1}
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(row)}\n")
    assert RunStore(tmp_path).find(SPEC) == finished()


def test_means_are_taken_over_the_seeds_and_refuse_a_failed_one() -> None:
    runs = Runs.of([finished(accuracies=(0.5, 0.9)), finished(accuracies=(0.8, 0.7))])
    assert runs.test_accuracy == pytest.approx(0.8)
    assert runs.best_test_accuracy == pytest.approx(0.85)
    with pytest.raises(RunFailed, match="crashed: died"):
        _ = Runs.of([finished(), RunResult(SPEC, "crashed", "died")]).test_accuracy
