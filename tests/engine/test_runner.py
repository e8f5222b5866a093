"""The runner: each spec trained once in a session, whoever asks, and no end of a run lost."""

import dataclasses
import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from normbench.cases.case import Case, GridOptions
from normbench.engine.options import Options
from normbench.engine.runner import Runner, leaves_unfit
from normbench.engine.watchdog import RunStalled
from normbench.results import Epoch, Outcome, RunFailed, RunResult, Status
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.storage.runs import RunNotStored, RunStore
from normbench.training.data import ImageData
from normbench.training.datasets import DatasetUnavailable

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")
CASE = Case("tiny", "smoke", SPEC, 0.5)


def options(folder: Path, device: str = "cpu") -> Options:
    return Options(
        grid=GridOptions(data=folder / "data"),
        device=device,
        cases=(),
        results=folder / "results",
        reference=folder / "reference",
    )


def finished(spec: RunSpec) -> RunResult:
    return RunResult(spec, "ok", epochs=(Epoch(1, 0.1, 1.0, 0.6, 0.8, 0.9, 2.0, 0.5),))


class Training:
    """Stands for the training of a run: notes what it was asked for, and ends well."""

    def __init__(self) -> None:
        self.specs: list[RunSpec] = []

    def __call__(self, spec: RunSpec, *_: Any) -> RunResult:
        self.specs.append(spec)
        return finished(spec)


def test_a_spec_is_trained_once(tmp_path: Path) -> None:
    training = Training()
    runner = Runner(options(tmp_path), tmp_path, train=training)
    assert runner.run(SPEC) == runner.run(SPEC)
    other = Runner(options(tmp_path), tmp_path, worker="gw1", train=training)
    assert other.run(SPEC) == runner.run(SPEC)
    assert training.specs == [SPEC]
    assert other.run(SPEC.with_seed(1)).spec.seed == 1
    assert training.specs == [SPEC, SPEC.with_seed(1)]


def test_a_row_is_signed_by_the_worker_that_trained_it(tmp_path: Path) -> None:
    Runner(options(tmp_path), tmp_path, worker="gw1", train=Training()).run(SPEC)
    stored = RunStore(tmp_path).find(SPEC)
    assert stored is not None
    assert stored.worker == "gw1"
    assert Runner(options(tmp_path), tmp_path, train=Training()).run(SPEC) == stored


def test_the_training_is_given_the_data_the_device_and_a_place_for_its_checkpoint(
    tmp_path: Path,
) -> None:
    def train(
        spec: RunSpec,
        data: ImageData,
        device: torch.device,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Path | None,
    ) -> RunResult:
        assert data.name == "digits"
        # 1,797 images, of which every fourth is one to test on
        assert (len(data.train_labels), len(data.test_labels)) == (1348, 449)
        assert device == torch.device("cpu")
        assert checkpoint is not None
        assert checkpoint.is_relative_to(tmp_path)
        on_epoch(finished(spec).epochs[0])
        (running,) = RunStore(tmp_path).running()
        assert (running.worker, running.case, running.device) == ("gw2", CASE.id, "cpu")
        assert (running.spec, len(running.epochs)) == (spec, 1)
        return finished(spec)

    Runner(options(tmp_path), tmp_path, worker="gw2", train=train).run(SPEC, CASE)
    assert RunStore(tmp_path).running() == []


def test_a_norm_that_ends_the_program_is_an_error_of_its_run(tmp_path: Path) -> None:
    def leave(*_: Any) -> RunResult:
        raise SystemExit("enough")

    with pytest.raises(SystemExit, match="enough"):
        Runner(options(tmp_path), tmp_path, train=leave).run(SPEC)
    known = RunStore(tmp_path).find(SPEC)
    assert known is not None
    assert (known.status, known.message) == ("error", "SystemExit: enough")


