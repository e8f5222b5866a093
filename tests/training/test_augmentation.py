"""Augmentation: against torch's own affine_grid, and against hand-made shifts."""

import math

import pytest
import torch
import torch.nn.functional as F

from normbench.training.augmentation import (
    augment,
    center_crop,
    normalize_,
    random_affine,
    random_crop,
    random_flip,
    sampling_grid,
)
from normbench.training.recipes import Augmentation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_grid_of_no_change_is_that_of_affine_grid() -> None:
    grid = sampling_grid(2, Augmentation(), 8, 8, generator())
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    torch.testing.assert_close(grid, F.affine_grid(identity, [2, 1, 8, 8], align_corners=False))


def test_the_grid_equals_affine_grid_of_the_matrices_that_were_drawn() -> None:
    augmentation = Augmentation(rotation=10, shift=2, scale=0.1, shear=0.1)
    grid = sampling_grid(3, augmentation, 28, 24, generator())
    rotation, scale_x, scale_y, shear, shift_x, shift_y = (
        torch.rand(6, 3, 1, 1, generator=generator()).view(6, 3) * 2 - 1
    )
    angle = rotation * math.pi / 18
    matrices = torch.zeros(3, 2, 3)
    matrices[:, 0, 0] = (1 + scale_x * 0.1) * angle.cos()
    matrices[:, 0, 1] = (1 + scale_x * 0.1) * (shear * 0.1 - angle.sin())
    matrices[:, 1, 0] = (1 + scale_y * 0.1) * angle.sin()
    matrices[:, 1, 1] = (1 + scale_y * 0.1) * angle.cos()
    matrices[:, :, 2] = torch.stack([shift_x, shift_y], 1) * 2 * 2 / 28
    expected = F.affine_grid(matrices, [3, 1, 28, 28], align_corners=False)[:, 2:26, 2:26]
    torch.testing.assert_close(grid, expected)


def test_without_augmentation_an_image_is_cropped_in_the_middle() -> None:
    image = torch.arange(36.0).view(1, 1, 6, 6)
    cropped = random_affine(image, Augmentation(), 4, generator())
    assert cropped.flatten().tolist() == [
        7,
        8,
        9,
        10,
        13,
        14,
        15,
        16,
        19,
        20,
        21,
        22,
        25,
        26,
        27,
        28,
    ]
    assert torch.equal(center_crop(image, 4), cropped)


def test_a_shift_moves_a_point_by_at_most_so_many_pixels() -> None:
    images = torch.zeros(500, 1, 28, 28)
    images[:, :, 14, 14] = 1.0
    moved = random_affine(images, Augmentation(shift=2), 28, generator())
    mass = moved.sum((2, 3)).flatten()
    torch.testing.assert_close(mass, torch.ones(500), rtol=0, atol=1e-4)
    columns = (moved.sum((1, 2)) * torch.arange(28)).sum(1) - 14
    assert columns.abs().max() <= 2.001
    assert columns.std() == pytest.approx(2 / math.sqrt(3), rel=0.1)


def test_each_image_is_changed_differently_and_equal_seeds_change_alike() -> None:
    images = torch.rand(1, 1, 28, 28, generator=generator(1)).expand(4, 1, 28, 28)
    augmentation = Augmentation(rotation=10)
    first = random_affine(images, augmentation, 24, generator())
    again = random_affine(images, augmentation, 24, generator())
    assert torch.equal(first, again)
    assert not torch.allclose(first[0], first[1])


def test_normalizing_brings_mean_and_deviation_to_0_and_1() -> None:
    pixels = torch.tensor([0.0, 255.0, 51.0])
    assert normalize_(pixels, mean=0.2, std=0.4).tolist() == pytest.approx(
        [-0.5, 2.0, 0.0], abs=1e-6
    )


def test_a_random_crop_moves_whole_pixels_and_mirrors_the_border() -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5)
    mirrored = F.pad(image, (2,) * 4, mode="reflect")
    moves = {
        (top, left): mirrored[0, 0, top : top + 5, left : left + 5]
        for top in range(5)
        for left in range(5)
    }
    cropped = random_crop(image.expand(500, 1, 5, 5), 2, generator())
    seen = [
        next(move for move, expected in moves.items() if torch.equal(got, expected))
        for got in cropped[:, 0]
    ]
    # each of the 25 moves, each about 20 times
    assert set(seen) == set(moves)
    assert max(seen.count(move) for move in moves) < 45


def test_a_random_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    images = torch.arange(12.0).view(1, 3, 2, 2).expand(1000, 3, 2, 2)
    flipped = random_flip(images, generator())
    mirrored = [torch.equal(image, images[0].flip(2)) for image in flipped]
    kept = [torch.equal(image, images[0]) for image in flipped]
    assert [a != b for a, b in zip(mirrored, kept, strict=True)] == [True] * 1000
    # a fair coin's standard deviation is 16
    assert 430 < sum(mirrored) < 570


def test_augmentation_takes_an_affine_map_a_crop_and_a_flip_in_turn() -> None:
    images = torch.rand(4, 3, 8, 8)
    every = Augmentation(rotation=10, crop=1, flip=True)
    drawn = generator()
    expected = random_flip(random_crop(random_affine(images, every, 8, drawn), 1, drawn), drawn)
    assert torch.equal(augment(images, every, 8, generator()), expected)
    assert torch.equal(augment(images, Augmentation(), 6, generator()), images[..., 1:7, 1:7])
