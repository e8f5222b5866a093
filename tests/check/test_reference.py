"""The reference against closed forms and hand computations."""

import math

import pytest
import torch
from torch import Tensor

from normbench.check.recording import record
from normbench.check.reference import (
    Choices,
    Settings,
    State,
    convolution,
    cross_entropy,
    max_pool,
    one_cycle_rate,
)
from normbench.check.rounding import UNIT, Float32Rounding
from normbench.check.trace import trace_data
from normbench.check.trace_record import trace_spec
from normbench.check.tracer import Tracer, compared, norm_layer, state_of, unmoved
from normbench.models.stacks import Stage


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes() -> None:
    logits = torch.zeros(3, 10, dtype=torch.float64)
    assert cross_entropy(logits, torch.tensor([0, 4, 9])).item() == pytest.approx(math.log(10))
    # whatever is mixed in: the target still sums to one
    assert cross_entropy(logits, torch.tensor([0, 4, 9]), 0.1).item() == pytest.approx(math.log(10))


def test_label_smoothing_mixes_the_target_with_the_uniform_distribution() -> None:
    # two classes, logits 0 and log 3: probabilities 1/4 and 3/4; target 0.05 and 0.95
    logits = tensor([[0.0, math.log(3)]])
    expected = -0.05 * math.log(1 / 4) - 0.95 * math.log(3 / 4)
    assert cross_entropy(logits, torch.tensor([1]), 0.1).item() == pytest.approx(expected)


def test_cross_entropy_does_not_overflow() -> None:
    assert cross_entropy(tensor([[1e4, 0.0]]), torch.tensor([1])).item() == pytest.approx(1e4)


def test_a_convolution_sums_over_the_kernel_with_a_border_of_zeros() -> None:
    features = torch.arange(9, dtype=torch.float64).reshape(1, 1, 3, 3)
    ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    found = convolution(features, ones, tensor([0.5]), Stage(1))
    # 0 + 1 + 3 + 4 at a corner, 0 to 8 in the middle
    assert found[0, 0, 0, 0].item() == 8.5
    assert found[0, 0, 1, 1].item() == 36.5


def test_a_convolution_of_two_groups_keeps_them_apart_and_strides() -> None:
    features = torch.stack([torch.full((5, 5), 1.0), torch.full((5, 5), 10.0)]).double()[None]
    weight = tensor([[[[2.0]]], [[[3.0]]]])
    found = convolution(features, weight, None, Stage(2, kernel=1, stride=2, groups=2))
    assert found.shape == (1, 2, 3, 3)
    assert found[0, :, 0, 0].tolist() == [2.0, 30.0]


def test_a_max_pool_takes_the_maximum_of_whole_windows_and_its_gradient_goes_there() -> None:
    features = tensor([[1.0, 2.0, 9.0], [4.0, 3.0, 9.0], [9.0, 9.0, 9.0]]).reshape(1, 1, 3, 3)
    features.requires_grad_()
    pooled = max_pool("pool", features, 2, Choices())
    assert pooled.tolist() == [[[[4.0]]]]
    (gradient,) = torch.autograd.grad(pooled.sum(), features)
    assert gradient.flatten().tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_the_other_engine_decides_only_where_rounding_does() -> None:
    features = tensor([[1.0, 1.0 + 1e-9], [0.0, 0.5]]).reshape(1, 1, 2, 2)
    other = tensor([[1.0 + 1e-9, 1.0], [0.0, 7.0]]).reshape(1, 1, 2, 2)
    near = Choices({"pool": other}, {"pool": 1e-6})
    assert near.largest("pool", features, 2).item() == 0
    far = Choices({"pool": other}, {"pool": 1e-12})
    assert far.largest("pool", features, 2).item() == 1
    signs = Choices({"a": tensor([-1.0, -1.0])}, {"a": 1e-6})
    assert signs.positive("a", tensor([1e-9, 1.0])).tolist() == [False, True]


