"""The run store: whole lines only, nothing lost, and what is going on in every worker."""

import dataclasses
import errno
import json
import multiprocessing
import os
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normbench.results import Epoch, RunFailed, RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage import runs as stored_runs
from normbench.storage.runs import RunNotStored, RunStore

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


def test_a_row_names_the_fault_that_was_planted_and_an_older_one_none(tmp_path: Path) -> None:
    broken = dataclasses.replace(finished(), planted="no-decay")
    RunStore(tmp_path).append(broken)
    assert RunStore(tmp_path).find(SPEC) == broken
    row = json.loads((tmp_path / "runs.jsonl").read_text())
    assert row["planted"] == "no-decay"
    del row["planted"]
    assert RunResult.from_row(row) == finished()
    with pytest.raises(ValueError, match="planted = 1: expected a text"):
        RunResult.from_row({**row, "planted": 1})


def test_a_row_has_the_documented_fields(tmp_path: Path) -> None:
    RunStore(tmp_path).append(finished(accuracies=(0.9, 0.7)))
    row = json.loads((tmp_path / "runs.jsonl").read_text())
    assert row["schema"] == 2
    assert row["spec"]["regularizer"] == "none"
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


def counted_parses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the seeds of the rows that are parsed from now on."""
    parsed: list[int] = []
    read = RunResult.from_row

    def from_row(row: Any) -> RunResult:
        parsed.append(row["spec"]["seed"])
        return read(row)

    monkeypatch.setattr(RunResult, "from_row", from_row)
    return parsed


def test_a_row_is_parsed_when_it_is_asked_for_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(50):
        RunStore(tmp_path).append(finished(SPEC.with_seed(seed)))
    parsed = counted_parses(monkeypatch)
    store = RunStore(tmp_path)
    for _ in range(2):
        assert store.find(SPEC.with_seed(17)) == finished(SPEC.with_seed(17))
        assert store.find(SPEC.with_seed(50)) is None
    assert parsed == [17]
    store.append(finished(SPEC.with_seed(50)))
    assert parsed == [17]
    assert len(store.results()) == 51
    assert sorted(parsed) == list(range(51))


def test_rows_of_an_older_version_which_have_no_key_are_found(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.append(finished())
    older, file = finished(SPEC.with_seed(1)).to_row(), tmp_path / "runs.jsonl"
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{json.dumps(older)}\n")
    assert "key" not in older
    for reader in (store, RunStore(tmp_path)):
        assert reader.find(SPEC) == finished()
        assert reader.find(SPEC.with_seed(1)) == finished(SPEC.with_seed(1))
        assert list(reader.results().values()) == [finished(), finished(SPEC.with_seed(1))]


def test_of_several_runs_of_a_spec_the_last_counts(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    other = finished(SPEC.with_seed(1))
    for run in (RunResult(SPEC, "error", "RuntimeError: once"), other, finished()):
        store.append(run)
    assert store.find(SPEC) == finished()
    # in the order in which they ended
    assert list(store.results().values()) == [other, finished()]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 16, 100])
def test_an_incomplete_line_of_any_length_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(stored_runs, "BLOCK_BYTES", 8)
    store = RunStore(tmp_path)
    for whole in (b"", b"a whole line\n", b"two\n\n"):
        store.file.write_bytes(whole + b"x" * length)
        store.append(finished())
        row = json.dumps({"key": SPEC.key, **finished().to_row()}).encode() + b"\n"
        assert store.file.read_bytes() == whole + row


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_row_that_cannot_be_stored_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    store.append(finished())
    told = re.escape(
        f"cannot store the run of digits batch-none-b64, seed 1 in {tmp_path}: No space left on "
        "device; free some space there, or let it be written to, and go on with --bench-resume"
    )
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(RunNotStored, match=f"^{told}$"):
            store.append(finished(SPEC.with_seed(1)))
    with monkeypatch.context() as full:
        full.setattr(Path, "mkdir", no_space)
        with pytest.raises(RunNotStored, match=f"^{told}$"), store.exclusive(SPEC.with_seed(1)):
            pass
    with monkeypatch.context() as full:
        full.setattr(stored_runs, "write_atomic", no_space)
        with pytest.raises(RunNotStored, match=r"cannot store the runs to go on with in .*: No sp"):
            store.reopen(lambda run: True)
    # what the run itself raises is not the store's
    with pytest.raises(OSError, match="No space left on device"), store.exclusive(SPEC):
        no_space()


def test_that_progress_cannot_be_noted_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path, "gw0")
    monkeypatch.setattr(stored_runs, "write_atomic", no_space)
    with store.exclusive(SPEC):
        with (
            pytest.warns(UserWarning, match=r"cannot note in .*running how far a run is: .*No sp"),
            store.lease(SPEC, "my-case"),
        ):
            pass
        with warnings.catch_warnings(), store.lease(SPEC, "my-case"):
            warnings.simplefilter("error")
            store.note_epoch(EPOCH)
    monkeypatch.undo()
    # and what can be noted again, is
    with store.exclusive(SPEC), store.lease(SPEC, "my-case"):
        store.note_epoch(EPOCH)
        assert [run.epochs for run in store.running()] == [(EPOCH,)]


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


def test_what_cannot_be_removed_is_no_error_of_a_run_or_of_the_sessions_end(
    tmp_path: Path,
) -> None:
    def keep(file: Path) -> None:
        """Let nobody remove it: a folder stands for a file in a folder that is read-only."""
        file.unlink(missing_ok=True)
        file.mkdir()

    store = RunStore(tmp_path, "gw0")
    with (
        store.exclusive(SPEC),
        store.lease(SPEC, "my-case"),
    ):
        keep(tmp_path / "running" / "gw0.json")
    store.append(finished())
    keep(tmp_path / "runs.lock")
    store.close()
    assert store.find(SPEC) == finished()


def _die(folder: Path) -> None:
    store = RunStore(folder, "gw3", planted="no-decay")
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
    assert (crashed.status, crashed.worker, crashed.planted) == ("crashed", "gw3", "no-decay")
    assert "worker gw3 died" in crashed.message
    assert crashed.epochs == (EPOCH,)
    assert store.running() == []
    # its lock died with it
    with store.exclusive(SPEC):
        pass
    assert store.record_crash("gw3") is None
    assert store.record_crash("gw4") is None


def test_a_worker_that_died_before_its_lease_had_a_name_has_crashed(tmp_path: Path) -> None:
    store = RunStore(tmp_path, "gw3")
    with store.exclusive(SPEC), store.lease(SPEC, "my-case"):
        lease = tmp_path / "running" / "gw3.json"
        lease.rename(lease.with_name(".gw3.json.4711"))
        assert RunStore(tmp_path).record_crash("gw3") == "my-case"
    crashed = store.find(SPEC)
    assert crashed is not None
    assert crashed.status == "crashed"
    assert RunStore(tmp_path).record_crash("gw3") is None


def test_a_worker_that_died_when_its_row_was_stored_had_ended_its_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path, "gw3")
    with store.exclusive(SPEC), store.lease(SPEC, "my-case"):
        store.append(finished())
        assert RunStore(tmp_path).record_crash("gw3") == "my-case"
    assert store.find(SPEC) == finished()


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
    assert store.reopen(lambda run: run != old) == 1
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
    store.file.write_text(store.file.read_text().replace('"schema": 2', '"schema": 3'))
    with pytest.raises(ValueError, match=r"schema 3: this version reads 1 and 2; .*: upgrade norm"):
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
        (b"[" * 200_000 + b"\n", "maximum recursion depth exceeded .*"),
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
