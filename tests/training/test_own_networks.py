"""Training a network of the user's own: what its row holds, and what tells it from another."""

import dataclasses
from pathlib import Path

import pytest
import torch

from normbench.models.sites import NetworkDoesNotFit
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.training.data import ImageData, load_dataset
from normbench.training.fingerprints import fingerprint
from normbench.training.trainer import train

from ..models import own_networks

CPU = torch.device("cpu")
OWN = f"{own_networks.__name__}:TinyResNet"
SPEC = RunSpec("digits", OWN, "batch", epochs=2, recipe="digits")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("digits", Path(), CPU)


def test_a_row_has_the_activations_around_the_norms_that_the_network_asked_for(
    digits: ImageData,
) -> None:
    result = train(SPEC, digits, CPU)
    assert result.status == "ok"
    assert result.test_accuracy > 0.2
    assert [layer.layer for layer in result.activations] == ["first", "inner.1"]
    assert [len(layer.std_after) for layer in result.activations] == [2, 2]
    assert sum(result.weights) == result.parameters
    assert RunResult.from_row(result.to_row()) == result


def test_a_network_without_a_norm_layer_has_no_activations(digits: ImageData) -> None:
    spec = dataclasses.replace(
        SPEC, network=f"{own_networks.__name__}:WithoutNorm", norm="none", epochs=1
    )
    assert train(spec, digits, CPU).activations == ()


def test_a_network_is_given_the_middle_of_the_images_that_it_sees(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watched(own_networks.Cropped):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape[1:]))
            return super().forward(images)

    monkeypatch.setitem(own_networks.__dict__, "Watched", Watched)
    spec = dataclasses.replace(SPEC, network=f"{own_networks.__name__}:Watched", epochs=1)
    train(spec, digits, CPU)
    assert set(seen) == {(1, 6, 6)}


def test_what_does_not_fit_is_told_before_anything_trains(digits: ImageData) -> None:
    spec = dataclasses.replace(SPEC, network=f"{own_networks.__name__}:FewClasses")
    with pytest.raises(NetworkDoesNotFit, match=r"returned float32 of shape \(2, 3\) for 2 images"):
        train(spec, digits, CPU)


def test_a_fingerprint_is_of_the_network_as_the_images_make_it() -> None:
    cropped = f"{own_networks.__name__}:Cropped"

    def of(network: str, dataset: str) -> str:
        return fingerprint(RunSpec(dataset, network, "batch", recipe="digits"))

    prints = {of(OWN, "digits"), of(OWN, "mnist"), of(cropped, "digits")}
    assert len(prints) == 3
    assert of(OWN, "digits") in prints
    # of equal images a built-in network is the same, whatever they show
    assert of("preact", "mnist") == of("preact", "mnist-heldout")
