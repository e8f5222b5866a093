"""Image preparation in batches, on the run's own device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from normbench.recipes import Augmentation


def affine_matrices(
    count: int, augmentation: Augmentation, image_size: int, generator: torch.Generator
) -> Tensor:
    """Draw ``count`` random affine maps, of shape ``(count, 2, 3)``, as affine_grid takes them."""
    rotation, scale_x, scale_y, shear, shift_x, shift_y = (
        torch.rand(6, count, generator=generator, device=generator.device) * 2 - 1
    )
    angle = rotation * math.radians(augmentation.rotation)
    cos, sin = angle.cos(), angle.sin()
    wide, high = 1 + scale_x * augmentation.scale, 1 + scale_y * augmentation.scale
    # affine_grid measures in halves of the image's side
    pixels = 2 * augmentation.shift / image_size
    rows = (
        torch.stack([wide * cos, wide * (shear * augmentation.shear - sin), shift_x * pixels], 1),
        torch.stack([high * sin, high * cos, shift_y * pixels], 1),
    )
    return torch.stack(rows, 1)


def center_crop(images: Tensor, size: int) -> Tensor:
    """Return the middle ``size`` x ``size`` pixels of square images."""
    margin = (images.shape[-1] - size) // 2
    return images[..., margin : margin + size, margin : margin + size]


def random_affine(
    images: Tensor, augmentation: Augmentation, size: int, generator: torch.Generator
) -> Tensor:
    """Map each of the float images ``(N, C, H, H)`` differently; return the middle ``(N, C, size, size)``.

    Pixels from outside the image are 0, the background. Only the pixels that are kept are computed.
    """
    if augmentation == Augmentation():
        return center_crop(images, size)
    matrices = affine_matrices(len(images), augmentation, images.shape[-1], generator)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    margin = (images.shape[-1] - size) // 2
    grid = grid[:, margin : margin + size, margin : margin + size]
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def normalize_(images: Tensor, mean: float, std: float) -> Tensor:
    """Bring pixels from 0 to 255 to mean 0 and standard deviation 1, in place."""
    return images.mul_(1 / (255 * std)).sub_(mean / std)
