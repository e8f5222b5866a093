"""Baselines: every run kept, read back as it was, and refused when it is not one."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.spread import Spread
from normbench.cases.case import Case
from normbench.commands.main import main
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineError, find_baseline, merge_baselines
from normbench.storage.session import read_session
from normbench.training.datasets import Dataset, find_dataset, note_dataset

from .stored import GOLDEN, finished, judged, store_session

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=1)


def result(seed: int, accuracy: float | None, spec: RunSpec = SPEC) -> RunResult:
    if accuracy is None:
        return RunResult(spec.with_seed(seed), "diverged", "the loss was no longer finite")
    epoch = Epoch(1, 0.1, 0.2, 0.97, 0.3, accuracy, 2.0, 0.5)
    return RunResult(spec.with_seed(seed), "ok", epochs=(epoch,), fingerprint="abc")


def session(
    folder: Path,
    accuracies: Sequence[float | None] | Mapping[int, float | None] = (0.99, 0.98, 0.97),
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Store a session of ``accuracies`` by seed on a machine that differs by ``environment``."""
    by_seed = accuracies if isinstance(accuracies, Mapping) else dict(enumerate(accuracies))
    runs = [result(seed, accuracy) for seed, accuracy in by_seed.items()]
    return store_session(folder, runs=runs, environment=environment).folder


def test_a_sessions_runs_are_kept_one_by_one(tmp_path: Path) -> None:
    baseline = Baseline.of_session(read_session(session(tmp_path / "session")))
    case = baseline.cases[SPEC]
    assert case.accuracies == [0.99, 0.98, 0.97]
    assert [run.seed for run in case.runs] == [0, 1, 2]
    assert case.fingerprint == "abc"
    assert case.images_per_second == 1348 / 2.0
    assert Spread(baseline).variance(SPEC).value == pytest.approx(1e-4)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    baseline = Baseline.of_session(read_session(session(tmp_path / "session")))
    file = tmp_path / "reference" / "mine.json"
    baseline.write(file)
    assert Baseline.read(file) == baseline
    document = json.loads(file.read_text())
    assert document["schema"] == 3
    assert len(document["cases"][0]["runs"]) == 3
    assert "mean" not in file.read_text()


def test_runs_are_ordered_by_seed_however_they_ended() -> None:
    runs = [result(2, 0.7), result(0, 0.9), result(1, 0.8)]
    baseline = Baseline.of_runs("b", "now", 2, False, {}, runs)
    assert baseline.cases[SPEC].accuracies == [0.9, 0.8, 0.7]


def test_a_run_that_ended_badly_is_kept_without_a_figure() -> None:
    bad = RunResult(SPEC, "diverged", "the loss was no longer finite in epoch 1")
    case = Baseline.of_runs("b", "now", 2, False, {}, [bad]).cases[SPEC]
    assert case.runs[0].test_accuracy is None
    assert not case.complete
    assert case.images_per_second is None


def test_a_name_a_file_and_a_folder_lead_to_a_baseline(tmp_path: Path) -> None:
    folder = session(tmp_path / "session")
    reference = tmp_path / "reference"
    baseline = Baseline.of_session(read_session(folder))
    baseline.write(reference / "mine.json")
    assert find_baseline("mine", reference) == baseline
    assert find_baseline(str(reference / "mine.json"), reference) == baseline
    assert find_baseline(str(folder), reference) == baseline
    # those that the package brings are known everywhere
    assert find_baseline("digits", reference).name == "digits"
    known = r"\(cpu-cifar10-jpeg, cpu-mnist, cpu-mnist-plain, digits, mine\)"
    with pytest.raises(BaselineError, match=rf"there is no baseline 'yours': .* {known}"):
        find_baseline("yours", reference)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 4}', '{"schema": 1, "cases": 3}'])
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match=r"cannot read the baseline .*broken\.json"):
        find_baseline(str(file), tmp_path)


Change = Callable[[dict[str, Any]], object]


def run_with(**fields: Any) -> Change:
    return lambda document: document["cases"][1]["runs"][2].update(fields)


def spec_with(**fields: Any) -> Change:
    return lambda document: document["cases"][1]["spec"].update(fields)


def without(name: str) -> Change:
    """Remove a field of the document, the second case or its first run, whichever has it."""

    def remove(document: dict[str, Any]) -> None:
        case = document["cases"][1]
        del next(part for part in (document, case, case["runs"][0]) if name in part)[name]

    return remove


