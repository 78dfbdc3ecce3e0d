"""What a masked autoencoder is shown and makes of it, as pictures for the report."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from upchirp.training.methods.hog import ORIENTATIONS, cell_of
from upchirp.training.methods.masked_autoencoder import Predicted
from upchirp.training.methods.targets import Target, in_patches, out_of_patches, patch_targets

_GREY = 0.5
_BRIGHTNESS = 2.0


def pictures_of(
    images: Tensor, predicted: Predicted, target: Target, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Tensor]:
    """Pictures of normalised images (N, 3, B, B) by what they show, of the same shape, on the host, from 0 to 1."""
    images, predicted = images.float().cpu(), Predicted(*(each.float().cpu() for each in predicted))
    hidden = predicted.hidden[..., None]
    grid = math.isqrt(hidden.shape[1])
    patch = images.shape[-1] // grid
    centre, width = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    seen = in_patches(images * width + centre, grid)
    shown = {"what it saw": out_of_patches(torch.where(hidden > 0, _GREY, seen), 3)}
    if target == "pixels":
        whole = in_patches(images, grid)
        # Only differences inside a patch are predicted; their scale is lent by the patch.
        pixels = predicted.patches * whole.std(dim=-1, keepdim=True) + whole.mean(dim=-1, keepdim=True)
        filled = out_of_patches(torch.where(hidden > 0, pixels, whole), 3) * width + centre
        shown["what it took the rest for"] = filled
    else:
        asked = patch_targets(images, target, patch)
        filled = torch.where(hidden > 0, predicted.patches, asked)
        shown["what was asked"] = strokes(asked, patch)
        shown["what it took the rest for"] = strokes(filled, patch)
    return {name: picture.clamp(0, 1) for name, picture in shown.items()}


def strokes(patches: Tensor, patch: int) -> Tensor:
    """Histograms of gradients, as `patch_targets` gives them, as strokes along the edges they tell of: (N, 3, B, B)."""
    cell = cell_of(patch)
    bins = 3 * ORIENTATIONS
    maps = out_of_patches(patches, bins)
    mean = maps.view(len(maps), 3, ORIENTATIONS, *maps.shape[2:]).mean(dim=1)
    drawn = torch.einsum("nkhw,kyx->nhywx", mean.clamp(min=0), _strokes(cell))
    picture = drawn.flatten(1, 2).flatten(2, 3)[:, None]
    return (_BRIGHTNESS * picture).expand(-1, 3, -1, -1)


def _strokes(cell: int) -> Tensor:
    """A line across a cell for each orientation, at right angles to the gradient: (9, cell, cell)."""
    places = torch.arange(cell) - (cell - 1) / 2
    turns = (torch.arange(ORIENTATIONS) + 0.5) * math.pi / ORIENTATIONS
    along = places[None, None] * turns.cos()[:, None, None] + places[None, :, None] * turns.sin()[:, None, None]
    return (1 - along.abs()).clamp(min=0)
