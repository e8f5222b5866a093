"""Rows of earlier sessions: taken where nothing has changed, and held to account by an audit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from normbench.analysis.spread import Spread
from normbench.analysis.verdicts import replay_lines, with_verdicts
from normbench.cases.case import Case
from normbench.check.trace_record import case_trace_spec
from normbench.engine.replay import AuditFailed, Replay, difference
from normbench.engine.runner import Runner
from normbench.results import Epoch, Mistake, Outcome, RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.storage.runs import RunStore
from normbench.storage.session import Session, read_session
from normbench.storage.traces import has_case_traces, read_case_trace
from normbench.training.fingerprints import code_digest, fingerprint

from .test_runner import options

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", batch_size=8)
CASE = Case("tiny", "smoke", SPEC, 0.5)


class Training:
    """Stands for training by the code of today: notes the specs, and comes to one accuracy."""

    def __init__(self, accuracy: float = 0.9) -> None:
        self.specs: list[RunSpec] = []
        self.accuracy = accuracy

    def __call__(self, spec: RunSpec, *_: Any) -> RunResult:
        self.specs.append(spec)
        return RunResult(
            spec,
            "ok",
            epochs=(Epoch(1, 0.1, 1.0, 0.6, 0.8, self.accuracy, 2.0, 0.5),),
            device="cpu",
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            fingerprint=fingerprint(spec),
            code=code_digest(spec),
        )


class Nights:
    """Sessions one after the other in one results folder; each returns runs and training."""

    def __init__(self, root: Path) -> None:
        self.options = dataclasses.replace(options(root), replay="same")
        self.count = 0

    @property
    def folder(self) -> Path:
        """The last session's."""
        return self.options.results / "runs" / f"night-{self.count}"

    def run(
        self,
        *cases: Case,
        accuracy: float = 0.9,
        outcome: str = "passed",
        **changes: Any,
    ) -> tuple[list[Runs], Training]:
        """Run a session of ``cases``, whose tests come out as ``outcome``, and store its end."""
        self.count += 1
        chosen = dataclasses.replace(self.options, **changes)
        session = Session(chosen.results, self.folder.name)
        session.open()
        training = Training(accuracy)
        runner = Runner(chosen, self.folder, cases=cases, train=training)
        try:
            found = [runner.run_case(case) for case in cases]
        finally:
            results = RunStore(self.folder).results()
            now = Baseline.of_runs("now", "2026", 1, False, {}, results.values())
            outcomes = dict.fromkeys((case.id for case in cases), outcome)
            session.cases = with_verdicts(cases, outcomes, results, Spread(now), None)
            session.write("finished")
            session.close()
        return found, training


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def test_where_nothing_has_changed_the_stored_row_is_taken(nights: Nights) -> None:
    (first,), training = nights.run(CASE)
    assert training.specs == [SPEC]
    assert not first.unchanged
    (second,), training = nights.run(CASE)
    assert training.specs == []
    (run,) = second
    assert (run.replayed, run.test_accuracy) == ("night-1", 0.9)
    assert RunStore(nights.folder).find(SPEC) == run
    # the third takes it from the second, and still tells who has trained it
    (third,), training = nights.run(CASE)
    assert training.specs == []
    assert third.results[0].replayed == "night-1"


def test_without_the_option_all_is_trained_and_nothing_is_traced(nights: Nights) -> None:
    nights.run(CASE)
    _, training = nights.run(CASE, replay=None)
    assert training.specs == [SPEC]
    assert not has_case_traces(nights.folder)


def test_a_case_is_taken_whole_or_not_at_all(nights: Nights) -> None:
    nights.run(CASE)
    (runs,), training = nights.run(dataclasses.replace(CASE, seeds=2))
    assert training.specs == [SPEC, SPEC.with_seed(1)]
    assert not any(run.replayed for run in runs)
    _, training = nights.run(dataclasses.replace(CASE, seeds=2))
    assert training.specs == []


def edited(name: str, value: str) -> Callable[[dict[str, Any]], None]:
    def edit(trace: dict[str, Any]) -> None:
        trace["ground"][name] = value

    return edit


def flip_a_bit(trace: dict[str, Any]) -> None:
    logits = trace["digests"]["logits"]
    trace["digests"]["logits"] = ("1" if logits[0] == "0" else "0") + logits[1:]


@pytest.mark.parametrize(
    "edit",
    [
        flip_a_bit,
        *(
            edited(name, "another")
            for name in ("torch", "processor", "threads", "device", "code", "fingerprint")
        ),
    ],
)
def test_on_other_ground_or_with_another_trace_it_is_trained(
    nights: Nights, edit: Callable[[dict[str, Any]], None]
) -> None:
    nights.run(CASE)
    (file,) = (nights.folder / "case-traces").iterdir()
    trace = json.loads(file.read_text())
    edit(trace)
    file.write_text(json.dumps(trace))
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]


