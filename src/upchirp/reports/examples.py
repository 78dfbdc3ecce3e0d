"""Pictures of what the model sees in each stage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STRIP_WIDTH = 720
_EXAMPLE_SIDE = 120
_GAP = 8


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """The examples as one stage of a plan shows them."""

    bandwidth: int
    """Side in pixels of the low-frequency input."""
    progress: tuple[float, float]
    """Progress at the start and at the end of the stage."""
    magnitude: tuple[float, float] | None
    """RandAugment magnitude at the start and at the end; None where there is no RandAugment."""
    images: Sequence[NDArray[np.uint8]]
    """uint8 arrays of shape `(bandwidth, bandwidth, 3)`, as the model sees them."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The same few images in every stage of one curriculum."""

    label: str
    """Name of the curriculum."""
    rows: Sequence[ExampleRow]
    """One for each stage, in the order of training."""


def example_strip(row: ExampleRow, final_size: int) -> NDArray[np.uint8]:
    """A stage's examples side by side, every pixel of them a square of the same size in all stages.

    Each image stands in the middle of a cell as wide as the final size, so the strips of all stages align. As many
    examples are kept as fit.

    Args:
        row: the examples of one stage.
        final_size: side of the largest image, pixels.

    Returns:
        uint8 array of shape `(height, width, 4)`, see-through beside the images.

    >>> image = np.zeros((28, 28, 3), np.uint8)
    >>> row = ExampleRow(bandwidth=28, progress=(0, 0.2), magnitude=(0, 2), images=[image] * 8)
    >>> example_strip(row, 64).shape
    (56, 672, 4)
    """
    factor = max(1, round(_EXAMPLE_SIDE / final_size))
    cell = final_size * factor
    fitting = max(1, (_STRIP_WIDTH + _GAP) // (cell + _GAP))
    shown = [image.repeat(factor, 0).repeat(factor, 1) for image in list(row.images)[:fitting]]
    height = max((image.shape[0] for image in shown), default=1)
    strip = np.zeros((height, max(1, len(shown) * (cell + _GAP) - _GAP), 4), np.uint8)
    for place, image in enumerate(shown):
        left = place * (cell + _GAP) + (cell - image.shape[1]) // 2
        part = strip[: image.shape[0], left : left + image.shape[1]]
        part[..., :3], part[..., 3] = image, 255
    return strip
