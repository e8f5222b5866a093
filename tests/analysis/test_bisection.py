"""The search along a line: exact figures by halves, scattering accuracies by probabilities."""

import dataclasses
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from normbench.analysis.bisection import (
    COLLAPSED,
    COLLAPSED_RANGE,
    DEVIATIONS,
    MEANS,
    Halving,
    accuracy,
    blocks,
    change_probabilities,
    changes,
    credible,
    difference,
    drop,
    figures,
    is_worse,
    most_probable,
    most_telling,
)
from normbench.results import Epoch, LayerActivations, RunResult
from normbench.spec import RunSpec

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=2)
STEP = 1 / 449  # of an accuracy on the digits
RUN = RunResult(
    SPEC,
    "ok",
    parameters=7,
    epochs=(
        Epoch(1, 0.1, 0.2, 0.3, 0.4, 0.5, 6.0, 7.0),
        Epoch(2, 0.1, 0.2, 0.3, 0.4, 0.5, 8.0, 9.0),
    ),
    confusion=((1, 2), (3, 4)),
    wrong=(2, 5),
    activations=(LayerActivations("first", (0.1,), (0.2,), (0.3,), (0.4,)),),
    weights=(0, 3, 4),
)


def test_two_runs_are_equal_whatever_their_seconds_and_origin() -> None:
    epochs = tuple(dataclasses.replace(e, train_seconds=1.0, test_seconds=2.0) for e in RUN.epochs)
    other = dataclasses.replace(
        RUN, epochs=epochs, cpu_seconds=3.0, worker="gw1", code="abc", torch="2.15.0", ended="now"
    )
    assert difference(RUN, other) is None


def test_the_first_figure_that_differs_is_told_in_the_order_of_training() -> None:
    first, second = RUN.epochs
    # in the last digit that a float has
    higher = math.nextafter(second.test_loss, 1)
    later = dataclasses.replace(second, test_loss=higher)
    other = dataclasses.replace(RUN, epochs=(first, later), wrong=(2, 6), parameters=7)
    found = difference(RUN, other)
    assert found is not None
    assert (found.figure, found.before_value, found.after_value) == (
        "test_loss of epoch 2", 0.4, higher,
    )  # fmt: skip
    # 9 of the spec, 2 of the run, twice 5 of an epoch, 4 of a layer, and 3 after the last epoch
    assert (found.different, found.figures) == (2, 27)


@pytest.mark.parametrize(
    ("changed", "figure"),
    [
        ({"spec": dataclasses.replace(SPEC, dropout=0.1), "parameters": 8}, "dropout"),
        ({"status": "diverged", "epochs": RUN.epochs[:1]}, "status"),
        ({"parameters": 8}, "parameters"),
        ({"weights": (0, 4, 3)}, "weights"),
        ({"confusion": ((2, 1), (3, 4))}, "confusion"),
        (
            {"activations": (LayerActivations("first", (0.1,), (0.2,), (0.35,), (0.4,)),)},
            "mean_after of layer first",
        ),
    ],
)
def test_whatever_differs_is_found(changed: dict[str, Any], figure: str) -> None:
    found = difference(RUN, dataclasses.replace(RUN, **changed))
    assert found is not None
    assert found.figure == figure


def test_what_an_older_row_lacks_is_no_difference() -> None:
    assert difference(dataclasses.replace(RUN, activations=(), weights=(), wrong=()), RUN) is None


def test_the_seed_and_the_number_of_epochs_are_no_figures() -> None:
    assert not {"seed", "epochs"} & set(figures(RUN))


@pytest.mark.parametrize("last", [1, 2, 3, 63, 64])
def test_each_change_is_found_in_as_many_steps_as_there_are_halves(last: int) -> None:
    for change in range(1, last + 1):
        search, steps = Halving(last), 0
        while (position := search.position()) is not None:
            steps += 1
            (search.differs if position >= change else search.equals_good)(position)
        assert list(search.candidates) == [change]
        assert steps <= math.ceil(math.log2(last))


def test_what_cannot_be_run_is_passed_over() -> None:
    for change in range(1, 64):
        search, steps = Halving(63), 0
        while (position := search.position()) is not None:
            steps += 1
            if 30 <= position < 40:
                search.skip(position)
            else:
                (search.differs if position >= change else search.equals_good)(position)
        # of a change at a revision that cannot be run, or just after those, all of these are left
        assert list(search.candidates) == (list(range(30, 41)) if 30 <= change <= 40 else [change])
        assert steps <= (10 + 5 if 30 <= change <= 40 else 13)


def test_changes_lie_between_positions_that_were_measured_one_after_the_other() -> None:
    states = {0: "a", 8: "a", 12: "b", 13: "b", 63: "c"}
    assert list(changes(states, str.__eq__)) == [(8, 12), (13, 63)]


