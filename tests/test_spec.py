"""Specs: what they refuse, how they are spelled, and the key that tells them apart."""

from typing import Any

import pytest

from normbench.spec import RunSpec, regularizer_strengths

SPEC = RunSpec("digits", "digits", "batch")


@pytest.mark.parametrize(
    ("l1", "l2", "name"),
    [
        (0, 0, "none"),
        (0.001, 0, "l1:0.001"),
        (0, 0.01, "l2:0.01"),
        (0.001, 0.002, "l1:0.001+l2:0.002"),
    ],
)
def test_every_regularizer_has_one_spelling(l1: float, l2: float, name: str) -> None:
    assert RunSpec("digits", "digits", "batch", l1=l1, l2=l2).regularizer == name
    assert regularizer_strengths(name) == (l1, l2)


@pytest.mark.parametrize(
    "name", ["", "l1", "l1:", "l1:0", "l2:-1", "l2:nan", "l2:inf", "l3:1", "l1:1+l1:1", "l1:1,l2:1"]
)
def test_another_spelling_of_a_regularizer_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown regularizer '.*': expected none, or l1 and l2"):
        regularizer_strengths(name)


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_strength_is_finite_and_not_negative(strength: float) -> None:
    with pytest.raises(ValueError, match=r"l1 = .*: expected a finite number, 0 or larger"):
        RunSpec("digits", "digits", "batch", l1=strength)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, r"batch_size = 0: expected 1 or larger"),
        ("epochs", 0, r"epochs = 0: expected 1 or larger"),
        ("dropout", 1.0, r"dropout = 1.0: expected a probability below 1"),
        ("seed", -1, r"seed = -1: expected 0 or larger"),
        ("l1", -1.0, r"l1 = -1.0: expected a finite number"),
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
        RunSpec("digits", "digits", "batch", l2=1e-9),
        RunSpec("digits", "digits", "batch", epochs=2),
    ]
    assert len({SPEC.key, *(spec.key for spec in others)}) == 5