RUN = r"cases\[1\]\.runs\[2\]"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (run_with(test_accuracy="high"), rf'{RUN}\.test_accuracy: expected a number, came "high"'),
        (
            run_with(test_accuracy=float("nan")),
            rf"{RUN}\.test_accuracy: expected a finite number, came NaN",
        ),
        (
            run_with(test_accuracy=17.0),
            rf"{RUN}: test_accuracy = 17\.0: expected a fraction, from 0 to 1",
        ),
        (run_with(seed=1.5), rf"{RUN}\.seed: expected a whole number, came 1\.5"),
        (run_with(status="asleep"), rf"{RUN}: status = 'asleep': expected one of ok, diverged, .*"),
        (without("test_accuracy"), r"cases\[1\]\.runs\[0\]\.test_accuracy is missing"),
        (without("runs"), r"cases\[1\]\.runs is missing"),
        (without("cases"), "cases is missing"),
        (without("environment"), "environment is missing"),
        (lambda document: document.update(environment=None), "environment: expected an object, .*"),
        (lambda document: document.update(cases={}), "cases: expected a list, came {}"),
        (
            lambda document: document.update(schema=4),
            "its schema is 4, and this version reads 1, 2 and 3; a later version of normbench "
            "wrote it: upgrade normbench",
        ),
        (
            lambda document: document.update(schema="1"),
            "its schema is '1', and this version reads 1, 2 and 3",
        ),
        (without("schema"), "schema is missing"),
        (lambda document: document.update(cases=[]), "cases is empty: expected at least 1 entry"),
        (lambda document: document["cases"][1].update(runs=[]), r"cases\[1\]\.runs is empty: .*"),
        (
            run_with(test_accuracy=None),
            rf"{RUN}: test_accuracy = None: expected a fraction of a run whose status is ok",
        ),
        (run_with(test_loss="0.5"), rf'{RUN}\.test_loss: expected a number, came "0\.5"'),
        (run_with(threads=True), rf"{RUN}\.threads: expected a whole number, came true"),
        (
            lambda document: document.update(workers="2"),
            'workers: expected a whole number, came "2"',
        ),
        (spec_with(epochs=0), r"cases\[1\]\.spec: epochs = 0: expected 1 or larger"),
        (spec_with(epochs=None), r"cases\[1\]\.spec\.epochs: expected a whole number, came null"),
        (
            spec_with(dataset="emnist"),
            r"cases\[1\]\.spec: unknown data set 'emnist': expected one of digits, .*; another "
            "version of normbench may know it",
        ),
        (spec_with(norm=[]), r"cases\[1\]\.spec\.norm: expected a text, came \[\]"),
    ],
)
def test_what_is_wrong_with_a_baseline_is_named_in_one_line(
    tmp_path: Path, change: Change, told: str
) -> None:
    document = json.loads((GOLDEN / "baseline-1.json").read_text())
    change(document)
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(document))
    place = re.escape(f"cannot read the baseline {file}: ")
    with pytest.raises(
        BaselineError, match=f"^{place}{told}; expected a file that --bench-save-baseline wrote$"
    ) as refused:
        Baseline.read(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is not JSON: .*"),
        (b"\x80\x81\xff", "it is not a text in UTF-8"),
        (b"[]", r"expected a JSON object, came \[\]"),
        (b"null", "expected a JSON object, came null"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_what_it_holds(
    tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / "wrong.json"
    file.write_bytes(content)
    with pytest.raises(BaselineError, match=rf"^cannot read the baseline .*wrong\.json: {told}; "):
        Baseline.read(file)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    document = json.loads((GOLDEN / "baseline-1.json").read_text())
    case = document["cases"][1]
    for place in (document, case, case["spec"], case["runs"][2]):
        place["later"] = {"is": 1}
    file = tmp_path / "later.json"
    file.write_text(json.dumps(document))
    assert Baseline.read(file) == Baseline.read(GOLDEN / "baseline-1.json")


def test_a_session_without_runs_is_no_baseline(tmp_path: Path) -> None:
    folder = store_session(tmp_path).folder
    with pytest.raises(BaselineError, match=r"cannot read the session .*: it has no runs"):
        find_baseline(str(folder), tmp_path)


def test_a_session_on_a_data_set_that_is_not_known_is_no_baseline(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, dataset="emnist")
    folder = store_session(tmp_path, runs=[result(0, 0.9, spec)]).folder
    with pytest.raises(
        BaselineError, match=r"^cannot read the session .*: unknown data set 'emnist'"
    ):
        find_baseline(str(folder), tmp_path)


def test_a_folder_that_is_no_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match=r"expected a folder with session\.json"):
        find_baseline(str(tmp_path), tmp_path)


@pytest.mark.parametrize("twice", ["cases", "runs"])
def test_a_run_that_stands_twice_in_a_baseline_is_refused(tmp_path: Path, twice: str) -> None:
    file = tmp_path / "b.json"
    Baseline.of_session(read_session(session(tmp_path / "session"))).write(file)
    document = json.loads(file.read_text(encoding="utf-8"))
    listed = document["cases"] if twice == "cases" else document["cases"][0]["runs"]
    listed.append(listed[0])
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BaselineError, match=r"b\.json: digits .* stands there twice, or a seed"):
        Baseline.read(file)


def test_a_session_that_has_lost_rows_is_not_compared(tmp_path: Path) -> None:
    case = Case("tiny", "smoke", SPEC, 0.5, seeds=2)
    runs = [finished(spec, 0.9) for spec in case.specs]
    stored = store_session(tmp_path, judged([case], runs), runs[:1])
    with pytest.raises(BaselineError, match=r"runs\.jsonl lacks some of the runs .* of tiny-batch"):
        find_baseline(str(stored.folder), tmp_path)


def test_a_file_that_is_too_deep_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(BaselineError, match=r"deep\.json: it is not JSON: maximum recursion"):
        Baseline.read(file)


def test_two_sessions_are_compared_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = session(tmp_path / "good", [0.99, 0.98, 0.985, 0.975])
    bad = session(tmp_path / "bad", [0.91, 0.9, 0.905, 0.9, 0.902])
    assert main(["compare", str(good), str(bad)]) == 1
    told = capsys.readouterr().out
    assert "digits batch-none-b64" in told
    assert "1 regression; at 1.00 of the baseline's speed" in told
    assert main(["compare", str(good), str(good)]) == 0
    assert (
        "1 undecided; at 1.00 of the baseline's speed; 2 more seeds decide"
        in capsys.readouterr().out
    )
    assert main(["compare", str(good), str(bad), "--minimum-effect", "20"]) == 0


def test_comparing_with_nothing_is_an_error_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = session(tmp_path / "good")
    assert main(["compare", str(good), "nowhere", "--results", str(tmp_path)]) == 2
    assert "there is no baseline 'nowhere'" in capsys.readouterr().err


def test_further_seeds_join_a_baseline_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = session(tmp_path / "first", {0: 0.99, 1: 0.98})
    further = session(tmp_path / "further", {1: 0.98, 2: 0.97}, {"processor": "Another CPU"})
    results = ["--results", str(tmp_path / "results")]
    assert main(["baseline", "mine", str(first), *results]) == 0
    assert main(["baseline", "mine", "mine", str(further), *results]) == 0
    assert "mine.json: 1 cases, 3 runs" in capsys.readouterr().out
    baseline = find_baseline("mine", tmp_path / "results" / "reference")
    assert baseline.cases[SPEC].accuracies == [0.99, 0.98, 0.97]
    # no machine is called so, and the speed of none is held against it
    assert baseline.environment["processor"] == "Some CPU + Another CPU"
    assert baseline.environment["cores"] == 2


def test_a_command_replaces_a_baseline_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = session(tmp_path / "first", {0: 0.99}), session(tmp_path / "other", {0: 0.5})
    results = ["--results", str(tmp_path / "results")]
    file = tmp_path / "results" / "reference" / "mine.json"
    assert main(["baseline", "mine", str(first), *results]) == 0
    assert main(["baseline", "mine", str(other), *results]) == 2
    told = capsys.readouterr().err
    assert f"there is a baseline 'mine' already, {file}: choose another name, or give --ov" in told
    assert Baseline.read(file).cases[SPEC].accuracies == [0.99]
    assert main(["baseline", "mine", str(other), "--overwrite", *results]) == 0
    assert Baseline.read(file).cases[SPEC].accuracies == [0.5]
    # its own file is one of the parts
    assert main(["baseline", "mine", str(file), *results]) == 0
    assert main(["baseline", "digits", "digits", str(other), "--overwrite", *results]) == 2
    assert "'digits' is a baseline of the package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracies", "environment", "message"),
    [
        ({1: 0.5}, {}, r"two different ones of seed 1; .* --bench-seeds 5:10"),
        ({2: 0.98}, {"torch": "2.13.0"}, r"different builds of torch \(2\.15\.0, 2\.13\.0\)"),
        ({2: None}, {}, r"runs ended badly of 2026.*: digits batch-none-b64, 1 epoch; run"),
    ],
)
def test_runs_that_do_not_go_together_are_not_joined(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    accuracies: dict[int, float | None],
    environment: dict[str, Any],
    message: str,
) -> None:
    parts = [session(tmp_path / "first"), session(tmp_path / "other", accuracies, environment)]
    results = tmp_path / "results"
    assert main(["baseline", "mine", *map(str, parts), "--results", str(results)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not results.exists()


def test_runs_of_different_recipes_are_not_joined() -> None:
    with pytest.raises(BaselineError, match="different networks or recipes"):
        merge_baselines(
            "mine",
            [
                Baseline.of_runs("b", "now", 2, False, {}, [run])
                for run in (
                    result(0, 0.9),
                    dataclasses.replace(result(1, 0.9), fingerprint="another"),
                )
            ],
        )


def test_runs_on_different_data_of_one_name_are_not_joined() -> None:
    runs = [dataclasses.replace(result(seed, 0.9), data=f"content {seed}") for seed in range(2)]
    parts = [Baseline.of_runs("b", "now", 2, False, {}, [run]) for run in runs]
    with pytest.raises(
        BaselineError,
        match=r"different data of that name \(fingerprints content 0, content 1\); expected the",
    ):
        merge_baselines("mine", parts)


def test_a_baseline_tells_of_its_data_sets_to_those_who_do_not_have_them(tmp_path: Path) -> None:
    name = "nowhere.data:load"
    facts = Dataset(name, 100, 8, test_images=25, classes=("a", "b", "c"))
    note_dataset(name, facts)
    run = dataclasses.replace(result(0, 0.9), data="0123456789abcdef")
    run = dataclasses.replace(run, spec=dataclasses.replace(SPEC, dataset=name))
    file = tmp_path / "mine.json"
    Baseline.of_runs("mine", "now", 2, False, {}, [run]).write(file)
    document = json.loads(file.read_text())
    assert document["datasets"][name]["content"] == "0123456789abcdef"
    # by another name it is not known here yet
    elsewhere = json.dumps(document).replace("nowhere.data", "elsewhere.data")
    file.write_text(elsewhere)
    (case,) = Baseline.read(file).cases.values()
    assert case.contents == {"0123456789abcdef"}
    assert find_dataset("elsewhere.data:load").classes == ("a", "b", "c")
    document["datasets"][name]["test_images"] = 0
    file.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match=r"datasets: 'nowhere.data:load': expected numbers of"):
        Baseline.read(file)
    document["datasets"] = {}
    file.write_text(json.dumps(document).replace("nowhere.data", "unheard_of.data"))
    with pytest.raises(BaselineError, match=r"unknown data set 'unheard_of.data:load': expected"):
        Baseline.read(file)


def planted(folder: Path, fault: str = "no-decay") -> Path:
    """Store a session that had the fault planted."""
    runs = [result(seed, 0.5) for seed in range(3)]
    return store_session(folder, runs=runs, planted=fault).folder


def test_runs_of_broken_code_are_compared_and_are_no_baseline(tmp_path: Path) -> None:
    folder = planted(tmp_path)
    told = "is no baseline: the fault 'no-decay' was planted .*: run it again without that option"
    with pytest.raises(BaselineError, match=told):
        find_baseline(str(folder), tmp_path)
    broken = find_baseline(str(folder), tmp_path, confirming=True)
    assert broken.planted == "no-decay"
    assert broken.cases[SPEC].accuracies == [0.5] * 3
    with pytest.raises(BaselineError, match=told):
        broken.write(tmp_path / "mine.json")
    assert not (tmp_path / "mine.json").exists()
    sound = Baseline.of_session(read_session(session(tmp_path / "sound")))
    assert sound.planted == ""
    with pytest.raises(BaselineError, match=told):
        merge_baselines("both", [sound, broken])


def test_runs_of_different_faults_are_not_joined() -> None:
    sound = result(0, 0.9)
    runs = [sound, dataclasses.replace(result(1, 0.9), planted="no-decay")]
    with pytest.raises(BaselineError, match=r"different faults planted \(none, no-decay\)"):
        Baseline.of_runs("both", "2026-01-01", 2, False, {}, runs)
