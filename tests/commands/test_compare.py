"""``normbench compare --json``: what a program reads of a comparison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from normbench.commands.main import main
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline


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


SAME = (0.970, 0.971, 0.972)
LESS = (0.870, 0.871, 0.872)


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
        "no difference": 1,
        "regression": 1,
        "not in the baseline": 1,
        "only in the baseline": 1,
    }
    # the machines are equal, and so are the rates
    assert document["speed"] == 1.0
    cases = {case["spec"]["norm"]: case for case in document["cases"]}
    assert {norm: case["outcome"] for norm, case in cases.items()} == {
        "batch": "no difference",
        "layer": "regression",
        "instance": "not in the baseline",
        "none": "only in the baseline",
    }
    assert len(document["cases"]) == 4
    layer = cases["layer"]
    assert layer["case"] == "digits layer-none-b32, 1 epoch"
    assert (layer["before"], layer["now"]) == (list(SAME), list(LESS))
    assert layer["difference"] == pytest.approx(-0.1)
    # three samples of three in steps of 0.001 have the variance 1e-6, with 6 degrees of freedom;
    # the difference is one of two means of three
    assert layer["variance"] == pytest.approx({"value": 1e-6, "degrees_of_freedom": 6})
    assert layer["margin_of_error"] == pytest.approx(2.446912 * (1e-6 * 2 / 3) ** 0.5)
    assert layer["adjusted_p"] < 1e-6
    assert cases["batch"]["difference"] == 0.0
    for norm in ("instance", "none"):
        assert cases[norm]["difference"] is None
        assert cases[norm]["margin_of_error"] is None


def test_a_comparison_without_a_regression_ends_well(
    before: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", before, before, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"no difference": 3}
    assert main(["compare", before, before]) == 0
    assert "3 no difference" in capsys.readouterr().out


def test_the_minimum_effect_is_the_users(
    before: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", before, now, "--json", "--minimum-effect", "11"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["no difference"] == 2