def test_the_one_cycle_rises_to_its_peak_and_falls_below_its_beginning() -> None:
    # 99 steps: the peak is after 0.3 * 100 - 1 of them
    rates = [one_cycle_rate(step, 99, 1.0, 0.3) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[29] == pytest.approx(1.0)
    assert max(rates) == rates[29]
    # half of the cosine lies in the middle of each part
    assert rates[29 + 35] == pytest.approx((1 + 1 / 25e4) / 2)
    assert rates[99] == pytest.approx(1 / 25e4)


def test_the_one_cycle_is_what_torch_documents() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=51, pct_start=0.2)
    for step in range(50):
        assert schedule.get_last_lr()[0] == pytest.approx(one_cycle_rate(step, 50, 0.4, 0.2))
        optimizer.step()
        schedule.step()


def test_a_step_regularizes_and_accelerates_as_defined() -> None:
    tracer = Tracer(record(trace_spec("digits", "none"), trace_data("digits")))
    recorded = tracer.recording.steps[3]
    reference = tracer.reference({})
    state = state_of(recorded.before)
    images, labels = recorded.images.double(), recorded.labels

    def step(l1: float, l2: float, momentum: float) -> State:
        settings = Settings({"l1": l1, "l2": l2}, "sgd", momentum, 0.0, 0.5)
        return reference.step(state, images, labels, settings, Choices()).after

    name = "classifier.weight"
    weight, before = state.parameters[name], state.momenta[name]
    gradient = step(0, 0, 0).momenta[name]
    full = step(0.01, 0.1, 0.9)
    velocity = 0.9 * before + gradient + 0.01 * weight.sign() + 0.1 * weight
    torch.testing.assert_close(full.momenta[name], velocity)
    ahead = velocity - 0.9 * before + 0.9 * velocity
    torch.testing.assert_close(full.parameters[name], weight - 0.5 * ahead)


def test_random_errors_of_an_operation_have_the_deviation_of_the_unit_roundoff() -> None:
    ones = torch.ones(100_000, dtype=torch.float64)
    with Float32Rounding(torch.Generator().manual_seed(0)):
        moved = ones * 3
    error = moved / 3 - 1
    assert error.std().item() == pytest.approx(UNIT, rel=0.02)
    assert abs(error.mean().item()) < UNIT / 50
    with Float32Rounding(torch.Generator().manual_seed(0)):
        assert torch.equal(ones.reshape(10, -1).t(), ones.reshape(10, -1).t().clone())


def test_a_sum_of_float32_is_within_the_error_that_it_is_given() -> None:
    generator = torch.Generator().manual_seed(0)
    terms = torch.randn(200, 1000, generator=generator)
    exact = terms.double().sum(1)
    one_by_one = torch.zeros(200)
    for column in terms.t():
        one_by_one += column
    with Float32Rounding(generator):
        moved = terms.double().sum(1)
    seen, modelled = ((each - exact).norm().item() for each in (one_by_one.double(), moved))
    assert 0.2 * modelled < seen < modelled


def test_a_gradient_is_moved_as_well() -> None:
    leaf = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    with Float32Rounding(torch.Generator().manual_seed(0)):
        (gradient,) = torch.autograd.grad((leaf * leaf).sum(), leaf)
    assert UNIT / 2 < (gradient / 2 - 1).std().item() < 4 * UNIT


def test_a_user_s_norm_has_no_formula() -> None:
    assert norm_layer("torch.nn:BatchNorm2d") is None
    assert norm_layer("batch") is not None


def test_not_a_number_is_beyond_every_bound() -> None:
    (found,) = compared(4, {"logits": tensor([math.nan])}, {"logits": tensor([1.0])}, {"logits": 9})
    assert found.broken
    assert str(found).startswith("step 4, logits: off by nan")


def test_nothing_changes_between_the_steps_of_a_right_engine() -> None:
    recording = record(trace_spec("digits", "batch"), trace_data("digits"))
    assert list(unmoved(recording.steps)) == []
