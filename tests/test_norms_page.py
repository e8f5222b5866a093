"""docs/norms.md: its properties are those that the norms claim, its results those of sessions."""

import dataclasses
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from normbench.models.families import FAMILIES
from normbench.spec import RunSpec
from tests.storage.stored import finished, store_session

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "norms.md").read_text(encoding="utf-8")


@pytest.fixture
def norms_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "perf")
    return import_module("norms_page")


def rows_of(part: str) -> dict[str, list[str]]:
    """Return the cells of a part's tables by the norm of their row, the last table's."""
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if "|" in line
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_pages_properties_are_those_that_the_norms_claim(norms_page: ModuleType) -> None:
    assert norms_page.properties_part() in PAGE


def test_every_norm_has_a_cost_and_a_row_of_results() -> None:
    for heading in ("Cost", "Results"):
        part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        found = {name.partition(":")[0] for name in rows_of(part)}
        assert {spelling.partition(":")[0] for spelling in FAMILIES} <= found


@pytest.mark.parametrize(
    ("norm", "parameters", "buffers"),
    [
        ("none", "none", "none"),
        ("batch", "2 a channel", "2 a channel, 1 a layer"),
        ("layer_chw", "2 an element", "none"),
        ("frn", "3 a channel", "none"),
        ("dynamic_tanh", "2 a channel, 1 a layer", "none"),
    ],
)
def test_sizes_are_told_by_what_there_is_one_for(
    norms_page: ModuleType, norm: str, parameters: str, buffers: str
) -> None:
    assert norms_page.sizes(norm) == (parameters, buffers)


def test_results_are_mean_and_deviation_of_the_runs_without_a_regularizer(
    norms_page: ModuleType, tmp_path: Path
) -> None:
    def spec(dataset: str, norm: str, seed: int, size: int, regularizer: str = "none") -> RunSpec:
        network = dataset.partition("-")[0]
        return RunSpec(
            dataset,
            network,
            norm,
            regularizer,
            batch_size=size,
            epochs=1,
            recipe=network,
            seed=seed,
        )

    session = store_session(
        tmp_path,
        runs=[
            finished(spec("mnist", "batch", 0, 64), 0.99),
            finished(spec("mnist", "batch", 1, 64), 0.97),
            finished(spec("mnist", "batch", 2, 64, "l2:0.001"), 0.1),
            finished(spec("mnist", "batch", 3, 128), 0.1),
            finished(dataclasses.replace(spec("mnist", "batch", 4, 64), recipe="mnist-fast"), 0.1),
            finished(spec("cifar10-jpeg", "ghost:16", 0, 128), 0.8),
        ],
    )
    rows = rows_of(norms_page.results_part([session]))
    # of 97 and 99 the deviation is the root of 2
    assert rows["batch"] == ["-", "98.00 ± 1.41 (2)", "-"]
    assert rows["ghost:16"] == ["-", "-", "80.00 (1)"]
    assert rows["rms"] == ["-", "-", "-"]
