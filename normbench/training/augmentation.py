"""Image preparation in batches, on the run's own device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from normbench.training.recipes import Augmentation


def sampling_grid(
    count: int, augmentation: Augmentation, image_size: int, size: int, generator: torch.Generator
) -> Tensor:
    """Draw ``count`` random affine maps; return where they read: ``(count, size, size, 2)``.

    The positions are grid_sample's, from -1 to 1 over the image of ``image_size`` pixels, for the
    middle ``size`` x ``size`` pixels. Equal to affine_grid with align_corners=False, whose matrix
    product of three columns by two is slow on the CPU.
    """
    device = generator.device
    rotation, scale_x, scale_y, shear, shift_x, shift_y = (
        torch.rand(6, count, 1, 1, generator=generator, device=device) * 2 - 1
    )
    angle = rotation * math.radians(augmentation.rotation)
    cos, sin = angle.cos(), angle.sin()
    wide, high = 1 + scale_x * augmentation.scale, 1 + scale_y * augmentation.scale
    pixels = 2 * augmentation.shift / image_size
    centers = (torch.arange(size, device=device) + 0.5 - size / 2) * 2 / image_size
    x, y = centers.view(1, 1, size), centers.view(1, size, 1)
    grid = torch.empty(count, size, size, 2, device=device)
    torch.add(
        wide * cos * x + shift_x * pixels,
        wide * (shear * augmentation.shear - sin) * y,
        out=grid[..., 0],
    )
    torch.add(high * sin * x + shift_y * pixels, high * cos * y, out=grid[..., 1])
    return grid


def center_crop(images: Tensor, size: int) -> Tensor:
    """Return the middle ``size`` x ``size`` pixels of square images."""
    margin = (images.shape[-1] - size) // 2
    return images[..., margin : margin + size, margin : margin + size]


def random_affine(
    images: Tensor, augmentation: Augmentation, size: int, generator: torch.Generator
) -> Tensor:
    """Map each float image of ``(N, C, H, H)`` differently; return the middle ``size`` x ``size``.

    Pixels from outside the image are 0, the background. Only what is kept is computed.
    """
    if not augmentation.affine:
        return center_crop(images, size).contiguous()
    grid = sampling_grid(len(images), augmentation, images.shape[-1], size, generator)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def random_crop(images: Tensor, border: int, generator: torch.Generator) -> Tensor:
    """Move each image of ``(N, C, H, W)`` by up to ``border`` whole pixels, both ways.

    What moves in from outside is the image's mirrored border.
    """
    count, _, height, width = images.shape
    bordered = F.pad(images, (border,) * 4, mode="reflect")
    windows = bordered.unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(
        2 * border + 1, (2, count), generator=generator, device=generator.device
    )
    return windows[torch.arange(count, device=images.device), :, top, left]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of ``(N, C, H, W)`` left to right with probability one half."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    return torch.where(drawn < 0.5, images.flip(3), images)


def augment(
    images: Tensor, augmentation: Augmentation, size: int, generator: torch.Generator
) -> Tensor:
    """Change each float image of ``(N, C, H, H)`` at random; return ``(N, C, size, size)``."""
    images = random_affine(images, augmentation, size, generator)
    if augmentation.crop:
        images = random_crop(images, augmentation.crop, generator)
    if augmentation.flip:
        images = random_flip(images, generator)
    return images


def normalize_(images: Tensor, mean: float, std: float) -> Tensor:
    """Bring pixels from 0 to 255 to mean 0 and standard deviation 1, in place."""
    return images.mul_(1 / (255 * std)).sub_(mean / std)