def test_another_build_of_torch_with_an_equal_trace_is_taken_where_that_is_asked_for(
    nights: Nights,
) -> None:
    nights.run(CASE)
    (file,) = (nights.folder / "case-traces").iterdir()
    trace = json.loads(file.read_text())
    edited("torch", "1.0")(trace)
    file.write_text(json.dumps(trace))
    change_rows(nights.folder, torch="1.0")
    (runs,), training = nights.run(CASE, replay="trace")
    assert training.specs == []
    assert runs.results[0].torch == "1.0"
    (told,) = replay_lines(read_session(nights.folder))
    taken = "1 row taken from the session night-1, trained by torch 1.0"
    assert told == f"{taken}: the traces are equal to the bit"
    # but on no other machine
    edited("processor", "another")(trace)
    for folder in (nights.options.results / "runs").iterdir():
        (folder / "case-traces" / file.name).write_text(json.dumps(trace))
    _, training = nights.run(CASE, replay="trace")
    assert training.specs == [SPEC]


def test_a_damaged_trace_or_session_is_passed_over(nights: Nights) -> None:
    nights.run(CASE)
    (file,) = (nights.folder / "case-traces").iterdir()
    file.write_text("{")
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]
    (nights.folder / "session.json").write_text("{")
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]


def change_rows(folder: Path, **changes: Any) -> None:
    rows = [
        json.dumps(dataclasses.replace(run, **changes).to_row())
        for run in RunStore(folder).results().values()
    ]
    (folder / "runs.jsonl").write_text("".join(f"{row}\n" for row in rows))


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "old"},
        {"torch": "1.0"},
        {"threads": 64},
        {"fingerprint": "old"},
        {"data": "other images"},
        {"device": "cuda:0"},
    ],
)
def test_a_row_that_the_trace_does_not_speak_for_is_not_taken(
    nights: Nights, changes: dict[str, Any]
) -> None:
    nights.run(CASE)
    change_rows(nights.folder, **changes)
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]


def test_what_failed_is_trained_again(nights: Nights) -> None:
    nights.run(CASE, outcome="failed")
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]
    # also where an older session has it right
    nights.run(CASE, outcome="failed", replay_audit=1e9)
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]


def test_what_misses_its_target_by_now_is_trained_again(nights: Nights) -> None:
    nights.run(CASE)
    _, training = nights.run(dataclasses.replace(CASE, target=0.95))
    assert training.specs == [SPEC]


def test_what_misses_the_target_of_another_case_of_the_same_runs_is_trained_again(
    nights: Nights,
) -> None:
    nights.run(CASE)
    stricter = dataclasses.replace(CASE, grid="stricter", target=0.95)
    (runs, of_the_stricter), training = nights.run(CASE, stricter)
    assert training.specs == [SPEC]
    assert [found.unchanged for found in (runs, of_the_stricter)] == [False, False]


def kill(session: Path) -> None:
    """Leave a session's document as it is before the first verdict."""
    file = session / "session.json"
    document = json.loads(file.read_text())
    document["status"] = "running"
    document["cases"] = [{**case, "verdict": None} for case in document["cases"]]
    file.write_text(json.dumps(document))


def test_rows_of_a_session_that_was_killed_are_taken(nights: Nights) -> None:
    nights.run(CASE)
    kill(nights.folder)
    _, training = nights.run(CASE)
    assert training.specs == []


def test_an_audit_that_failed_is_known_though_its_session_was_killed(nights: Nights) -> None:
    nights.run(CASE)
    with pytest.raises(AuditFailed):
        nights.run(CASE, accuracy=0.8, replay_audit=10)
    kill(nights.folder)
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]


def test_a_run_that_ended_badly_is_known_though_its_session_was_killed(nights: Nights) -> None:
    nights.run(CASE)
    nights.run(CASE)
    change_rows(nights.folder, status="diverged", replayed="")
    kill(nights.folder)
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]


def test_a_run_that_is_half_done_gets_no_trace_when_it_goes_on(nights: Nights) -> None:
    folder = nights.options.results / "runs" / "night-9"
    store = RunStore(folder)
    store.checkpoint(SPEC).parent.mkdir(parents=True)
    store.checkpoint(SPEC).touch()
    Runner(nights.options, folder, cases=[CASE], train=Training()).run_case(CASE)
    assert not has_case_traces(folder)


def baseline(nights: Nights, accuracy: float) -> str:
    """Store a baseline of the case's runs, which all came to one accuracy; return its file."""
    training = Training(accuracy)
    runs = [training(SPEC.with_seed(seed)) for seed in range(10)]
    file = nights.options.results / f"{accuracy}.json"
    Baseline.of_runs("b", "2026-01-01", 1, False, {}, runs).write(file)
    return str(file)


def test_what_looks_worse_than_the_baseline_is_trained_again(nights: Nights) -> None:
    nights.run(CASE)
    (runs,), training = nights.run(CASE, baselines=(baseline(nights, 0.95),))
    assert training.specs[0] == SPEC
    assert runs.outcome is Outcome.REGRESSION


