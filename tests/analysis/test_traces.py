"""Traces beside a baseline's: equal, different where they must not be, or changed numerics."""

import dataclasses

import pytest

from normbench.analysis.traces import TraceStanding, beside, compare_traces, first_difference
from normbench.check.trace_record import Trace
from tests.storage.stored import TRACE, on_ground


def changed(tensor: str, step: int, norm: float) -> Trace:
    digests = TRACE.digests[tensor]
    digits = digests[: 8 * step] + "ffffffff" + digests[8 * step + 8 :]
    norms = [*TRACE.norms[tensor]]
    norms[step] = norm
    return dataclasses.replace(
        TRACE,
        digests={**TRACE.digests, tensor: digits},
        norms={**TRACE.norms, tensor: tuple(norms)},
    )


WEIGHT = "parameter classifier.weight"


def test_a_trace_is_equal_to_itself_on_any_ground() -> None:
    assert first_difference(TRACE, TRACE) is None
    found = compare_traces(on_ground(torch="2.14.0"), TRACE, "nightly")
    assert (found.standing, found.told) == (
        TraceStanding.EQUAL,
        "equal to the bit to the baseline nightly",
    )


def test_on_the_same_ground_a_difference_is_told_by_step_tensor_and_size() -> None:
    found = compare_traces(changed(WEIGHT, 1, 2.5 * 1.01), TRACE, "nightly")
    assert found.standing is TraceStanding.DIFFERENT
    assert "on the same machine, torch, threads and code" in found.told
    assert "first at step 2, parameter classifier.weight, whose norm differs by 0.01" in found.told


def test_a_difference_that_leaves_the_norm_is_told_as_one() -> None:
    found = compare_traces(changed(WEIGHT, 0, TRACE.norms[WEIGHT][0]), TRACE, "nightly")
    assert "first at step 1" in found.told
    assert "in bits that leave its norm the same to nine digits" in found.told


def test_a_loss_that_differs_is_told_by_its_step() -> None:
    other = dataclasses.replace(TRACE, losses=(TRACE.losses[0], 1.01 * TRACE.losses[1]))
    found = first_difference(other, TRACE)
    assert str(found) == "first at step 2, the loss, which differs by 0.01 of itself"


def test_the_last_logits_are_those_of_the_evaluation() -> None:
    found = first_difference(changed("logits", 2, 9.0), TRACE)
    assert found is not None
    assert found.place == "the evaluation, logits"


@pytest.mark.parametrize(
    ("ground", "value", "told"),
    [
        ("torch", "2.16.0", "torch 2.16.0 for 2.15.0"),
        ("threads", "2", "threads 2 for 1"),
        ("processor", "Other CPU", "another processor"),
        ("code", "fff", "code fff for abc"),
    ],
)
def test_on_other_ground_numerics_have_changed(ground: str, value: str, told: str) -> None:
    before = on_ground(**{ground: value})
    now = changed(WEIGHT, 1, 2.0)
    found = compare_traces(before, now, "old")
    assert found.standing is TraceStanding.CHANGED
    assert found.told.startswith(f"numerics changed since the baseline old ({told}), first at step")


def test_a_tensor_that_is_gone_or_new_is_told() -> None:
    fewer = dataclasses.replace(
        TRACE,
        norms={"logits": TRACE.norms["logits"]},
        digests={"logits": TRACE.digests["logits"]},
    )
    gone, new = first_difference(fewer, TRACE), first_difference(TRACE, fewer)
    assert gone is not None
    assert gone.place == f"step 1, {WEIGHT}, which is not there any more"
    assert new is not None
    assert new.place == f"step 1, {WEIGHT}, which was not there"


def test_a_trace_of_another_run_is_not_compared() -> None:
    other = dataclasses.replace(TRACE, spec=TRACE.spec.with_seed(1))
    assert compare_traces(TRACE, other, "b").standing is TraceStanding.NOT_COMPARABLE


def test_of_several_of_a_name_that_of_the_same_ground_counts() -> None:
    other = dataclasses.replace(changed(WEIGHT, 0, 1.0), ground=on_ground(torch="1").ground)
    found = beside(TRACE, [other, TRACE], "b")
    assert found is not None
    assert found.standing is TraceStanding.EQUAL
    assert beside(dataclasses.replace(TRACE, name="new"), [TRACE], "b") is None
