"""The layers that torch does not have, against closed forms in float64 and against libraries."""

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.models.layers import (
    BatchRenorm,
    EvoNormS0,
    FilterResponseNorm,
    GhostBatchNorm,
    GlobalResponseNorm,
    RMSNorm,
    StandardizedConv2d,
)
from normbench.models.norms import NormSite, norm_factory

CHANNELS = 6


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGES = 2 * numbers(5, CHANNELS, 3, 4) + 0.5


def trained(name: str) -> nn.Module:
    """Return the norm with parameters other than those that it begins with, each another one."""
    layer = norm_factory(name)(NormSite("block1.norm", CHANNELS, 3, 4))
    with torch.no_grad():
        for place, parameter in enumerate(layer.parameters()):
            parameter.add_(0.3 * numbers(*parameter.shape, seed=place))
    return layer


def of_maps(form: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[[Tensor, nn.Module], Tensor]:
    """Return a form of the features that is worked out map by map, of an image and a channel."""

    def whole(x: Tensor, layer: nn.Module) -> Tensor:
        return torch.stack(
            [
                torch.stack([form(image, image[channel], channel) for channel in range(CHANNELS)])
                for image in x
            ]
        )

    return whole


def exact(layer: nn.Module, name: str) -> list[float]:
    return [value.item() for value in layer.get_parameter(name)]


def rms(x: Tensor, layer: nn.Module) -> Tensor:
    weight, bias = exact(layer, "weight"), exact(layer, "bias")

    def form(image: Tensor, own: Tensor, channel: int) -> Tensor:
        root = math.sqrt(sum(v * v for v in image.flatten().tolist()) / image.numel() + 1e-5)
        return weight[channel] * own / root + bias[channel]

    return of_maps(form)(x, layer)


def frn(x: Tensor, layer: nn.Module) -> Tensor:
    weight, bias, threshold = (exact(layer, n) for n in ("weight", "bias", "threshold"))

    def form(_: Tensor, own: Tensor, channel: int) -> Tensor:
        root = math.sqrt(sum(v * v for v in own.flatten().tolist()) / own.numel() + 1e-6)
        return (weight[channel] * own / root + bias[channel]).clamp(min=threshold[channel])

    return of_maps(form)(x, layer)


def grn(x: Tensor, layer: nn.Module) -> Tensor:
    weight, bias = exact(layer, "weight"), exact(layer, "bias")

    def form(image: Tensor, own: Tensor, channel: int) -> Tensor:
        sizes = [math.sqrt(sum(v * v for v in each.flatten().tolist())) for each in image]
        share = sizes[channel] / (sum(sizes) / len(sizes) + 1e-6)
        return weight[channel] * own * share + bias[channel] + own

    return of_maps(form)(x, layer)


def evonorm(x: Tensor, layer: nn.Module) -> Tensor:
    weight, bias, v = (exact(layer, n) for n in ("weight", "bias", "v"))

    def form(image: Tensor, own: Tensor, channel: int) -> Tensor:
        # groups of three channels
        group = image[channel // 3 * 3 : channel // 3 * 3 + 3].flatten().tolist()
        mean = sum(group) / len(group)
        variance = sum((value - mean) ** 2 for value in group) / len(group)
        sigmoid = 1 / (1 + torch.exp(-v[channel] * own))
        return weight[channel] * own * sigmoid / math.sqrt(variance + 1e-5) + bias[channel]

    return of_maps(form)(x, layer)


def tanh(x: Tensor, layer: nn.Module) -> Tensor:
    weight, bias, (alpha,) = (exact(layer, n) for n in ("weight", "bias", "alpha"))

    def form(_: Tensor, own: Tensor, channel: int) -> Tensor:
        squashed = [math.tanh(alpha * value) for value in own.flatten().tolist()]
        return weight[channel] * torch.tensor(squashed).view_as(own) + bias[channel]

    return of_maps(form)(x, layer)


CLOSED_FORMS = {
    "rms": rms,
    "frn": frn,
    "grn": grn,
    "evonorm_s0:2": evonorm,
    "dynamic_tanh": tanh,
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_layer_without_memory_is_its_closed_form(
    name: str, layout: torch.memory_format, training: bool
) -> None:
    layer = trained(name).train(training)
    seen = layer(IMAGES.contiguous(memory_format=layout))
    expected = CLOSED_FORMS[name](IMAGES.double(), layer).float()
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*CLOSED_FORMS, "ghost:2"])
def test_gradients_are_those_of_the_finite_difference(name: str) -> None:
    layer = trained(name).double()
    x = IMAGES[:, :, :2, :2].double().contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


def test_a_map_of_zeros_has_a_gradient() -> None:
    layer = trained("grn")
    x = torch.cat([torch.zeros(1, CHANNELS, 3, 4), IMAGES[:1]]).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.fixture
def timm_layers() -> ModuleType:
    found: ModuleType = pytest.importorskip(
        "timm.layers", reason="timm is not installed: pip install 'normbench[test]'"
    )
    return found


def same_parameters(layer: nn.Module, other: nn.Module) -> None:
    with torch.no_grad():
        for own, theirs in zip(layer.parameters(), other.parameters(), strict=True):
            theirs.copy_(own)


def test_filter_response_is_timms_with_the_papers_epsilon(timm_layers: ModuleType) -> None:
    layer = trained("frn")
    assert isinstance(layer, FilterResponseNorm)
    other = timm_layers.FilterResponseNormTlu2d(CHANNELS, eps=1e-6)
    same_parameters(layer, other)
    torch.testing.assert_close(layer(IMAGES), other(IMAGES))


def test_global_response_is_timms(timm_layers: ModuleType) -> None:
    layer = trained("grn")
    assert isinstance(layer, GlobalResponseNorm)
    other = timm_layers.grn.GlobalResponseNorm(CHANNELS, channels_last=False)
    same_parameters(layer, other)
    torch.testing.assert_close(layer(IMAGES), other(IMAGES))


def test_evonorm_s0_is_timms(timm_layers: ModuleType) -> None:
    layer = trained("evonorm_s0:2")
    assert isinstance(layer, EvoNormS0)
    other = timm_layers.EvoNorm2dS0(CHANNELS, groups=2)
    same_parameters(layer, other)
    torch.testing.assert_close(layer(IMAGES), other(IMAGES))


def test_a_standardized_convolution_is_timms(timm_layers: ModuleType) -> None:
    layer = StandardizedConv2d(CHANNELS, 4, 3, padding=1, bias=False)
    other = timm_layers.StdConv2d(CHANNELS, 4, 3, eps=1e-10)
    same_parameters(layer, other)
    torch.testing.assert_close(layer(IMAGES), other(IMAGES), rtol=1e-4, atol=1e-5)


def test_rms_is_torchs_over_the_whole_image() -> None:
    layer = RMSNorm(CHANNELS)
    expected = F.rms_norm(IMAGES, [CHANNELS, 3, 4], eps=1e-5)
    torch.testing.assert_close(layer(IMAGES), expected)


def test_batch_renormalization_begins_as_batch_normalization() -> None:
    layer, batch = BatchRenorm(CHANNELS), nn.BatchNorm2d(CHANNELS)
    for step in range(100):
        features = IMAGES + step
        torch.testing.assert_close(layer(features), batch(features))


def test_after_the_warm_up_batch_renormalization_corrects_within_its_bounds() -> None:
    layer = BatchRenorm(2)
    # 450 batches: r_max = 1 + 2 * 350 / 700 = 2, d_max = 5 * 350 / 400 = 4.375
    layer.num_batches_tracked.fill_(450)
    layer.running_std.copy_(torch.tensor([1.0, 0.1]))
    layer.running_mean.copy_(torch.tensor([0.5, 0.0]))
    # mean 1 and deviation 1.5; mean 1 and deviation 1, of which r = 10 and d = 10 are cut
    features = torch.tensor([[[[-0.5, 2.5]], [[0.0, 2.0]]]])
    seen = layer(features)
    # nothing is cut: (x - 0.5) / 1
    torch.testing.assert_close(seen[0, 0], torch.tensor([[-1.0, 2.0]]), rtol=1e-4, atol=1e-4)
    expected = torch.tensor([[-1 * 2 + 4.375, 1 * 2 + 4.375]])
    torch.testing.assert_close(seen[0, 1], expected, rtol=1e-4, atol=1e-4)
    # a tenth of the way to the batch's
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.55, 0.1]))
    torch.testing.assert_close(layer.running_std, torch.tensor([1.05, 0.19]), rtol=1e-4, atol=1e-4)
    assert layer.num_batches_tracked == 451