def test_the_epochs_before_an_exception_are_kept(tmp_path: Path) -> None:
    epoch = finished(SPEC).epochs[0]

    def fail(spec: RunSpec, _: Any, __: Any, on_epoch: Callable[[Epoch], None], *___: Any) -> Any:
        on_epoch(epoch)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Runner(options(tmp_path), tmp_path, train=fail).run(SPEC)
    known = RunStore(tmp_path).find(SPEC)
    assert known is not None
    assert (known.status, known.epochs) == ("error", (epoch,))


def test_a_case_is_trained_further_while_it_looks_worse(tmp_path: Path) -> None:
    runs = [dataclasses.replace(finished(SPEC.with_seed(n)), fingerprint="f") for n in range(10)]
    Baseline.of_runs("b", "2026-01-01", 1, False, {}, runs).write(tmp_path / "b.json")

    def trained(now: Callable[[int], float], confirm: int = 9) -> tuple[list[int], Outcome | None]:
        def train(spec: RunSpec, *_: Any) -> RunResult:
            epoch = dataclasses.replace(finished(spec).epochs[0], test_accuracy=now(spec.seed))
            return RunResult(spec, "ok", epochs=(epoch,), fingerprint="f")

        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        compared = dataclasses.replace(
            options(tmp_path), baselines=(str(tmp_path / "b.json"),), confirm=confirm
        )
        found = Runner(compared, folder, cases=[CASE], train=train).run_case(CASE)
        return [run.spec.seed for run in found], found.outcome

    assert trained(lambda _: 0.9) == ([0], Outcome.NO_REGRESSION)
    assert trained(lambda _: 0.8) == ([0, 1, 2, 3, 4], Outcome.REGRESSION)
    assert trained(lambda seed: 0.9 if seed else 0.88) == ([0, 1, 2], Outcome.NO_REGRESSION)
    assert trained(lambda seed: 0.9 if seed else 0.1) == ([0, 1, 2], Outcome.UNDECIDED)
    assert trained(lambda _: 0.8, confirm=0) == ([0], Outcome.SUSPECTED)
    assert trained(lambda _: 0.8, confirm=1) == ([0, 1], Outcome.SUSPECTED)


def test_a_case_of_a_larger_selection_needs_more_evidence(tmp_path: Path) -> None:
    runs = [dataclasses.replace(finished(SPEC.with_seed(n)), fingerprint="f") for n in range(3)]
    Baseline.of_runs("b", "2026-01-01", 1, False, {}, runs).write(tmp_path / "b.json")

    def train(spec: RunSpec, *_: Any) -> RunResult:
        # rounding to one of 449 images is all the spread: 0.00064, of which this is 23
        epoch = dataclasses.replace(finished(spec).epochs[0], test_accuracy=0.885)
        return RunResult(spec, "ok", epochs=(epoch,), fingerprint="f")

    def outcome(size: int) -> Outcome | None:
        compared = dataclasses.replace(
            options(tmp_path), baselines=(str(tmp_path / "b.json"),), selection_size=size
        )
        runner = Runner(compared, tmp_path / str(size), cases=[CASE], train=train)
        return runner.run_case(CASE).outcome

    assert outcome(0) is Outcome.REGRESSION
    assert outcome(100_000) is Outcome.SUSPECTED


def test_auto_trains_the_least_that_a_file_asks_for(tmp_path: Path) -> None:
    training = Training()
    grid = GridOptions(data=tmp_path / "data", sequential=True, seeds=8)
    case = Case("tiny", "smoke", SPEC, 0.5, seeds=8, least=3)
    runner = Runner(dataclasses.replace(options(tmp_path), grid=grid), tmp_path, train=training)
    assert len(runner.run_case(case)) == 3


