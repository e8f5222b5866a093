"""A network of a user's own: how it is called, and what is found wrong before it is trained."""

from typing import Any

import pytest
import torch
from torch import nn

from normbench.models.networks import (
    UnknownNetwork,
    build_network,
    check_network,
    count_parameters,
    find_network,
    network_definition,
    seen_shape,
)
from normbench.models.norms import NormDoesNotFit
from normbench.models.sites import NetworkDoesNotFit, norm_layers

from . import own_networks

MODULE = own_networks.__name__
DIGITS = (1, 8, 8)


def named(network: str) -> str:
    return f"{MODULE}:{network}"


def built(network: str, norm: str = "batch", **settings: Any) -> nn.Module:
    return build_network(named(network), norm, shape=DIGITS, **settings)


def test_it_is_called_with_the_norm_the_shape_and_the_classes() -> None:
    network = built("TinyResNet", classes=7)
    assert network(torch.randn(3, *DIGITS)).shape == (3, 7)
    # two convolutions with biases, scale and shift of two norms, and the classifier
    assert count_parameters(network) == 8 * 9 + 8 + 8 * 8 * 9 + 8 + 2 * 2 * 8 + 8 * 7 + 7


@pytest.mark.parametrize("norm", ["none", "batch", "layer_chw", "group:4", "instance", "rms"])
def test_any_norm_stands_in_it_though_it_says_nothing_of_the_features_size(norm: str) -> None:
    check_network(named("TinyResNet"), norm, shape=DIGITS)
    layers = norm_layers(built("TinyResNet", norm))
    assert list(layers) == ["first", "inner.1"]
    if norm == "layer_chw":
        # the stem's stride of 2 halves 8 x 8 pixels
        assert [layer.get_parameter("weight").shape for layer in layers.values()] == [(4, 4, 8)] * 2


def test_it_is_given_the_whole_images_or_their_middle() -> None:
    assert seen_shape(named("TinyResNet"), (3, 32, 32)) == (3, 32, 32)
    assert seen_shape(named("Cropped"), DIGITS) == (1, 6, 6)
    layer = norm_layers(built("Cropped", "layer_chw"))["first"]
    assert layer.get_parameter("weight").shape == (3, 3, 8)


def test_its_weights_are_drawn_as_if_it_were_built_once() -> None:
    torch.manual_seed(1)
    network = built("TinyResNet")
    torch.manual_seed(1)
    once = own_networks.TinyResNet(nn.BatchNorm2d, DIGITS, 10)
    for (name, seen), expected in zip(network.named_parameters(), once.parameters(), strict=True):
        assert torch.equal(seen, expected), name


def test_it_has_dropout_if_it_takes_it() -> None:
    dropout = built("Dropping", dropout=0.25).get_submodule("classifier.0")
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.25
    with pytest.raises(
        NetworkDoesNotFit,
        match=r"^dropout = 0.25: .*:TinyResNet has no parameter dropout; leave the key out, or ",
    ):
        built("TinyResNet", dropout=0.25)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (named("Missing"), r"^unknown network '.*:Missing': module .* has no attribute 'Missing'"),
        ("nowhere:Net", r"^unknown network 'nowhere:Net': No module named 'nowhere'; expected pac"),
        (
            named("number"),
            r"^network '.*:number' is a int: expected something to call as facto",
        ),
    ],
)
def test_a_name_that_leads_to_no_network_is_refused(network: str, message: str) -> None:
    with pytest.raises(UnknownNetwork, match=message):
        find_network(network)


WRONG = {
    "Sized": (
        r"^network '.*:Sized' cannot be called as factory\(norm, shape=\.\.\., classes=\.\.\.\)"
        r": .*; expected a class or function such as `def network\(norm, shape, classes\): \.\.\.`"
    ),
    "Raising": r"could not be built for images of 1 x 8 x 8: RuntimeError: no such thing; expected",
    "text": r":text returned a str: expected a class or function that returns a torch.nn.Module$",
    "Wide": r":Wide has image_size = 24: expected a whole number of pixels from 1 to 8, as the im",
    "FewClasses": r"returned float32 of shape \(2, 3\) for 2 images of 1 x 8 x 8: expected float32 "
    r"of shape \(2, 10\), a logit for each class$",
    "Evaluated": r"returned float32 of shape \(1, 10\) for 2 images of 1 x 8 x 8: expected float32",
    "Flat": r"returned float32 of shape \(20,\) for 2 images",
    "Listed": r"returned a list for 2 images of 1 x 8 x 8: expected float32",
    "Double": r"returned float64 of shape \(2, 10\) for 2 images",
    "NotANumber": r"returned logits that are not finite as it begins: expected finite ones;",
    "Detached": r"cannot be differentiated: RuntimeError: .*; expected logits that autograd traces",
    "InfiniteGradient": r"has a gradient of '.*' that is not finite as it begins: expected finite",
    "Untrained": r":Untrained has no parameters that are trained: expected some",
    "InDouble": r":InDouble has a parameter 'scale' of float64: expected float32, as the network",
    "Lazy": r":Lazy makes its parameter 'classifier.weight' in its first forward pass: expected it "
    r"as soon as the network is built",
    "MadeInForward": r":MadeInForward makes its parameter 'scale' in its first forward pass",
    "WithoutNorm": r":WithoutNorm never calls norm\(channels\), so that it is the same with group:",
    "Unused": r"the norm layer 'second' of .*:Unused takes no part in the forward pass: expected ",
    "Hidden": r":Hidden keeps norm layer 3, of 8 channels, outside of its modules: expected it as ",
    "WrongChannels": r"the norm layer 'first' of .*:WrongChannels, built by norm\(16\), is given "
    r"features of shape \(2, 8, 4, 4\): expected \(images, 16, height, width\)$",
    "OfVectors": r"'classifier.0' of .*, built by norm\(8\), is given features of shape \(2, 8\): ",
    "Shared": r"the norm layer 'first' of .*:Shared is given features of shape \(2, 8, 4, 4\), and "
    r"of \(2, 8, 2, 2\) elsewhere: expected one place a layer; call norm once for each of them$",
    "InText": r":InText calls norm\('8'\): expected the number of channels of the features, a wh",
    "Viewing": r"cannot take images of 1 x 8 x 8: RuntimeError: .*; it takes them in the plain memo"
    r"ry order, but networks run in channels_last: use flatten or reshape in place of view$",
    "Fickle": r":Fickle asks for other norm layers when it is built again: expected the same calls",
}


