"""What is to be predicted of each patch, always of the image as it enters the model, reduced ones included."""

from typing import Literal

import torch
from torch import Tensor

from upchirp.training.methods.hog import ORIENTATIONS, cell_of, hog

Target = Literal["hog", "pixels"]

_EPSILON = 1e-6


def target_width(target: Target, patch: int) -> int:
    """Numbers that are predicted of a patch.

    >>> target_width("pixels", 16), target_width("hog", 16), target_width("hog", 8)
    (768, 108, 27)
    """
    if target == "pixels":
        return 3 * patch * patch
    return 3 * ORIENTATIONS * (patch // cell_of(patch)) ** 2


@torch.no_grad()
def patch_targets(images: Tensor, target: Target, patch: int) -> Tensor:
    """The numbers to be predicted of each patch: (N, patches, `target_width`), float32.

    Args:
        images: normalised, (N, 3, B, B).
        target: `pixels` are each patch's own, normalised by its mean and deviation (MAE); `hog` its histograms of
            gradients (MaskFeat).
        patch: its side, pixels.
    """
    if target == "pixels":
        values = in_patches(images.float(), images.shape[-1] // patch)
        spread = values.var(dim=-1, keepdim=True)
        return (values - values.mean(dim=-1, keepdim=True)) / (spread + _EPSILON).sqrt()
    histograms = hog(images, cell_of(patch))
    return in_patches(histograms.flatten(1, 2), images.shape[-1] // patch)


def in_patches(maps: Tensor, grid: int) -> Tensor:
    """Maps (N, C, S, S) cut into grid x grid patches, row by row: (N, grid * grid, values), channels last in each.

    >>> in_patches(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, 1]
    tensor([2., 3., 6., 7.])
    """
    count, channels, side, _ = maps.shape
    cut = maps.reshape(count, channels, grid, side // grid, grid, side // grid)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def out_of_patches(patches: Tensor, channels: int) -> Tensor:
    """The inverse of `in_patches`: (N, patches, values) to (N, C, S, S)."""
    count, number, values = patches.shape
    grid, side = round(number**0.5), round((values // channels) ** 0.5)
    cut = patches.reshape(count, grid, grid, side, side, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(count, channels, grid * side, grid * side)
