"""Resizing with anti-aliasing on uint8 pixels, by Lanczos, the low-pass filter of Section 5.2, and by others."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from upchirp.data.images.decoding import Pixels
from upchirp.data.settings import Interpolation

MOST_PIXELS = 8
"""Pixels of a region for each pixel of the result at most: a larger one is resized where it was decoded, which costs
less than to move or keep it. One in ten of ImageNet's crops has more at 96 pixels."""
_LOBES = 3
_CACHED_SIZES = 2048
"""Crops come in many sizes; the weights of one take at most some 30 KB."""


def lanczos(pixels: Pixels, side: int) -> Pixels:
    """Resize to a square by a Lanczos filter with three lobes, widened where it shrinks.

    Args:
        pixels: RGB values, (height, width, 3).
        side: of the result, pixels.

    Returns:
        (side, side, 3), contiguous.

    >>> lanczos(np.full((50, 40, 3), 7, np.uint8), 28).shape
    (28, 28, 3)
    """
    if pixels.shape[:2] == (side, side):
        return np.ascontiguousarray(pixels)
    if _TORCH_HAS_LANCZOS:
        return _by_torch(pixels, side)
    # Sums of whole rows are fast, so the columns are turned into rows for their part.
    down = _sums_of_rows(pixels, side)
    across = _sums_of_rows(cv2.transpose(down), side)
    # Adding nothing rounds and saturates.
    rounded = cv2.add(across, np.zeros(1), dtype=cv2.CV_8U)
    return cv2.transpose(rounded)  # type: ignore[return-value]


def resized(pixels: Pixels, side: int, interpolation: Interpolation) -> Pixels:
    """Resize to a square by a filter that is widened where it shrinks, as Pillow's are.

    Args:
        pixels: RGB values, (height, width, 3).
        side: of the result, pixels.
        interpolation: the filter.

    Returns:
        (side, side, 3), contiguous.
    """
    if interpolation == "lanczos" or pixels.shape[:2] == (side, side):
        return lanczos(pixels, side)
    return _by_torch(pixels, side, interpolation)


def _by_torch(pixels: Pixels, side: int, mode: str = "lanczos") -> Pixels:
    # The batch dimension first: torch then sees images that lie channels last, and gives such an image back.
    images = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(images, size=(side, side), mode=mode, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _torch_has_lanczos() -> bool:
    """Whether this torch resizes uint8 images by Lanczos; where it does it takes about half the time."""
    try:
        _by_torch(np.zeros((4, 4, 3), np.uint8), 2)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


_TORCH_HAS_LANCZOS = _torch_has_lanczos()


def _sums_of_rows(pixels: npt.NDArray[np.generic], side: int) -> npt.NDArray[np.float32]:
    """Resize one direction: (rows, columns, 3) to (side, columns, 3), not rounded."""
    rows, columns = pixels.shape[:2]
    places, weights = _weights(rows, side)
    # Every torch has this sum vectorised. A matrix product would mostly multiply by zero.
    lines = torch.from_numpy(pixels.reshape(rows, -1)).float()
    with _one_thread():
        sums = functional.embedding_bag(places, lines, mode="sum", per_sample_weights=weights)
    return sums.view(side, columns, 3).numpy()


@lru_cache(maxsize=_CACHED_SIZES)
def _weights(size: int, side: int) -> tuple[Tensor, Tensor]:
    """Which of `size` pixels make each of `side` ones, int32, and how they weigh, float32: both (side, taps)."""
    scale = max(size / side, 1.0)
    reach = _LOBES * scale
    centres = (np.arange(side) + 0.5) * size / side
    taps = min(size, 2 * int(np.ceil(reach)) + 1)
    first = np.clip(np.floor(centres - reach).astype(np.int32), 0, size - taps)
    places = first[:, None] + np.arange(taps, dtype=np.int32)
    distance = (places + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return torch.from_numpy(places), torch.from_numpy(weights.astype(np.float32))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: shared out, so little work waits for the core that is busiest with something else."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
