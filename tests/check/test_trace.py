"""The engine held against the reference: right engines pass, each wrong one is found and named."""

import dataclasses
import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.check.recording import record
from normbench.check.trace import take_trace, trace_data
from normbench.check.trace_record import Trace, Traced, case_trace_spec, trace_spec, traced_as
from normbench.check.tracer import Tracer, quantile, relative, unreferenced
from normbench.training import muon, trainer
from normbench.training.recipes import recipe_spelling
from normbench.training.trainer import Evaluation, evaluate, train
from tests.check.wrong_engines import WRONG_ENGINES, engine

PLAIN = trace_spec("digits", "batch", "l2:0.001")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "layer_chw", "group:4", "instance"])
def test_a_right_engine_is_not_blamed(norm: str, seed: int) -> None:
    spec = trace_spec("digits", norm, ("none", "l1:0.001")[seed % 2]).with_seed(seed)
    found = take_trace(Traced("right", spec))
    assert found.broken == ()
    assert 0 < found.share < 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": recipe_spelling({"from": "digits", "schedule": "cosine", "scaling": "none"})},
        {"recipe": recipe_spelling({"from": "digits", "schedule": "linear", "momentum": 0.5})},
        {"regularizer": "decoupled:0.1+l2-weights:0.01"},
        {"regularizer": "orthogonal:0.01+spectral:0.01"},
    ],
)
def test_other_recipes_and_regularizers_are_held_against_theirs(changes: dict[str, Any]) -> None:
    found = take_trace(Traced("own", dataclasses.replace(PLAIN, **changes)))
    assert (found.broken, found.note) == ((), "")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"recipe": '{"from": "digits", "optimizer": "adamw"}'}, "of SGD and Muon, without cl"),
        ({"recipe": '{"from": "digits", "gradient_clipping": 1.0}'}, "and Muon, without clipping"),
        ({"regularizer": "torch.nn:L1Loss:0.1"}, "the regularizer torch.nn:L1Loss has no form"),
    ],
)
def test_what_the_reference_does_not_know_is_told(changes: dict[str, Any], note: str) -> None:
    assert note in unreferenced(dataclasses.replace(PLAIN, **changes))


def test_without_a_reference_the_data_are_held_against_theirs_all_the_same() -> None:
    recipe = recipe_spelling({"from": "digits", "optimizer": "adamw", "learning_rate": 0.001})
    found = take_trace(Traced("own", dataclasses.replace(PLAIN, recipe=recipe)))
    assert found.broken == ()
    assert found.note.startswith("the reference takes steps of SGD")


@pytest.mark.parametrize("norm", ["frn", "ws+group:4"])
def test_what_a_norm_asks_of_its_network_is_in_the_reference(norm: str) -> None:
    # an activation that is left out, and convolutions with standardized weights
    found = take_trace(Traced("right", trace_spec("digits", norm)))
    assert found.broken == ()
    assert 0 < found.share < 0.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("recipe", ["digits", "mnist", "cifar10"])
def test_the_engine_on_a_gpu_is_held_against_the_reference(recipe: str) -> None:
    device = torch.device("cuda", 0)
    first, second = (
        take_trace(Traced("gpu", trace_spec(recipe, "batch", "l1:0.001")), device=device)
        for _ in range(2)
    )
    assert first.broken == ()
    assert first.ground["device"] == torch.cuda.get_device_name(0)
    assert first.digests == second.digests


@pytest.mark.parametrize(("share", "after"), [(0.03, 2), (0.33, 9)])
def test_a_trace_has_as_many_images_as_selected_ones_need_to_fill_a_batch(
    share: float, after: int
) -> None:
    table = {"from": "digits", "selection": {"share": share, "after": after}}
    plain = dataclasses.replace(PLAIN, epochs=after + 1, train_images=None)
    spec = dataclasses.replace(plain, recipe=recipe_spelling(table))
    assert take_trace(Traced("right", traced_as(spec))).broken == ()
    short = case_trace_spec(dataclasses.replace(spec, batch_size=64))
    assert (short.train_images or 0) >= min(64 / share, 1348)


@pytest.mark.parametrize("recipe", ["mnist", "mnist-l1", "mnist-fast", "cifar10", "cifar10-best"])
def test_a_right_engine_is_not_blamed_with_another_recipe(recipe: str) -> None:
    assert take_trace(Traced("right", trace_spec(recipe, "group:2", "l1:0.001"))).broken == ()


MUON = dataclasses.replace(PLAIN, recipe=recipe_spelling({"from": "digits", "optimizer": "muon"}))