def test_an_exception_is_stored_and_passed_on(tmp_path: Path) -> None:
    asked = []

    def fail(spec: RunSpec, *_: Any) -> RunResult:
        asked.append(spec)
        raise RuntimeError("out of memory")

    runner = Runner(options(tmp_path), tmp_path, worker="gw1", train=fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.run(SPEC)
    known = RunStore(tmp_path).find(SPEC)
    assert known is not None
    assert (known.status, known.message) == ("error", "RuntimeError: out of memory")
    assert known.worker == "gw1"
    with pytest.raises(RunFailed, match=r"seed 0 error: RuntimeError: out of memory"):
        _ = known.test_accuracy
    # who asks later gets the stored run, and nobody is said to be at it
    assert runner.run(SPEC) == known
    assert asked == [SPEC]
    assert RunStore(tmp_path).running() == []


def test_what_raised_is_tried_again_where_that_is_asked_for(tmp_path: Path) -> None:
    asked: list[RunSpec] = []

    def fail_once(spec: RunSpec, *_: Any) -> RunResult:
        asked.append(spec)
        if len(asked) == 1:
            raise RuntimeError("out of memory")
        return finished(spec)

    runner = Runner(options(tmp_path), tmp_path, train=fail_once)
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.run(SPEC)
    assert runner.run(SPEC).status == "error"
    runner.tries_again = True
    assert runner.run(SPEC) == dataclasses.replace(finished(SPEC), worker="main")
    # and no more than that: a run that came to an end stays
    assert runner.run(SPEC).status == "ok"
    assert asked == [SPEC, SPEC]
    assert [run.status for run in RunStore(tmp_path).results().values()] == ["ok"]


@pytest.mark.parametrize(
    ("status", "trained"),
    [("ok", 0), ("diverged", 0), ("crashed", 1), ("stalled", 1), ("error", 1)],
)
def test_what_came_to_an_end_is_never_trained_again(
    tmp_path: Path, status: Status, trained: int
) -> None:
    training = Training()
    stored = dataclasses.replace(finished(SPEC), status=status)
    RunStore(tmp_path).append(stored)
    runner = Runner(options(tmp_path), tmp_path, train=training)
    assert runner.run(SPEC) == stored
    runner.tries_again = True
    runner.run(SPEC)
    assert len(training.specs) == trained


def test_a_run_that_hangs_is_stored_as_stalled_and_others_go_on(tmp_path: Path) -> None:
    def hang(*_: Any) -> RunResult:
        time.sleep(60)
        raise AssertionError

    given = dataclasses.replace(options(tmp_path), stall_timeout=0.6)
    with pytest.raises(RunStalled, match=r"no progress for 1 s, after 0 epochs"):
        Runner(given, tmp_path, train=hang).run(SPEC)
    (run,) = RunStore(tmp_path).results().values()
    assert run.status == "stalled"
    assert "where it was is in" in run.message
    assert Runner(given, tmp_path, train=Training()).run(SPEC.with_seed(1)).status == "ok"


def test_a_run_that_another_worker_tried_again_meanwhile_is_taken(tmp_path: Path) -> None:
    RunStore(tmp_path).append(RunResult(SPEC, "error", "RuntimeError: once"))
    training = Training()
    runner = Runner(options(tmp_path), tmp_path, train=training)
    runner.tries_again = True
    other = RunStore(tmp_path, "gw1")
    asked = threading.Thread(target=runner.run, args=(SPEC,))
    with other.exclusive(SPEC):
        asked.start()
        time.sleep(0.3)  # until it waits
        other.append(finished(SPEC))
    asked.join(60)
    assert training.specs == []


def test_a_checkpoint_goes_once_the_row_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(spec: RunSpec, *given: Any) -> RunResult:
        checkpoint: Path = given[-1]
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_bytes(b"weights")
        return finished(spec)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runner = Runner(options(tmp_path), tmp_path, train=train)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(RunNotStored, match=r"digits batch-none-b64, seed 0 .*: No space left"):
            runner.run(SPEC)
    # what it has come to is not lost, and it is no error of the run
    assert runner.store.checkpoint(SPEC).read_bytes() == b"weights"
    assert RunStore(tmp_path).running() == []
    runner.run(SPEC.with_seed(1))
    assert not runner.store.checkpoint(SPEC.with_seed(1)).exists()


def test_a_case_is_run_once_for_each_of_its_seeds(tmp_path: Path) -> None:
    training = Training()
    case = Case("tiny", "smoke", SPEC.with_seed(5), 0.5, seeds=3)
    runs = Runner(options(tmp_path), tmp_path, train=training).run_case(case)
    assert [run.spec.seed for run in runs] == [5, 6, 7]
    assert training.specs == [SPEC.with_seed(seed) for seed in (5, 6, 7)]
    assert runs.test_accuracy == pytest.approx(0.9)


def test_a_data_set_that_is_not_there_leaves_no_row(tmp_path: Path) -> None:
    training = Training()
    runner = Runner(options(tmp_path), tmp_path, train=training)
    with pytest.raises(DatasetUnavailable, match="MNIST is not in"):
        runner.run(RunSpec("mnist", "mnist", "batch"))
    assert training.specs == []
    assert RunStore(tmp_path).results() == {}


@pytest.mark.parametrize(
    ("device", "devices"),
    [
        ("auto", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("cuda:1", ["cuda:1"] * 4),
        ("cpu", ["cpu"] * 4),
    ],
)
def test_workers_are_dealt_the_devices_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, devices: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    runners = [Runner(options(tmp_path, device), tmp_path, slot=slot) for slot in range(4)]
    assert [str(runner.device) for runner in runners] == devices
    assert [runner.store.device for runner in runners] == devices


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CUDA devices here, cuda:999 not among them"):
        Runner(options(tmp_path, "cuda:999"), tmp_path)


@pytest.fixture
def threads() -> Iterator[int]:
    """Return this process's number of threads for torch, and set it again afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_a_worker_takes_its_share_of_threads_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Runner(options(tmp_path), tmp_path, threads=threads + 2)
    assert torch.get_num_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    Runner(options(tmp_path), tmp_path)
    assert torch.get_num_threads() == threads
    Runner(options(tmp_path), tmp_path, threads=threads + 2)
    assert torch.get_num_threads() == threads + 2


def train_slowly(folder: Path, worker: str) -> None:
    """Ask for three runs that take a while; a line in ``trained`` for each that is trained."""

    def train(spec: RunSpec, *_: Any) -> RunResult:
        with (folder / "trained").open("a") as file:
            file.write(f"{worker}\n")
        time.sleep(0.3)
        return finished(spec)

    runner = Runner(options(folder), folder, worker=worker, train=train)
    for seed in range(3):
        assert runner.run(SPEC.with_seed(seed)).status == "ok"


def die(folder: Path) -> None:
    """Ask for a run that kills its process, as an operating system out of memory does."""

    def train(*_: Any) -> RunResult:
        os.kill(os.getpid(), 9)
        raise AssertionError("unreachable")

    Runner(options(folder), folder, worker="gw3", train=train).run(SPEC, CASE)


# Its processes start with what this module imports, and without this process's threads.
APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload([__name__])


def test_processes_that_ask_at_once_share_one_training(tmp_path: Path) -> None:
    processes = [APART.Process(target=train_slowly, args=(tmp_path, f"gw{n}")) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len((tmp_path / "trained").read_text().splitlines()) == 3
    assert len(RunStore(tmp_path).results()) == 3


def test_only_errors_that_stay_with_a_process_make_it_unfit() -> None:
    staying = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")]
    staying += [torch.AcceleratorError("CUDA error: an illegal memory access")]
    assert all(map(leaves_unfit, staying))
    passing = [RuntimeError("no gradient today"), ValueError("DefaultCPUAllocator"), SystemExit(1)]
    assert not any(map(leaves_unfit, passing))


def test_what_a_killed_worker_was_training_is_stored_as_crashed(tmp_path: Path) -> None:
    process = APART.Process(target=die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    store = RunStore(tmp_path)
    assert store.find(SPEC) is None
    assert store.record_crash("gw3") == CASE.id
    crashed = store.find(SPEC)
    assert crashed is not None
    assert (crashed.status, crashed.worker) == ("crashed", "gw3")
    assert store.record_crash("gw3") is None
    assert store.record_crash("gw4") is None
    # its lock went with it: another worker gets the stored run, and does not wait
    assert Runner(options(tmp_path), tmp_path, train=Training()).run(SPEC) == crashed