def test_an_unchanged_case_is_no_evidence_that_it_is_no_worse(nights: Nights) -> None:
    file = baseline(nights, 0.9)
    (runs,), _ = nights.run(CASE, baselines=(file,))
    assert runs.outcome is Outcome.NO_REGRESSION
    (runs,), training = nights.run(CASE, baselines=(file,))
    assert (training.specs, runs.outcome) == ([], Outcome.UNCHANGED)
    assert runs.figures()["runs"] == 0
    assert runs.figures()["unchanged_since"] == "night-1"


def test_a_folder_given_as_the_baseline_is_asked_as_well(nights: Nights, tmp_path: Path) -> None:
    nights.run(CASE)
    given = str(nights.folder)
    nights.options = dataclasses.replace(nights.options, results=tmp_path / "elsewhere")
    _, training = nights.run(CASE)
    assert training.specs == [SPEC]
    nights.options = dataclasses.replace(nights.options, results=tmp_path / "third")
    _, training = nights.run(CASE, baselines=(given,))
    assert training.specs == []


def test_an_interrupted_session_goes_on_as_it_began(nights: Nights) -> None:
    two = dataclasses.replace(CASE, seeds=2)
    nights.run(two)
    training = Training()
    folder = nights.options.results / "runs" / "night-9"
    RunStore(folder).append(training(SPEC))
    runner = Runner(nights.options, folder, cases=[two], train=training)
    runs = runner.run_case(two)
    assert [run.replayed for run in runs] == ["", ""]


def test_an_audit_trains_what_could_be_taken_and_finds_it_equal(nights: Nights) -> None:
    nights.run(CASE)
    (runs,), training = nights.run(CASE, replay_audit=2.5)
    assert training.specs == [SPEC]
    (run,) = runs
    assert (run.audits, run.replayed, run.message) == ("night-1", "", "")
    # a run of 2.5 seconds is more than fits
    _, training = nights.run(CASE, replay_audit=2.4)
    assert training.specs == []


def test_an_audit_that_comes_out_otherwise_fails_however_often_it_is_asked(nights: Nights) -> None:
    nights.run(CASE)
    with pytest.raises(AuditFailed, match=r"test_accuracy after epoch 1 is 0\.8, and was 0\.9"):
        nights.run(CASE, accuracy=0.8, replay_audit=10)
    training = Training()
    again = Runner(nights.options, nights.folder, cases=[CASE], train=training)
    with pytest.raises(AuditFailed, match="it differs from the row of the session night-1"):
        again.run_case(CASE)
    assert training.specs == []


def test_an_audit_is_drawn_anew_for_each_session_and_equally_in_each_process(
    nights: Nights,
) -> None:
    cases = [
        dataclasses.replace(CASE, spec=dataclasses.replace(SPEC, batch_size=size))
        for size in range(2, 10)
    ]
    nights.run(*cases)
    drawn = []
    for draw in ("a", "a", "b", "c"):
        replay = Replay.of(nights.options.results, Path("own"), "same")
        drawn.append(replay.audited(cases, 7.6, draw))
    assert drawn[0] == drawn[1]
    # three of 2.5 seconds each
    assert [len(each) for each in drawn] == [3] * 4
    assert len(set(drawn)) > 1


def test_a_trace_is_of_the_cases_own_batches(nights: Nights) -> None:
    nights.run(CASE)
    trace = read_case_trace(nights.folder, case_trace_spec(SPEC))
    assert trace is not None
    # two epochs of five batches, and three images that fill none
    assert (trace.spec.batch_size, trace.spec.train_images) == (8, 43)
    assert len(trace.losses) == 10
    assert len(trace.norms["logits"]) == 11


def test_the_trace_of_a_small_training_set_is_of_all_of_it() -> None:
    small = dataclasses.replace(SPEC, batch_size=1024, train_images=2000)
    assert case_trace_spec(small).train_images == 2000
    # the digits have 1,348
    assert case_trace_spec(dataclasses.replace(SPEC, batch_size=512)).train_images == 1348


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("train_loss", 0.5, "train_loss after epoch 1 is 0.5, and was 1.0"),
        ("train_seconds", 9.0, ""),
    ],
)
def test_figures_of_an_epoch_are_compared_and_seconds_are_not(
    name: str, value: Any, told: str
) -> None:
    before = Training()(SPEC)
    changed = dataclasses.replace(before.epochs[0], **{name: value})
    assert difference(dataclasses.replace(before, epochs=(changed,)), before) == told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": (1, 2)}, "weights differs"),
        ({"mistakes": (Mistake(1, 2, 3, 0.5),)}, "mistakes differs"),
        ({"confusion": ((1,),)}, "confusion differs"),
        ({"epochs": ()}, "it has 0 epochs, and had 1"),
        ({"worker": "gw7", "cpu_seconds": 5.0, "started": "now"}, ""),
    ],
)
def test_all_that_a_row_keeps_of_training_is_compared(changes: dict[str, Any], told: str) -> None:
    before = Training()(SPEC)
    assert difference(dataclasses.replace(before, **changes), before) == told
