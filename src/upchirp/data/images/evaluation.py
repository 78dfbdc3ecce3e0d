"""The view of an image that evaluations take."""

import math

import numpy as np
from PIL import Image

from upchirp.data.images.bands import cropped, finished_values, resized_bands, values_of
from upchirp.data.images.decoding import Box, Picture, PillowPicture, Pixels
from upchirp.data.images.pillow import FILTERS, grey
from upchirp.data.settings import RGB, Channels, Interpolation
from upchirp.errors import InputError


class EvalTransform:
    """The paper's view for evaluation: resize the shorter side to `size / crop_pct`, keep the centre.

    Args:
        size: side of the result, pixels.
        crop_pct: share of the shorter side that is kept, (0, 1]; see `default_crop_pct`.
        interpolation: filter of the resize.
        channels: what the result consists of.

    Raises:
        InputError: an argument out of its range.

    >>> EvalTransform(64, 0.875)(Image.new("RGB", (80, 60))).shape
    (64, 64, 3)
    """

    def __init__(
        self, size: int, crop_pct: float, interpolation: Interpolation = "bicubic", channels: Channels = RGB
    ) -> None:
        if size < 1:
            raise InputError(f"evaluation size {size}: it must be 1 pixel or more")
        if not 0 < crop_pct <= 1:
            raise InputError(f"crop share {crop_pct}: give more than 0, up to 1")
        if interpolation not in FILTERS:
            raise InputError(f"interpolation {interpolation!r} is unknown: choose one of {', '.join(FILTERS)}")
        self._size = size
        self._shorter = math.floor(size / crop_pct)
        self._filter = FILTERS[interpolation]
        self.channels = channels
        """What the result consists of."""

    def __call__(self, picture: Picture | Image.Image) -> Pixels:
        """The pixels, (size, size, channels): uint8 and 3 by default.

        Raises:
            OSError: the image is truncated or corrupt.
        """
        if isinstance(picture, Image.Image):
            picture = PillowPicture(picture)
        if not self.channels.photographs:
            values = values_of(picture, self.channels)
            height, width = values.shape[:2]
            whole, box = self._view((width, height))
            bands = resized_bands(cropped(values, (0, 0, width, height)), whole, self._filter)
            return finished_values(bands[:, box[1] : box[3], box[0] : box[2]], self.channels)
        image = picture.whole()
        whole, box = self._view(image.size)
        pixels = np.array(image.resize(whole, self._filter).crop(box))
        return grey(pixels) if self.channels.count == 1 else pixels

    def _view(self, size: tuple[int, int]) -> tuple[tuple[int, int], Box]:
        """What an image of a size is resized to, and the box of it that is kept."""
        width, height = size
        shorter = min(width, height)
        width, height = self._shorter * width // shorter, self._shorter * height // shorter
        left, top = round((width - self._size) / 2), round((height - self._size) / 2)
        return (width, height), (left, top, left + self._size, top + self._size)
