"""Histograms of oriented gradients on the device (Dalal and Triggs, 2005), as MaskFeat predicts them."""

import math

import torch
from torch import Tensor
from torch.nn import functional

ORIENTATIONS = 9
"""Bins of half a turn."""
_LARGEST_CELL = 8
_EPSILON = 1e-5


def cell_of(patch: int) -> int:
    """The side of a cell in patches of a side, pixels: 8 where it divides them, else the largest divisor below.

    >>> [cell_of(patch) for patch in (4, 8, 14, 16, 32)]
    [4, 8, 7, 8, 8]
    """
    return next(cell for cell in range(_LARGEST_CELL, 0, -1) if patch % cell == 0)


def hog(images: Tensor, cell: int) -> Tensor:
    """The histograms of the cells of each channel, of length 1 each, or 0 where nothing changes.

    A pixel's gradient is the difference of its neighbours, the image reflected at its rim; its length goes to the bin
    of its direction. It is scikit-image's `hog` of every channel for itself, with blocks of one cell. Computed in
    float32; no operation's order depends on the device's threads, so the same images give the same bits.

    Args:
        images: (N, C, H, W), in any units.
        cell: its side, pixels; it divides H and W.

    Returns:
        float32, (N, C, 9, H / cell, W / cell).

    >>> ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    >>> hog(ramp, 8).flatten()
    tensor([1., 0., 0., 0., 0., 0., 0., 0., 0.])
    """
    padded = functional.pad(images.float(), (1, 1, 1, 1), mode="reflect")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    length = torch.sqrt(across * across + down * down)
    turn = torch.remainder(torch.atan2(down, across), math.pi) * (ORIENTATIONS / math.pi)
    bins = turn.floor().clamp(max=ORIENTATIONS - 1)
    # One by one: all at once would take nine times the images' memory, and adding at indices no fixed order.
    cells = [functional.avg_pool2d(torch.where(bins == each, length, 0.0), cell) for each in range(ORIENTATIONS)]
    histograms = torch.stack(cells, dim=2)
    return histograms / torch.sqrt(histograms.square().sum(dim=2, keepdim=True) + _EPSILON**2)
