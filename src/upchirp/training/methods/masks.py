"""Which patches of an image are hidden: drawn from a seed, and where the others lie."""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_STRIDE = 0x9E3779B9


def patch_order(seeds: Tensor, patches: int) -> Tensor:
    """A random order of the patches of each image, that of its seed alone: (N, patches), int64, on the seeds' device.

    Whatever shares a batch with an image changes nothing, nor do ranks, micro-batches, the device and compiling. There
    is one seed for each image: int64, (N,).

    >>> order = patch_order(torch.tensor([1, 2]), 4)
    >>> order.tolist(), patch_order(torch.tensor([2]), 4).tolist()
    ([[0, 1, 2, 3], [0, 3, 2, 1]], [[0, 3, 2, 1]])
    """
    places = torch.arange(1, patches + 1, device=seeds.device, dtype=torch.int64)
    low, high = seeds & _WORD, (seeds >> 32) & _WORD
    keys = _mixed(_mixed((places * _STRIDE & _WORD) ^ low[:, None]) ^ high[:, None])
    return torch.argsort(keys, dim=1, stable=True)


def _mixed(words: Tensor) -> Tensor:
    """A hash of 32-bit words in int64, one to one: multipliers below 2 ** 31 keep products from overflowing.

    The constants are those of lowbias32's successor (github.com/skeeto/hash-prospector).
    """
    words = (words ^ (words >> 16)) * 0x21F0AAAD & _WORD
    words = (words ^ (words >> 15)) * 0x735A2D97 & _WORD
    return words ^ (words >> 15)


def positions(side: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Fixed 2D sine and cosine positions of a square grid of patches, (side * side, width), float32 (MAE).

    The first half tells the column and the second the row, each by the sines and then the cosines of width / 4
    frequencies from 1 to 1/10,000.

    A row has `side` patches, and the width of a token is a multiple of 4.

    >>> positions(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0000, 1.0000],
            [0.0000, 1.0000, 0.8415, 0.5403],
            [0.8415, 0.5403, 0.8415, 0.5403]])
    """
    quarter = width // 4
    steps = torch.arange(quarter, device=device, dtype=torch.float32)
    angles = torch.arange(side, device=device, dtype=torch.float32)[:, None] * 10_000.0 ** (-steps / quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1)