def test_a_run_that_diverged_has_learned_nothing() -> None:
    assert accuracy(RUN) == 0.5
    assert accuracy(RunResult(SPEC, "diverged", "the loss is nan")) == 0.0


def test_a_drop_has_the_interval_of_students_distribution() -> None:
    good, bad = [0.99, 0.98, 0.97], [0.97, 0.96, 0.95]
    found = drop(good, bad, STEP)
    # both have a standard deviation of 0.01, known with 4 degrees of freedom, whose quantile is
    # 2.776
    reach = 2.776445 * 0.01 * math.sqrt(2 / 3)
    assert found.value == pytest.approx(-0.02)
    assert found.interval() == pytest.approx((-0.02 - reach, -0.02 + reach), rel=1e-6)


def test_worse_is_what_scatter_does_not_explain() -> None:
    good = [0.984, 0.986, 0.985]
    assert is_worse(good, [0.964, 0.966, 0.965], STEP)
    assert not is_worse(good, [0.982, 0.984, 0.983], STEP)
    assert not is_worse([0.964, 0.966, 0.965], good, STEP)
    # of bad, one run that collapsed is as good as the second worst
    assert not is_worse(good, [0.985, 0.984, 0.1], STEP)
    # by ranks: a good run that collapsed hides the drop from Student's test
    good, bad = [0.98 + n / 1000 for n in range(11)], [0.96 + n / 1000 for n in range(12)]
    assert is_worse([0.5, *good], bad, STEP)


def test_probabilities_are_those_of_a_sum_over_means_and_deviations() -> None:
    runs = {0: [0.98, 0.984, 0.979], 2: [0.975], 5: [0.97, 0.966, 0.971]}
    # that of the two ends, each about its own mean
    within = [np.var(runs[0], ddof=1), np.var(runs[5], ddof=1)]
    spread = math.sqrt(np.mean(within))
    evidence = []
    for change_after_middle in (False, True):
        total = 0.0
        for sigma in spread * DEVIATIONS:
            sides = {
                0.98: [*runs[0], *(runs[2] if change_after_middle else [])],
                0.97: [*runs[5], *([] if change_after_middle else runs[2])],
            }
            product = 1.0
            for centre, values in sides.items():
                product *= sum(
                    math.prod(
                        (1 - COLLAPSED) * NormalDist(centre + spread * mean, sigma).pdf(value)
                        + COLLAPSED / (COLLAPSED_RANGE * spread)
                        for value in values
                    )
                    for mean in MEANS
                )
            total += product
        evidence.append(total)
    # two positions up to the middle, three after it
    weights = [evidence[0]] * 2 + [evidence[1]] * 3
    expected = [0.0, *(weight / sum(weights) for weight in weights)]
    assert change_probabilities(runs, 5, STEP) == pytest.approx(expected, rel=1e-9)


def test_one_run_that_collapsed_says_nothing() -> None:
    runs = {0: [0.984, 0.986, 0.985], 10: [0.964, 0.966, 0.965]}
    before = change_probabilities(runs, 10, STEP)
    collapsed = change_probabilities({**runs, 5: [0.3]}, 10, STEP)
    assert collapsed == pytest.approx(before, abs=1e-3)
    bad = change_probabilities({**runs, 5: [0.965]}, 10, STEP)
    assert bad[1:6].sum() > 0.95


def test_one_more_run_is_taken_where_it_is_as_likely_good_as_bad() -> None:
    probabilities = np.array([0, 0.1, 0.1, 0.25, 0.25, 0.3])
    assert most_telling(probabilities, ()) == 3
    assert most_telling(probabilities, {3}) == 4


def test_positions_that_cannot_be_run_belong_to_the_next_that_can() -> None:
    assert blocks(4, ()) == [range(n, n + 1) for n in range(1, 5)]
    assert blocks(6, {2, 3, 5}) == [range(1, 2), range(2, 5), range(5, 7)]
    probabilities = np.array([0, 0.1, 0.1, 0.1, 0.3, 0.35, 0.05])
    best, share = most_probable(probabilities, blocks(6, ()))
    assert (best, share) == (range(5, 6), 0.35)
    best, share = most_probable(probabilities, blocks(6, {2, 3}))
    assert best == range(2, 5)
    assert share == pytest.approx(0.5)


def test_the_fewest_positions_that_hold_a_share_are_told() -> None:
    probabilities = np.array([0, 0.05, 0.6, 0.3, 0.05])
    assert credible(probabilities, 0.5) == [2]
    assert credible(probabilities, 0.89) == [2, 3]
    assert credible(probabilities, 0.92) == [1, 2, 3]
