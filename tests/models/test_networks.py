"""The networks: their sizes, their shapes, and what is found wrong before they are trained."""

import pytest
import torch
from torch import nn

from normbench.models.networks import NETWORKS, build_network, check_network, count_parameters
from normbench.models.norms import NormDoesNotFit, NormSite, norm_factory
from normbench.models.preactivation import PreactivationNet
from normbench.models.stacks import Block, CifarBestNet, CifarNet, DigitsNet, MnistNet, Stage

PER_CHANNEL = ["none", "batch", "layer", "group:2", "group:4", "instance"]


def gradient_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("norm", [*PER_CHANNEL, "group:8", "frn", "dynamic_tanh"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_stays_within_its_parameter_limit(network: str, norm: str) -> None:
    limit = 15_000 if network in ("digits", "mnist") else 49_999
    assert NETWORKS[network].parameter_limit == limit
    assert count_parameters(build_network(network, norm)) <= limit


def test_mnist_net_has_the_parameters_that_its_stages_add_up_to() -> None:
    convolutions = 1 * 16 * 25 + 3 * 16 * 16 * 9 + 16 * 24 * 9 + 24 * 16 * 9
    channels = 5 * 16 + 24
    linear = 16 * 10 + 10
    assert count_parameters(build_network("mnist", "batch")) == convolutions + 2 * channels + linear
    # without a norm, a bias stands for the norm's affine part
    assert count_parameters(build_network("mnist", "none")) == convolutions + channels + linear


def test_cifar_net_has_two_residual_connections_and_the_parameters_of_its_stages() -> None:
    network = build_network("cifar10", "group:4")
    assert sum(isinstance(block, Block) and block.residual for block in network.modules()) == 2
    convolutions = 9 * (3 * 24 + 24 * 24 + 24 * 32 + 32 * 32 + 32 * 48 + 48 * 56 // 2)
    channels = 2 * 24 + 2 * 32 + 48 + 56
    assert count_parameters(network) == convolutions + 2 * channels + 56 * 10 + 10


def test_layer_chw_has_a_scale_and_a_shift_for_each_element() -> None:
    elements = 3 * 16 * 12 * 12 + 16 * 6 * 6 + 24 * 3 * 3 + 16 * 3 * 3
    batch = count_parameters(build_network("mnist", "batch"))
    assert count_parameters(build_network("mnist", "layer_chw")) == batch + 2 * (elements - 104)


@pytest.mark.parametrize("norm", [*PER_CHANNEL, "layer_chw"])
@pytest.mark.parametrize("network", NETWORKS)
def test_images_become_logits_in_either_memory_format(network: str, norm: str) -> None:
    model = build_network(network, norm).eval()
    images = torch.randn(3, *NETWORKS[network].made_for())
    logits = model(images)
    assert logits.shape == (3, 10)
    again = model.to(memory_format=torch.channels_last)(images)
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("norm", [*PER_CHANNEL, "layer_chw"])
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_the_same_in_either_memory_format(
    network: str, norm: str, count: int
) -> None:
    model = build_network(network, norm).double().train()
    images = torch.randn(count, *NETWORKS[network].made_for(), dtype=torch.float64)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model.zero_grad()
        model.to(memory_format=layout)(images).square().sum().backward()
        gradients.append([gradient_of(p).clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("channels", "size", "networks"),
    [
        (1, 8, ["digits"]),
        (1, 28, ["digits", "mnist", "preact"]),
        (3, 32, ["cifar10", "cifar10-best", "preact"]),
        (3, 15, []),
    ],
)
def test_a_network_takes_images_of_its_channels_and_at_least_its_size(
    channels: int, size: int, networks: list[str]
) -> None:
    taking = [name for name, network in NETWORKS.items() if network.takes(channels, size)]
    assert taking == networks


def test_dropout_stands_in_every_block_and_only_where_it_is_asked_for() -> None:
    with_dropout = build_network("mnist", "batch", dropout=0.03)
    layers = [m for m in with_dropout.modules() if isinstance(m, nn.Dropout)]
    assert [layer.p for layer in layers] == [0.03] * 6
    without = build_network("mnist", "batch")
    assert not any(isinstance(m, nn.Dropout) for m in without.modules())


def test_a_group_count_that_does_not_divide_is_refused_naming_the_block() -> None:
    with pytest.raises(NormDoesNotFit, match=r"layer 'blocks.block1.norm': its 16 channels"):
        check_network("mnist", "group:3")
    with pytest.raises(NormDoesNotFit, match=r"layer 'blocks.block5.norm': its 24 channels"):
        check_network("mnist", "group:16")


def test_a_norm_that_cannot_take_the_features_is_refused() -> None:
    told = (
        r"torch.nn:BatchNorm1d cannot take the features of layer 'blocks.block1.norm', float32 of "
    )
    with pytest.raises(NormDoesNotFit, match=told):
        check_network("digits", "torch.nn:BatchNorm1d")


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown network 'resnet': expected one of digits, mnist, cifar10, cifar10-best, ",
    ):
        build_network("resnet", "batch")


def test_checking_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(7)
    check_network("digits", "batch")
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))


def test_the_networks_know_their_names() -> None:
    assert NETWORKS == {
        "digits": DigitsNet,
        "mnist": MnistNet,
        "cifar10": CifarNet,
        "cifar10-best": CifarBestNet,
        "preact": PreactivationNet,
    }


def block(stage: Stage, channels: int = 8, norm: str = "batch") -> Block:
    size = stage.output_size(6)

    def build(channels: int) -> nn.Module:
        return norm_factory(norm)(NormSite("b", channels, size, size))

    return Block(stage, channels, build, nn.ReLU, dropout=0)


def convolution_of(block: Block) -> nn.Conv2d:
    convolution = block.get_submodule("convolution")
    assert isinstance(convolution, nn.Conv2d)
    return convolution


@pytest.mark.parametrize(
    ("stage", "size"),
    [
        (Stage(8), 6),
        (Stage(8, pool=2), 3),
        (Stage(8, kernel=5, stride=2), 3),
        (Stage(8, kernel=4, stride=2), 3),
        (Stage(8, kernel=4), 5),
        (Stage(8, kernel=1, stride=4), 2),
    ],
)
def test_a_stage_knows_the_size_of_its_output(stage: Stage, size: int) -> None:
    assert stage.output_size(6) == size
    assert block(stage)(torch.randn(2, 8, 6, 6)).shape == (2, 8, size, size)


def test_a_residual_block_adds_its_input_to_its_output() -> None:
    torch.manual_seed(0)
    residual = block(Stage(8, residual=True, groups=2))
    plain = block(Stage(8, groups=2))
    plain.load_state_dict(residual.state_dict())
    features = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(residual(features), features + plain(features))
    assert convolution_of(plain).weight.shape == (8, 4, 3, 3)


def test_a_block_without_a_norm_begins_at_hes_scale() -> None:
    torch.manual_seed(0)
    convolution = convolution_of(block(Stage(256), channels=64, norm="none"))
    assert convolution.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)
    assert convolution.bias is not None
    assert not convolution.bias.any()
    # torch's own begin, uniform up to 1 / sqrt(fan_in), is left to the others
    bound = convolution_of(block(Stage(256), channels=64)).weight.abs().max().item()
    assert bound == pytest.approx((1 / (64 * 9)) ** 0.5, rel=0.01)
