"""Traces beside a baseline's: equal, different where they must not be, or changed numerics."""

import dataclasses

import pytest

from normbench.analysis.traces import (
    Difference,
    TraceCounts,
    TraceStanding,
    beside,
    compare_all,
    compare_traces,
    first_difference,
    same_training,
)
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
    assert found.told == (
        "differs from the baseline nightly on the same machine, torch, threads and code, first at "
        "step 2, parameter classifier.weight, whose norm differs by 0.01 of itself: expected it "
        "equal to the bit; training is not deterministic, or something that it calls has changed"
    )


def test_a_difference_that_leaves_the_norm_is_told_as_one() -> None:
    found = compare_traces(changed(WEIGHT, 0, TRACE.norms[WEIGHT][0]), TRACE, "nightly")
    assert "first at step 1" in found.told
    assert "in bits that leave its norm the same to nine digits" in found.told


def test_a_loss_that_differs_is_told_by_its_step() -> None:
    other = dataclasses.replace(TRACE, losses=(TRACE.losses[0], 1.01 * TRACE.losses[1]))
    found = first_difference(other, TRACE)
    assert str(found) == "first at step 2, the loss, which differs by 0.01 of itself"


def test_a_loss_that_one_of_them_lacks_counts_as_zero() -> None:
    cut = dataclasses.replace(TRACE, losses=TRACE.losses[:1])
    assert first_difference(cut, TRACE) == Difference("step 2, the loss", 1.0)
    # nothing is a share of zero: there it is the loss itself
    assert first_difference(TRACE, cut) == Difference("step 2, the loss", 2.2)


def test_the_last_logits_are_those_of_the_evaluation() -> None:
    found = first_difference(changed("logits", 2, 9.0), TRACE)
    assert found is not None
    assert found.place == "the evaluation, logits"


def test_tensors_without_an_evaluation_do_not_hide_those_after_them() -> None:
    now, before = (
        dataclasses.replace(trace, norms=dict(sorted(trace.norms.items(), reverse=True)))
        for trace in (changed("logits", 2, 9.0), TRACE)
    )
    assert [*before.norms] == [WEIGHT, "logits"]
    assert first_difference(now, before) == Difference("the evaluation, logits", 2 / 7)


def test_traces_of_what_raised_an_exception_have_nothing_that_differs() -> None:
    bare = dataclasses.replace(TRACE, losses=(), norms={}, digests={})
    assert first_difference(bare, bare) is None


def test_equal_training_has_equal_figures_as_well() -> None:
    assert same_training(TRACE, TRACE)
    assert not same_training(dataclasses.replace(TRACE, figures="other"), TRACE)
    assert not same_training(changed(WEIGHT, 1, 2.0), TRACE)


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


def test_all_of_the_ground_that_differs_is_told() -> None:
    found = compare_traces(on_ground(threads="2", torch="2.16.0"), changed(WEIGHT, 1, 2.0), "old")
    assert "(torch 2.16.0 for 2.15.0, threads 2 for 1), first" in found.told


def test_a_tensor_that_is_gone_or_new_is_told() -> None:
    fewer = dataclasses.replace(
        TRACE,
        norms={"logits": TRACE.norms["logits"]},
        digests={"logits": TRACE.digests["logits"]},
    )
    gone, new = first_difference(fewer, TRACE), first_difference(TRACE, fewer)
    assert gone == Difference(f"step 1, {WEIGHT}, which is not there any more", 1.0)
    assert new == Difference(f"step 1, {WEIGHT}, which was not there", 1.0)


def test_a_trace_of_another_run_is_not_compared() -> None:
    other = dataclasses.replace(TRACE, spec=TRACE.spec.with_seed(1))
    found = compare_traces(TRACE, other, "b")
    assert found.standing is TraceStanding.NOT_COMPARABLE
    assert found.told == "not comparable with the baseline b, whose trace is of another run"


def test_of_several_of_a_name_that_of_the_same_ground_counts() -> None:
    other = dataclasses.replace(changed(WEIGHT, 0, 1.0), ground=on_ground(torch="1").ground)
    found = beside(TRACE, [other, TRACE], "b")
    assert found is not None
    assert found.standing is TraceStanding.EQUAL
    assert found.told == "equal to the bit to the baseline b"
    assert beside(dataclasses.replace(TRACE, name="new"), [TRACE], "b") is None


def test_the_traces_of_two_sessions_are_counted_and_those_that_differ_told() -> None:
    def named(name: str, trace: Trace) -> Trace:
        return dataclasses.replace(trace, name=name)

    # one that the baseline lacks stands first, and is left out
    now = [named(name, TRACE) for name in ("new", "equal", "moved", "broke", "respecified")]
    respecified = dataclasses.replace(TRACE, spec=TRACE.spec.with_seed(1))
    moved = dataclasses.replace(changed(WEIGHT, 1, 2.0), ground=on_ground(torch="2.14.0").ground)
    known = [
        named("equal", TRACE),
        named("moved", moved),
        named("broke", changed(WEIGHT, 1, 2.0)),
        named("respecified", respecified),
    ]
    found = compare_all(now, known, "b")
    assert (found.equal, len(found.different), len(found.changed)) == (1, 1, 2)
    assert [line.partition(" the baseline b")[0] for line in found.lines] == [
        "1 of 4 traces equal to the bit",
        "broke: differs from",
        "moved: numerics changed since",
        "respecified: not comparable with",
    ]
    assert compare_all(now[:1], known, "b").lines == []
    assert TraceCounts(2, (), ()).lines == ["2 of 2 traces equal to the bit"]
