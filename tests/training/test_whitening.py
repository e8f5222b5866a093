"""Whitening: what the first convolution makes of the images that it was made from."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from normbench.models.sites import BuildNorm, Shape
from normbench.spec import RunSpec
from normbench.training.checks import check_recipe
from normbench.training.data import ImageData, load_dataset
from normbench.training.recipes import recipe_spelling
from normbench.training.trainer import Training
from normbench.training.whitening import EPS, NothingToWhiten, first_convolution, spread, whiten

CPU = torch.device("cpu")
WHITENING = recipe_spelling({"from": "digits", "whitening": True})
SPEC = RunSpec("digits", "digits", "batch", recipe=WHITENING)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("digits", Path(), CPU)


def outputs(convolution: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """Return what the convolution makes of every second patch, without its bias."""
    made = F.conv2d(images.double(), convolution.weight.double(), stride=2)
    return made.transpose(0, 1).flatten(1)


def test_the_outputs_are_uncorrelated_with_a_mean_square_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(3, 3, generator=generator)
    images = torch.einsum("dc,nchw->ndhw", mixing, torch.randn(50, 3, 16, 16, generator=generator))
    convolution = nn.Conv2d(3, 8, 3)
    whiten(convolution, images)
    made = outputs(convolution, images)
    assert torch.equal(convolution.weight[:4], -convolution.weight[4:])
    second_moments = made[:4] @ made[:4].T / made.shape[1]
    # e / (e + EPS), of eigenvalues that are far above EPS
    torch.testing.assert_close(second_moments, torch.eye(4).double(), atol=2e-3, rtol=0)


def test_the_first_kernels_are_the_directions_of_the_largest_variance(digits: ImageData) -> None:
    training = Training.begin(SPEC, digits, CPU)
    first = first_convolution(training.network, 1, 8)
    # of 1,348 images, every one of the first 1,000
    images = (digits.train_images[:1000].float() / 255 - digits.mean) / digits.std
    patches = F.unfold(images.double(), 3, stride=2).transpose(1, 2).reshape(-1, 9)
    values = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    # |v / sqrt(e + EPS)|^2 = 1 / (e + EPS): eight of nine, for 16 channels
    lengths = first.weight.detach().double().flatten(1).square().sum(1)
    torch.testing.assert_close(lengths[:8], 1 / (values[:8] + EPS), rtol=1e-4, atol=0)
    plain = Training.begin(dataclasses.replace(SPEC, recipe="digits"), digits, CPU)
    pairs = zip(training.network.parameters(), plain.network.parameters(), strict=True)
    assert [torch.equal(*pair) for pair in pairs][:3] == [False, True, True]


def in_groups(norm: BuildNorm, shape: Shape, classes: int) -> nn.Module:
    """Make a network whose first convolution takes its channels one by one."""
    first = nn.Conv2d(shape[0], 4, 3, groups=shape[0])
    return nn.Sequential(
        first, norm(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def test_a_network_without_such_a_convolution_is_refused() -> None:
    check_recipe(WHITENING, "digits", (1, 8, 8), 10)
    with pytest.raises(NothingToWhiten, match=r"takes the 2 channels of images of 8 pixels a side"):
        check_recipe(WHITENING, f"{__name__}:in_groups", (2, 8, 8), 10)


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(3, 3),
        nn.Conv2d(3, 1, 3),
        nn.Conv2d(3, 4, 5, dilation=2, padding=4),
        weight_norm(nn.Conv2d(3, 4, 3)),
    ],
    ids=["none", "one channel", "larger than the images", "a computed weight"],
)
def test_what_cannot_be_whitened_is_refused(network: nn.Module) -> None:
    with pytest.raises(NothingToWhiten, match="leave it out of the recipe"):
        first_convolution(network, 3, 8)


def test_patches_are_those_that_the_convolution_sees() -> None:
    # each pixel is like its neighbour and unlike the one after that
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(50, 1, 8, 8, generator=generator).repeat_interleave(2, dim=3)
    convolution = nn.Conv2d(1, 2, (1, 3), dilation=(1, 2))
    whiten(convolution, images)
    made = F.conv2d(images, convolution.weight, dilation=(1, 2), stride=2)
    assert made[:, 0].square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_images_are_taken_from_all_over() -> None:
    assert spread(torch.arange(3500.0)).tolist() == list(range(0, 3000, 3))
    assert spread(torch.arange(7.0)).tolist() == list(range(7))
