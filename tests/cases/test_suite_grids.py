"""The suite's own grids: what each tier has, and what it is held to."""

from pathlib import Path

import pytest

from normbench.cases.case import GridOptions
from normbench.cases.grids import load_cases
from normbench.training.recipes import RECIPES

from .conftest import Load

BENCH_CASES = Path(__file__).parents[2] / "bench" / "cases"


@pytest.mark.parametrize(
    ("grid", "tier", "more"), [("mnist", "standard", 0), ("mnist_plain", "full", 2)]
)
def test_both_mnist_grids_are_the_product_and_have_every_published_row(
    grid: str, tier: str, more: int
) -> None:
    cases = load_cases(BENCH_CASES / f"{grid}.toml", GridOptions(tier=tier))
    assert len(cases) == 6 * 5 * 3 + more
    assert sum(case.published is not None for case in cases) == 17
    best = next(case for case in cases if case.id == f"{grid}-batch-none-b64")
    assert best.published is not None
    assert best.published.test_accuracy == pytest.approx(0.9958)
    assert best.published.floor == pytest.approx(0.9948)


def test_batch_layer_and_group_without_l1_are_held_against_the_customers_target() -> None:
    cases = load_cases(BENCH_CASES / "mnist.toml", GridOptions(tier="standard"))
    held = [
        c
        for c in cases
        if c.spec.norm.startswith(("batch", "layer", "group")) and not c.spec.strengths.get("l1")
    ]
    assert len(held) == 4 * 2 * 3
    assert {round(case.target, 6) for case in held} == {0.994}


def test_the_cifar10_grid_has_its_standard_and_its_full_tier() -> None:
    standard = load_cases(BENCH_CASES / "cifar10.toml", GridOptions(tier="standard"))
    assert len(standard) == 3 * 4 + 3
    assert {c.spec.batch_size for c in standard if c.published} == {64}
    assert [c.published.test_accuracy for c in standard if c.published] == pytest.approx(
        [0.7939, 0.7279, 0.7484]
    )
    full = load_cases(BENCH_CASES / "cifar10.toml", GridOptions(tier="full"))
    assert len(full) == 6 * 4 * 3
    assert {c.spec.epochs for c in full} <= set(range(1, 21))
    held = {c.target for c in full if c.spec.norm != "none" and not c.spec.strengths.get("l1")}
    assert min(held) >= 0.70


def test_the_batch_size_sweep_has_five_sizes_of_mnist_in_the_standard_tier() -> None:
    file = BENCH_CASES / "batch_size_mnist.toml"
    standard = load_cases(file, GridOptions(tier="standard"))
    assert {case.spec.batch_size for case in standard} == {2, 4, 16, 64, 256}
    assert len(standard) == 5 * 5


def test_a_norm_of_the_users_own_is_held_to_the_lowest_target_at_256_images() -> None:
    options = GridOptions(tier="standard", norms=("group:8",))
    cases = load_cases(BENCH_CASES / "batch_size_mnist.toml", options)
    at_256 = {c.spec.norm: c.target for c in cases if c.spec.batch_size == 256}
    assert at_256["group:8"] == min(at_256.values()) < at_256["layer"] < at_256["batch"]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_full_sweep_has_eleven_sizes_at_equal_epochs_and_a_linear_learning_rate(
    dataset: str,
) -> None:
    full = load_cases(BENCH_CASES / f"batch_size_{dataset}.toml", GridOptions(tier="full"))
    assert {case.spec.batch_size for case in full} == {2**n for n in range(11)}
    assert len(full) == 5 * 11
    assert len({(case.spec.epochs, case.spec.train_images) for case in full}) == 1
    peaks = {
        c.spec.batch_size: RECIPES[c.spec.recipe].peak_learning_rate(c.spec.batch_size)
        for c in full
    }
    assert peaks[1024] == pytest.approx(512 * peaks[2])


def test_the_smoke_tier_is_every_norm_by_every_regularizer_at_two_batch_sizes() -> None:
    cases = load_cases(BENCH_CASES / "digits.toml", GridOptions(tier="smoke"))
    assert len({case.spec.norm for case in cases}) == 7
    assert len({case.spec.regularizer for case in cases}) == 5
    assert {case.spec.batch_size for case in cases} == {32, 64}
    assert len(cases) == 70


def test_the_readmes_example_is_a_cases_file(load: Load) -> None:
    readme = (BENCH_CASES.parent.parent / "README.md").read_text()
    example = readme.partition("```toml\n")[2].partition("```")[0]
    cases = load(example.replace("mypkg.norms:RMSNorm2d", "torch.nn:BatchNorm2d"))
    assert len(cases) == 3 * 3 * 2
    assert {case.seeds for case in cases} == {3}
    assert {case.spec.train_images for case in cases} == {6000}
    assert {(c.spec.norm, c.target) for c in cases if not c.spec.strengths.get("l1")} == {
        ("batch", 0.98),
        ("group:2", 0.95),
        ("torch.nn:BatchNorm2d", 0.95),
    }
