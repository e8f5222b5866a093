"""``normbench compare --json``: what a program reads of a comparison."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from normbench.commands.main import main
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline

from ..storage.stored import TRACE, on_ground


def write_baseline(folder: Path, name: str, accuracies: Mapping[str, Sequence[float]]) -> str:
    """Write a baseline of runs of these accuracies by norm, a seed each; return its path."""
    runs = [
        RunResult(
            RunSpec("digits", "digits", norm, batch_size=32, recipe="digits", seed=seed),
            "ok",
            epochs=(Epoch(1, 0.1, 0.2, 0.97, 0.3, accuracy, 2.0, 0.5),),
            fingerprint="of the recipe",
        )
        for norm, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    file = folder / f"{name}.json"
    Baseline.of_runs(name, "2026-01-01T00:00:00+00:00", 2, False, {"cores": 2}, runs).write(file)
    return str(file)


SAME = (0.970, 0.971, 0.972, 0.971, 0.971)
LESS = (0.870, 0.871, 0.872, 0.871, 0.871)


@pytest.fixture
def before(tmp_path: Path) -> str:
    return write_baseline(tmp_path, "before", {"batch": SAME, "layer": SAME, "none": SAME})


@pytest.fixture
def now(tmp_path: Path) -> str:
    return write_baseline(tmp_path, "now", {"batch": SAME, "layer": LESS, "instance": SAME})


def test_the_object_has_counts_and_an_entry_for_each_case(
    before: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", before, now, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["baseline"], document["now"]) == ("before", "now")
    assert document["counts"] == {
        "no regression": 1,
        "regression": 1,
        "not in the baseline": 1,
        "only in the baseline": 1,
    }
    # the machines are equal, and so are the rates
    assert document["speed"] == 1.0
    cases = {case["spec"]["norm"]: case for case in document["cases"]}
    assert {norm: case["outcome"] for norm, case in cases.items()} == {
        "batch": "no regression",
        "layer": "regression",
        "instance": "not in the baseline",
        "none": "only in the baseline",
    }
    assert len(document["cases"]) == 4
    layer = cases["layer"]
    assert layer["case"] == "digits layer-none-b32, 1 epoch"
    assert (layer["before"], layer["now"]) == (list(SAME), list(LESS))
    assert layer["difference"] == pytest.approx(-0.1)
    # three samples of the variance 2e-6 / 4, with 12 degrees of freedom in all; the difference is
    # one of two means of five
    assert layer["variance"] == pytest.approx({"value": 5e-7, "degrees_of_freedom": 12})
    assert layer["margin_of_error"] == pytest.approx(2.178813 * (5e-7 * 2 / 5) ** 0.5)
    assert layer["minimum_effect"] == 0.01
    assert document["to_decide"] is None
    assert layer["adjusted_p"] < 1e-6
    assert cases["batch"]["difference"] == 0.0
    for norm in ("instance", "none"):
        assert cases[norm]["difference"] is None
        assert cases[norm]["margin_of_error"] is None


def test_a_comparison_without_a_regression_ends_well(
    before: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", before, before, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"no regression": 3}
    assert main(["compare", before, before]) == 0
    assert "3 no regression" in capsys.readouterr().out


def test_the_minimum_effect_is_the_users(
    before: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", before, now, "--json", "--minimum-effect", "11"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["no regression"] == 2


def test_few_runs_are_suspected_which_is_a_failure_to_the_strict_alone(
    tmp_path: Path, before: str, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_baseline(tmp_path, "few", {"batch": SAME, "layer": LESS[:2], "none": SAME})
    assert main(["compare", before, few]) == 0
    assert "1 suspected, 2 no regression" in capsys.readouterr().out
    assert main(["compare", before, few, "--strict"]) == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "normbench: 1 case suspected: digits layer-none-b32, 1 epoch"
    assert told[1] == ("normbench: 1 of 3 compared cases undecided or suspected, more than 25 %")


def test_what_is_not_in_the_baseline_is_a_gap_to_the_strict(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_baseline(tmp_path, "other", {"batch": SAME, "instance": SAME})
    assert main(["compare", before, other]) == 0
    assert main(["compare", before, other, "--strict"]) == 3
    assert capsys.readouterr().err == (
        "normbench: 1 case not in the baseline: digits instance-none-b32, 1 epoch\n"
    )


def test_a_comparison_of_nothing_is_an_error(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_baseline(tmp_path, "other", {"instance": SAME})
    assert main(["compare", before, other]) == 2
    assert capsys.readouterr().err == (
        "normbench: nothing was compared with the baseline before (3 only in the baseline, 1 "
        "not in the baseline): expected a case that both have, with two runs or more in the "
        "baseline\n"
    )


def test_undecided_cases_say_what_it_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = (0.95, 0.97, 0.96, 0.94, 0.98)
    wide = write_baseline(tmp_path, "wide", {"batch": noisy * 4})
    one = write_baseline(tmp_path, "one", {"batch": (0.96,)})
    assert main(["compare", wide, one, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"undecided": 1}
    # the variance is 2e-4 * 20 / 19, and 1.729 deviations * sqrt(1 / n + 1 / 20) are less than the
    # effect of 0.01 from n = 10 on
    assert document["to_decide"] == {"seeds": 9, "cases": 1}
    assert main(["compare", wide, one]) == 0
    assert "9 more seeds decide 1 of the 1 undecided" in capsys.readouterr().out


def test_traces_of_the_same_ground_have_to_be_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(write_baseline(tmp_path, "one", {"batch": SAME}))
    baseline = Baseline.read(file)
    changed = dataclasses.replace(TRACE, losses=(TRACE.losses[0], 1.01 * TRACE.losses[1]))
    files = {}
    for name, trace in (
        ("before", TRACE),
        ("different", changed),
        ("elsewhere", dataclasses.replace(changed, ground=on_ground(torch="2.16.0").ground)),
    ):
        files[name] = str(tmp_path / f"{name}.json")
        dataclasses.replace(baseline, name=name, traces=(trace,)).write(Path(files[name]))
    assert main(["compare", files["before"], files["before"]]) == 0
    assert "1 of 1 traces equal to the bit\n" in capsys.readouterr().out
    assert main(["compare", files["before"], files["different"]]) == 1
    told = capsys.readouterr().out
    assert "0 of 1 traces equal to the bit\n" in told
    assert "digits-batch-none: differs from the baseline before on the same machine" in told
    assert main(["compare", files["before"], files["elsewhere"], "--json"]) == 0
    traces = json.loads(capsys.readouterr().out)["traces"]
    assert (traces["equal"], traces["different"]) == (0, [])
    assert traces["changed"][0].startswith("digits-batch-none: numerics changed since")
