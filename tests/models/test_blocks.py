"""What a norm may ask of the network that it stands in, by its layer's attributes."""

import copy
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from normbench.models.layers import StandardizedConv2d
from normbench.models.networks import build_network, network_with
from normbench.models.norms import NormDoesNotFit, NormFactory, NormSite, standardize_weights
from normbench.models.stacks import DigitsNet

SITE = NormSite("norm", channels=6, height=3, width=3)


def asking(**attributes: bool) -> NormFactory:
    """Return the factory of batch normalization with attributes of a norm of one's own."""

    def build(site: NormSite) -> nn.Module:
        layer = nn.BatchNorm2d(site.channels)
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer

    return build


def digits_net(norm: NormFactory) -> DigitsNet:
    network = network_with("digits", norm)
    assert isinstance(network, DigitsNet)
    return network


def test_where_a_norm_brings_its_activation_the_networks_own_is_left_out() -> None:
    activations = [
        [type(block.get_submodule("activation")) for block in digits_net(norm).blocks]
        for norm in (asking(), asking(brings_activation=True))
    ]
    assert activations == [[nn.ReLU] * 3, [nn.Identity] * 3]


def test_before_a_norm_that_keeps_the_scale_convolutions_begin_as_without_a_norm() -> None:
    # He et al.: a variance of 2 over the number of inputs; torch's own is a sixth of that
    torch.manual_seed(0)
    network = digits_net(asking(keeps_scale=True))
    convolution = network.blocks.get_submodule("block3.convolution")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is None
    inputs = 32 * 9
    assert convolution.weight.var().item() * inputs / 2 == pytest.approx(1, rel=0.05)


def by_definition(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a plain convolution with the standardized weights, worked out filter by filter."""
    plain = copy.deepcopy(convolution).double()
    with torch.no_grad():
        for each in plain.weight:
            each -= each.mean()
            each /= each.square().mean().sqrt()
    return plain


@pytest.mark.parametrize(
    "settings", [{}, {"groups": 2}, {"stride": 2, "padding": 1}, {"padding": "same"}]
)
def test_weights_are_standardized_filter_by_filter(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, 3, **settings)
    before, expected = copy.deepcopy(convolution.weight), by_definition(convolution)
    standardize_weights(nn.Sequential(convolution, asking(standardizes_weights=True)(SITE)))
    assert type(convolution) is StandardizedConv2d
    # what is trained and stored stays
    assert torch.equal(convolution.weight, before)
    images = torch.randn(2, 4, 5, 5)
    seen = convolution(images).double()
    torch.testing.assert_close(seen, expected(images.double()), rtol=1e-5, atol=1e-5)


def test_a_network_whose_norms_do_not_ask_keeps_its_convolutions() -> None:
    network = digits_net(asking())
    standardize_weights(network)
    assert not any(isinstance(layer, StandardizedConv2d) for layer in network.modules())


@pytest.mark.parametrize(
    ("convolution", "message"),
    [
        (
            lambda: nn.Linear(4, 4),
            r"^the norm in layer '1' standardizes the weights of convolutions: expected a "
            r"torch.nn.Conv2d in Sequential, which has none; take the norm without ws\+$",
        ),
        (
            lambda: nn.Conv2d(4, 4, 1, groups=4),
            r"expected filters of 2 weights at least, those of '0' have one, which would become 0;",
        ),
    ],
)
def test_weights_that_cannot_be_standardized_are_refused(
    convolution: Callable[[], nn.Module], message: str
) -> None:
    network = nn.Sequential(convolution(), asking(standardizes_weights=True)(SITE))
    with pytest.raises(NormDoesNotFit, match=message):
        standardize_weights(network)


def test_a_norm_of_ones_own_asks_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.BatchNorm2d):
        brings_activation = True
        standardizes_weights = True

    module = ModuleType("asking_norms")
    module.__dict__["own"] = Own
    monkeypatch.setitem(sys.modules, "asking_norms", module)
    network = build_network("digits", "asking_norms:own")
    assert not any(isinstance(layer, nn.ReLU) for layer in network.modules())
    assert sum(isinstance(layer, StandardizedConv2d) for layer in network.modules()) == 3
