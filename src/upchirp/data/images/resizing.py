"""Lanczos with anti-aliasing, the low-pass filter of Section 5.2, on uint8 pixels."""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from upchirp.data.images.decoding import Pixels


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
    return np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))


def _by_torch(pixels: Pixels, side: int) -> Pixels:
    # The batch dimension first: torch then sees images that lie channels last, and gives such an image back.
    images = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(images, size=(side, side), mode="lanczos", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _torch_has_lanczos() -> bool:
    """Whether this torch resizes uint8 images by Lanczos; where it does it takes a quarter of Pillow's time."""
    try:
        _by_torch(np.zeros((4, 4, 3), np.uint8), 2)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


_TORCH_HAS_LANCZOS = _torch_has_lanczos()