@pytest.mark.parametrize("seed", range(3))
def test_steps_of_muon_are_held_against_theirs(seed: int) -> None:
    found = take_trace(Traced("muon", MUON.with_seed(seed)))
    assert (found.broken, found.note) == ((), "")
    assert 0 < found.share < 0.3


@pytest.mark.parametrize(
    ("wrong", "value"),
    [("KERNELS_SHARE", 0.149), ("KERNELS_DECAY", 0.0), ("NEWTON_SCHULZ_STEPS", 4)],
)
def test_wrong_steps_of_muon_are_found(
    wrong: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, wrong, value)
    first = take_trace(Traced("wrong", MUON)).broken[0]
    # the rate begins low
    assert re.match(r"step \d, parameter blocks\.block1\.convolution\.weight: off by ", first)


def test_an_evaluation_that_forgets_the_mirror_image_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flipping = recipe_spelling({"from": "digits", "test_time_flip": True})
    traced = Traced("flipping", dataclasses.replace(PLAIN, recipe=flipping))
    assert take_trace(traced).broken == ()

    def forgetting(network: nn.Module, images: Tensor, labels: Tensor, _: bool) -> Evaluation:
        return evaluate(network, images, labels)

    monkeypatch.setattr(trainer, "evaluate", forgetting)
    (broken,) = take_trace(traced).broken
    assert broken.startswith("evaluation, logits: off by ")


@pytest.mark.parametrize("name", WRONG_ENGINES)
def test_a_wrong_engine_is_found(name: str) -> None:
    change, told = WRONG_ENGINES[name]
    found = take_trace(Traced(name, PLAIN), kind=engine(change))
    assert told in "\n".join(found.broken)


def test_what_is_broken_is_told_by_step_tensor_expected_seen_and_bound() -> None:
    change, _ = WRONG_ENGINES["dampening 0.5"]
    first = take_trace(Traced("wrong", PLAIN), kind=engine(change)).broken[0]
    # the first step of SGD has no momentum to dampen
    assert first.startswith("step 2, ")
    for part in (" off by ", " is the bound: expected ", " at [", ", seen "):
        assert part in first


def test_a_norm_without_a_formula_is_held_against_itself_in_float64() -> None:
    found = take_trace(Traced("own", trace_spec("digits", "torch.nn:BatchNorm2d")))
    assert found.broken == ()
    assert "no formula" in found.note


def test_labels_that_were_loaded_wrong_are_found() -> None:
    data = trace_data("digits")
    labels = data.train_labels.clone()
    labels[1000] = (labels[1000] + 1) % 10
    found = take_trace(Traced("labels", PLAIN), data=dataclasses.replace(data, train_labels=labels))
    assert "training labels: 1 of 1348 differ from their source, such as image 1000" in str(
        found.broken
    )


def test_a_wrong_mean_is_found() -> None:
    found = take_trace(
        Traced("mean", PLAIN), data=dataclasses.replace(trace_data("digits"), mean=0.31)
    )
    assert "the mean of the training pixels: expected 0.3054, seen 0.3100" in found.broken


def test_recording_leaves_training_as_it_is() -> None:
    data = trace_data("digits")
    recorded = record(PLAIN, data).result
    plain = train(PLAIN, data, torch.device("cpu"))
    assert recorded.confusion == plain.confusion
    assert [e.train_loss for e in recorded.epochs] == [e.train_loss for e in plain.epochs]


def test_two_traces_of_one_engine_are_equal_and_small_and_stay_so_when_stored() -> None:
    first, second = (take_trace(Traced("twice", PLAIN)) for _ in range(2))
    assert (first.digests, first.norms, first.losses) == (
        second.digests,
        second.norms,
        second.losses,
    )
    text = json.dumps(first.to_dict())
    assert len(text) < 25_000
    assert Trace.of_dict(json.loads(text)) == first


def test_the_bound_is_students_quantile() -> None:
    # two-sided, 1e-6 over 200,000 comparisons; a normal number leaves 6.9 with 5e-12
    assert quantile(10) == pytest.approx(36.96, abs=0.01)
    assert quantile(10**6) == pytest.approx(6.90, abs=0.01)


def test_rounding_of_the_reference_is_about_that_of_float32() -> None:
    recording = record(PLAIN, trace_data("digits"))
    tracer = Tracer(recording)
    deviations, runs = tracer.deviations()
    assert runs == 10
    seen = [c.error / max(c.bound, 1e-30) for c in tracer.comparisons() if c.tensor == "logits"]
    # the model has sums taken one after the other, which libraries do better
    assert 0.001 < max(seen) * quantile(runs) < 1.5
    assert 1e-7 < deviations["logits"] < 1e-5
    assert relative(torch.ones(4), torch.full((4,), 2.0)) == 0.5
