"""Specs: what they refuse, how they are spelled, and the key that tells them apart."""

from typing import Any

import pytest

from normbench.spec import RunSpec, regularizer_name, regularizer_strengths

SPEC = RunSpec("digits", "digits", "batch")


@pytest.mark.parametrize(
    ("strengths", "name"),
    [
        ({}, "none"),
        ({"l1": 0.001}, "l1:0.001"),
        ({"l2": 0.01}, "l2:0.01"),
        ({"l1": 0.001, "l2": 0.002}, "l1:0.001+l2:0.002"),
        ({"l2-weights": 5e-05, "l1": 1e20}, "l1:1e20+l2-weights:5e-05"),
        ({"mypkg.reg:lasso": 0.1 + 0.2}, "mypkg.reg:lasso:0.30000000000000004"),
    ],
)
def test_every_regularizer_has_one_spelling(strengths: dict[str, float], name: str) -> None:
    assert regularizer_name(strengths) == name
    assert regularizer_strengths(name) == strengths
    spec = RunSpec("digits", "digits", "batch", name)
    assert (spec.regularizer, spec.strengths) == (name, strengths)


@pytest.mark.parametrize(
    "name",
    ["l2:2e-3+l1:0.0010", "l1:0.01e-1+l2:0.00002e+2", "l2:0.002+l1:1e-3", "l1:.001 + l2:0.002"],
)
def test_a_spec_spells_equal_regularizers_alike(name: str) -> None:
    assert RunSpec("digits", "digits", "batch", name).regularizer == "l1:0.001+l2:0.002"


@pytest.mark.parametrize(
    "name", ["", "l1", "l1:", "l1:0", "l2:-1", "l2:nan", "l2:inf", ":1", "l1:1+l1:1", "l1:1,l2:1"]
)
def test_another_spelling_of_a_regularizer_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"regularizer '.*is no name with a finite strength"):
        regularizer_strengths(name)


def test_a_spec_of_the_time_of_l1_and_l2_alone_is_read() -> None:
    first = {"dataset": "digits", "network": "digits", "norm": "batch", "l1": 0.0, "l2": 0.001}
    assert RunSpec.of_dict({**first, "batch_size": 32, "later": 1}) == RunSpec(
        "digits", "digits", "batch", "l2:0.001", 32
    )


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf"), "0.1"])
def test_a_stored_strength_is_finite_and_not_negative(strength: object) -> None:
    first = {"dataset": "digits", "network": "digits", "norm": "batch", "l1": strength, "l2": 0}
    with pytest.raises(ValueError, match=r"l1 = .*: expected a finite number, 0 or larger"):
        RunSpec.of_dict({**first, "batch_size": 32})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, r"batch_size = 0: expected 1 or larger"),
        ("epochs", 0, r"epochs = 0: expected 1 or larger"),
        ("dropout", 1.0, r"dropout = 1.0: expected a probability below 1"),
        ("seed", -1, r"seed = -1: expected 0 or larger"),
        ("regularizer", "l1:-1", r"unknown regularizer 'l1:-1': 'l1:-1' is no name with a"),
    ],
)
def test_a_spec_out_of_range_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunSpec("digits", "digits", "batch", **{field: value})


def test_a_key_depends_on_every_field_and_on_nothing_else() -> None:
    assert RunSpec("digits", "digits", "batch").key == SPEC.key
    others = [
        SPEC.with_seed(1),
        RunSpec("digits", "digits", "layer"),
        RunSpec("digits", "digits", "batch", "l2:1e-9"),
        RunSpec("digits", "digits", "batch", epochs=2),
    ]
    assert len({SPEC.key, *(spec.key for spec in others)}) == 5
