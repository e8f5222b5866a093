"""Baselines: every run kept, read back as it was, and refused when it is not one."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from normbench.analysis.spread import Spread
from normbench.commands.main import main
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineError, find_baseline, merge_baselines
from normbench.storage.runs import RunStore

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=1)
SESSION = {
    "session": "20260101-000000-1",
    "started": "2026-01-01T00:00:00+00:00",
    "workers": 2,
    "options": {"seeds": 3},
    "environment": {"processor": "Some CPU", "cores": 2, "gpus": [], "torch": "2.15"},
}


def result(seed: int, accuracy: float | None, spec: RunSpec = SPEC) -> RunResult:
    if accuracy is None:
        return RunResult(spec.with_seed(seed), "diverged", "the loss was no longer finite")
    epoch = Epoch(1, 0.1, 0.2, 0.97, 0.3, accuracy, 2.0, 0.5)
    return RunResult(spec.with_seed(seed), "ok", epochs=(epoch,), fingerprint="abc")


def session(folder: Path, accuracies=(0.99, 0.98, 0.97), environment=None) -> Path:
    """Store a session of ``accuracies`` by seed on a machine that differs by ``environment``."""
    store = RunStore(folder)
    if not isinstance(accuracies, dict):
        accuracies = dict(enumerate(accuracies))
    for seed, accuracy in accuracies.items():
        store.append(result(seed, accuracy))
    document = SESSION | {"environment": SESSION["environment"] | (environment or {})}
    (folder / "session.json").write_text(json.dumps(document))
    return folder


def test_a_sessions_runs_are_kept_one_by_one(tmp_path):
    baseline = Baseline.of_session(session(tmp_path / "session"))
    case = baseline.cases[SPEC]
    assert case.accuracies == [0.99, 0.98, 0.97]
    assert [run.seed for run in case.runs] == [0, 1, 2]
    assert case.fingerprint == "abc"
    assert case.images_per_second == 1348 / 2.0
    assert Spread(baseline).variance(SPEC).value == pytest.approx(1e-4)


def test_what_is_written_is_read_back(tmp_path):
    baseline = Baseline.of_session(session(tmp_path / "session"))
    file = tmp_path / "reference" / "mine.json"
    baseline.write(file)
    assert Baseline.read(file) == baseline
    document = json.loads(file.read_text())
    assert document["schema"] == 1
    assert len(document["cases"][0]["runs"]) == 3
    assert "mean" not in file.read_text()


def test_runs_are_ordered_by_seed_however_they_ended():
    runs = [result(2, 0.7), result(0, 0.9), result(1, 0.8)]
    baseline = Baseline.of_runs("b", "now", 2, False, {}, runs)
    assert baseline.cases[SPEC].accuracies == [0.9, 0.8, 0.7]


def test_a_run_that_ended_badly_is_kept_without_a_figure():
    bad = RunResult(SPEC, "diverged", "the loss was no longer finite in epoch 1")
    case = Baseline.of_runs("b", "now", 2, False, {}, [bad]).cases[SPEC]
    assert case.runs[0].test_accuracy is None
    assert not case.complete
    assert case.images_per_second is None


def test_variances_are_moderated_within_one_data_set_and_recipe():
    other = RunSpec("mnist", "mnist", "batch", epochs=1)
    runs = [result(s, a) for s, a in enumerate((0.99, 0.97))]
    runs += [result(s, a, other) for s, a in enumerate((0.995, 0.995, 0.9956))]
    baseline = Baseline.of_runs("b", "now", 2, False, {}, runs)
    assert Spread(baseline).variance(SPEC).value == pytest.approx(2e-4)
    assert Spread(baseline).variance(other).value == pytest.approx(1.2e-7)
    unseen = RunSpec("digits", "digits", "layer", recipe="digits", epochs=1)
    assert Spread(baseline).variance(unseen).value == pytest.approx(2e-4)
    elsewhere = RunSpec("cifar10", "cifar10", "layer", recipe="cifar10")
    assert not Spread(baseline).variance(elsewhere).known


def test_a_name_a_file_and_a_folder_lead_to_a_baseline(tmp_path):
    folder = session(tmp_path / "session")
    reference = tmp_path / "reference"
    baseline = Baseline.of_session(folder)
    baseline.write(reference / "mine.json")
    assert find_baseline("mine", reference) == baseline
    assert find_baseline(str(reference / "mine.json"), reference) == baseline
    assert find_baseline(str(folder), reference) == baseline
    with pytest.raises(BaselineError, match=r"there is no baseline 'yours': .* \(mine\)"):
        find_baseline("yours", reference)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "cases": 3}'])
def test_a_file_that_is_no_baseline_is_refused(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match=r"cannot read the baseline .*broken\.json"):
        find_baseline(str(file), tmp_path)


def test_a_folder_that_is_no_session_is_refused(tmp_path):
    with pytest.raises(BaselineError, match=r"expected a folder with session\.json"):
        find_baseline(str(tmp_path), tmp_path)


def test_two_sessions_are_compared_from_the_command_line(tmp_path, capsys):
    good = session(tmp_path / "good", [0.99, 0.98, 0.985, 0.975])
    bad = session(tmp_path / "bad", [0.91, 0.9, 0.905, 0.9])
    assert main(["compare", str(good), str(bad)]) == 1
    told = capsys.readouterr().out
    assert "digits batch-none-b64" in told
    assert "1 regression; at 1.00 of the baseline's speed" in told
    assert main(["compare", str(good), str(good)]) == 0
    assert "1 no difference" in capsys.readouterr().out
    assert main(["compare", str(good), str(bad), "--minimum-effect", "20"]) == 0


def test_comparing_with_nothing_is_an_error_of_its_own(tmp_path, capsys):
    good = session(tmp_path / "good")
    assert main(["compare", str(good), "nowhere", "--results", str(tmp_path)]) == 2
    assert "there is no baseline 'nowhere'" in capsys.readouterr().err


def test_further_seeds_join_a_baseline_from_the_command_line(tmp_path, capsys):
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


@pytest.mark.parametrize(
    ("accuracies", "environment", "message"),
    [
        ({1: 0.5}, {}, r"two different ones of seed 1; .* --bench-seeds 5:10"),
        ({2: 0.98}, {"torch": "2.13"}, r"different builds of torch \(2\.15, 2\.13\)"),
        ({2: None}, {}, r"a run of 1 cases ended badly \(2026.*: digits batch-none-b64, 1 epoch\)"),
    ],
)
def test_runs_that_do_not_go_together_are_not_joined(
    tmp_path, capsys, accuracies, environment, message
):
    parts = [session(tmp_path / "first"), session(tmp_path / "other", accuracies, environment)]
    results = tmp_path / "results"
    assert main(["baseline", "mine", *map(str, parts), "--results", str(results)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not results.exists()


def test_runs_of_different_recipes_are_not_joined():
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
