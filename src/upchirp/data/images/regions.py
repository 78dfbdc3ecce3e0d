"""Regions for images that the device prepares: the decoded crop, and what is to become of it.

Crop, flip and operations are those of `TrainTransform` for the same request.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upchirp.data.images.augmentation import draw
from upchirp.data.images.decoding import Box, JpegPicture, Picture, Pixels
from upchirp.data.images.pyramid import PyramidPicture
from upchirp.data.images.rand_augment import NAMES, at_share
from upchirp.data.images.resizing import MOST_PIXELS, resized
from upchirp.data.requests import Request
from upchirp.data.settings import RGB, Augmentation, Channels, Mode, Prepare, filter_at


def image_bytes(side: int, prepare: Prepare = "cpu", channels: Channels = RGB) -> int:
    """Most bytes that a worker gives for an image of a side in pixels; regions are RGB, whatever is made of them.

    >>> image_bytes(96), image_bytes(96, "device"), image_bytes(96, "cpu", Channels(12, "float32"))
    (27648, 221184, 442368)
    """
    return channels.bytes * side**2 if prepare == "cpu" else RGB.bytes * side**2 * MOST_PIXELS


Take = Callable[[tuple[int, ...], torch.dtype], tuple[Tensor, Any]]
"""Gives memory of a shape and a type, and what to send in place of it."""


def in_own_memory(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Memory of this process, which is sent as it is."""
    memory = torch.empty(shape, dtype=dtype)
    return memory, memory


class Region(NamedTuple):
    """The pixels of one crop, and what is to be done with them."""

    pixels: Pixels
    """At the scale that they were decoded at; with a box a whole JPEG file instead, (bytes,)."""
    flip: bool
    """Mirror it."""
    operations: list[tuple[int, float]]
    """Operations of RandAugment as their number in `NAMES` and their argument, 0 if they take none."""
    box: Box | None = None
    """Where the crop lies in a picture that the device is to decode."""


class Regions(NamedTuple):
    """Crops of several images, one after another in memory."""

    pixels: Any
    """Their RGB values row by row, a tensor: uint8, (bytes,); or what is sent in place of it."""
    recipes: npt.NDArray[np.float64]
    """Of each its height, width and whether it is mirrored, then number and argument of each operation, with -1 for
    none: (images, 3 + 2 layers)."""
    lengths: npt.NDArray[np.int64]
    """Bytes of each: (images,)."""
    boxes: npt.NDArray[np.int64]
    """Left, top, right and bottom of each in the picture whose file is sent; zeros where pixels are: (images, 4)."""


class RegionTransform:
    """From an image and a request to the region that is cropped, unchanged; a pure function of the two.

    Args:
        augmentation: the settings.
        final_size: input side of the last stage, pixels.
        mode: as in `TrainTransform`.
        leave_encoded: leave JPEG files to the device, if they take no more memory than pixels may.
    """

    def __init__(
        self, augmentation: Augmentation, final_size: int, *, mode: Mode = "fast", leave_encoded: bool = False
    ) -> None:
        self._mode: Mode = mode
        self._augmentation = augmentation
        self._final_size = final_size
        self._leave_encoded = leave_encoded

    def __call__(self, picture: Picture, request: Request) -> Region:
        """The region.

        Raises:
            OSError: the image is truncated or corrupt.
        """
        box, flip, operations = draw(self._augmentation, self._final_size, picture.size, request)
        if self._mode == "fast":
            operations = at_share(operations, request.bandwidth / self._final_size)
        numbers = [(NAMES.index(name), argument or 0.0) for name, argument in operations]
        most = image_bytes(request.bandwidth, "device")
        if self._leave_encoded:
            if isinstance(picture, PyramidPicture):
                picture, box = picture.version(box, request.bandwidth)
            if isinstance(picture, JpegPicture) and len(picture.data) <= most and picture.is_plain:
                return Region(np.frombuffer(picture.data, np.uint8), flip, numbers, box)
        pixels = picture.region(box, request.bandwidth)
        if pixels.size > most:
            side, interpolation = request.bandwidth, self._augmentation.interpolation
            pixels = resized(pixels, side, filter_at(side, self._final_size, interpolation, self._mode))
        return Region(pixels, flip, numbers)


class LaidOut:
    """Puts regions one after another.

    Args:
        layers: most operations of an image.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers

    def __call__(self, regions: Sequence[Region], take: Take) -> Regions:
        """The regions in one piece of memory.

        Args:
            regions: one or more.
            take: gives memory of a shape.
        """
        recipes = np.full((len(regions), 3 + 2 * self._layers), -1.0)
        boxes = np.zeros((len(regions), 4), dtype=np.int64)
        lengths = np.array([region.pixels.size for region in regions], dtype=np.int64)
        for recipe, kept, (pixels, flip, operations, box) in zip(recipes, boxes, regions, strict=True):
            if box is not None:
                kept[:] = box
            size = pixels.shape[:2] if box is None else (box[3] - box[1], box[2] - box[0])
            recipe[:3] = *size, flip
            recipe[3 : 3 + 2 * len(operations)] = np.array(operations, dtype=np.float64).ravel()
        memory, sent = take((int(lengths.sum()),), torch.uint8)
        place, first = memory.numpy(), 0
        for pixels, *_ in regions:
            # Right to where it is sent from: it may be a part of the rows that were decoded.
            place[first : first + pixels.size].reshape(pixels.shape)[:] = pixels
            first += pixels.size
        return Regions(sent, recipes, lengths, boxes)