@pytest.mark.parametrize("network", WRONG)
def test_a_network_that_cannot_be_trained_is_refused_in_one_line(network: str) -> None:
    with pytest.raises(NetworkDoesNotFit, match=WRONG[network]) as refused:
        check_network(named(network), "group:4", shape=DIGITS)
    assert "\n" not in str(refused.value)
    assert MODULE in str(refused.value)


def test_without_a_norm_a_network_need_not_use_it() -> None:
    check_network(named("WithoutNorm"), "none", shape=DIGITS)


def test_a_norm_that_does_not_fit_is_told_with_the_layer() -> None:
    with pytest.raises(NormDoesNotFit, match=r"^group:3 does not fit layer 'first': its 8 chan"):
        check_network(named("TinyResNet"), "group:3", shape=DIGITS)


def test_checking_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(7)
    check_network(named("TinyResNet"), "batch", shape=DIGITS)
    network_definition(named("TinyResNet"), DIGITS)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))


def test_a_definition_is_of_the_content_and_not_of_the_name() -> None:
    tiny = network_definition(named("TinyResNet"), DIGITS)
    # without a norm: the parameters of two convolutions and the classifier
    assert [shape for _, shape in tiny["tensors"]] == [
        *([8, 1, 3, 3], [8], [8, 8, 3, 3], [8]),
        *([10, 8], [10]),
    ]
    wider = network_definition(named("TinyResNet"), DIGITS, classes=12)
    dropping = network_definition(named("Dropping"), DIGITS)
    assert tiny != wider
    assert tiny != dropping
    assert network_definition("preact", (1, 28, 28)) != network_definition("preact", (3, 32, 32))


@pytest.mark.parametrize(("shape", "stem"), [((1, 28, 28), 1 * 16 * 9), ((3, 32, 32), 3 * 16 * 9)])
def test_the_pre_activation_network_has_the_parameters_that_its_units_add_up_to(
    shape: tuple[int, int, int], stem: int
) -> None:
    network = build_network("preact", "batch", shape=shape)
    units = [(16, 16), (16, 32), (32, 40)]
    convolutions = sum(9 * i * o + 9 * o * o + (i * o if i != o else 0) for i, o in units)
    norms = 2 * (sum(i + o for i, o in units) + 40)
    assert count_parameters(network) == stem + convolutions + norms + 40 * 10 + 10
    assert network(torch.randn(2, *shape)).shape == (2, 10)
    # norms stand before the convolutions, and at the end
    assert list(norm_layers(network)) == [
        *(f"units.unit{n}.norm{m}" for n in (1, 2, 3) for m in (1, 2)),
        "norm",
    ]


def test_a_pre_activation_unit_is_its_formula() -> None:
    torch.manual_seed(0)
    network = build_network("preact", "batch", shape=(1, 28, 28)).eval()
    unit = network.get_submodule("units.unit2")
    features = torch.randn(2, 16, 6, 6)

    def layer(name: str, given: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = unit.get_submodule(name)(given)
        return output

    def silu(given: torch.Tensor) -> torch.Tensor:
        return given / (1 + (-given).exp())

    begun = silu(layer("norm1", features))
    inner = layer("convolution2", silu(layer("norm2", layer("convolution1", begun))))
    torch.testing.assert_close(unit(features), layer("shortcut", begun) + inner)
    # where the shape stays, what comes in is handed on as it is
    first = network.get_submodule("units.unit1")
    nn.init.zeros_(first.get_parameter("convolution2.weight"))
    assert torch.equal(first(features), features)


def test_without_a_norm_the_pre_activation_network_keeps_the_scale_of_its_features() -> None:
    torch.manual_seed(0)
    network = build_network("preact", "none", shape=(3, 32, 32)).eval()
    # He's scale, and the branch's end over the root of the three units
    for name, divided in (("convolution1", 1), ("convolution2", 3)):
        weight = network.get_parameter(f"units.unit3.{name}.weight")
        fan_in = weight[0].numel()
        assert weight.var().item() == pytest.approx(2 / fan_in / divided, rel=0.05)
    assert network(torch.randn(64, 3, 32, 32)).std().item() < 2
    torch.manual_seed(0)
    normalized = build_network("preact", "batch", shape=(3, 32, 32))
    assert normalized.get_submodule("stem").bias is None
    weight = normalized.get_parameter("units.unit3.convolution2.weight")
    assert weight.var().item() == pytest.approx(2 / weight[0].numel(), rel=0.05)