def test_evaluation_of_batch_renormalization_goes_by_what_it_has_stored() -> None:
    layer = BatchRenorm(1).eval()
    layer.running_mean.fill_(3)
    layer.running_std.fill_(2)
    assert layer(torch.tensor([[[[7.0]]]])).item() == 2


def test_the_correction_of_batch_renormalization_is_a_constant_to_the_gradient() -> None:
    layer = BatchRenorm(1).double()
    layer.num_batches_tracked.fill_(1000)
    layer.running_std.fill_(0.5)
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).view(3, 1, 1, 1).requires_grad_()
    weights = torch.tensor([1.0, -1.0, 3.0], dtype=torch.float64)
    (layer(x).flatten() * weights).sum().backward()
    # r = s / S is cut at 3 for s = 1.247; batch normalization's gradient, times r
    deviation = math.sqrt((16 / 9 + 1 / 9 + 25 / 9) / 3 + 1e-5)
    standardized = (x.detach().flatten() - 7 / 3) / deviation
    inner = weights - weights.mean() - standardized * (weights * standardized).mean()
    assert x.grad is not None
    r = min(3.0, deviation / 0.5)
    torch.testing.assert_close(x.grad.flatten(), inner / deviation * r, rtol=1e-5, atol=1e-9)


def test_ghost_batches_are_normalized_by_themselves_and_the_last_one_by_what_is_left() -> None:
    layer = GhostBatchNorm(2, CHANNELS)
    seen = layer(IMAGES)
    mean, variance = torch.zeros(CHANNELS), torch.ones(CHANNELS)
    # five images: two, two, and one
    for first, last in ((0, 2), (2, 4), (4, 5)):
        ghost = IMAGES[first:last]
        values = ghost.transpose(0, 1).flatten(1)
        own_mean, own_variance = values.mean(1), values.var(1, correction=0)
        expected = (ghost - own_mean.view(-1, 1, 1)) / (own_variance + 1e-5).sqrt().view(-1, 1, 1)
        torch.testing.assert_close(seen[first:last], expected, rtol=1e-4, atol=1e-5)
        mean = 0.9 * mean + 0.1 * own_mean
        variance = 0.9 * variance + 0.1 * values.var(1, correction=1)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, variance)
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("images", [5, 64])
def test_a_batch_of_no_more_images_than_a_ghost_batch_is_a_batch(images: int) -> None:
    ghost, batch = GhostBatchNorm(images, CHANNELS), nn.BatchNorm2d(CHANNELS)
    torch.testing.assert_close(ghost(IMAGES), batch(IMAGES))
    torch.testing.assert_close(ghost.state_dict(), batch.state_dict())


def test_at_evaluation_ghost_batches_are_no_more() -> None:
    ghost, batch = GhostBatchNorm(2, CHANNELS), nn.BatchNorm2d(CHANNELS)
    ghost(IMAGES)
    batch.load_state_dict(ghost.state_dict())
    torch.testing.assert_close(ghost.eval()(IMAGES), batch.eval()(IMAGES))


def test_other_channels_than_it_was_built_for_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"^RMSNorm was built for 6 channels: expected features of \(N, 6, H, W\), got "
        r"\(5, 1, 3, 4\)$",
    ):
        RMSNorm(6)(IMAGES[:, :1])
