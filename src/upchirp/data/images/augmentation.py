"""Augmentation of one image in a loader worker: crop, flip, RandAugment, reduction to the bandwidth.

Symbols of the paper (Section 5.2): bandwidth `B`, magnitude `m` of RandAugment.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple, get_args

import cv2
import numpy as np
from PIL import Image

from upchirp.curriculum import Operator
from upchirp.data.images.bands import augmented, cropped, finished_values, resized_bands, values_of
from upchirp.data.images.crops import center_box, crop_box, default_crop_pct
from upchirp.data.images.decoding import Box, Picture, PillowPicture, Pixels
from upchirp.data.images.pillow import FILTERS, grey
from upchirp.data.images.rand_augment import Colour, Operation, at_share, draw_operations, on_image, on_pixels
from upchirp.data.images.resizing import MOST_PIXELS, resized
from upchirp.data.requests import Request
from upchirp.data.settings import Augmentation, Interpolation, Mode, check_low_frequency, filter_at
from upchirp.errors import InputError

# Shears and rotations have no Lanczos filter, in Pillow as in OpenCV without anti-aliasing.
_WARP_FILTERS = {**FILTERS, "lanczos": Image.Resampling.BICUBIC}
WARP_FLAGS = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "lanczos": cv2.INTER_CUBIC}


class Drawn(NamedTuple):
    """What the seed of a request decides about one image."""

    box: Box
    """The crop, in pixels of the image."""
    flip: bool
    """Whether it is mirrored."""
    operations: list[Operation]
    """RandAugment, in order."""


def draw(augmentation: Augmentation, final_size: int, size: tuple[int, int], request: Request) -> Drawn:
    """Draw the crop, the flip and the operations for one image; the same at every bandwidth.

    Args:
        augmentation: the settings.
        final_size: input side of the last stage, pixels.
        size: width and height of the image, pixels.
        request: its seed and magnitude count.
    """
    rng = random.Random(request.seed)
    if augmentation.crop == "center":
        box = center_box(size, default_crop_pct(final_size))
    else:
        box = crop_box(rng, size, augmentation.scale, augmentation.ratio)
    flip = rng.random() < augmentation.hflip
    operations = draw_operations(
        rng,
        request.magnitude,
        layers=augmentation.randaug_layers,
        prob=augmentation.randaug_prob,
        std=augmentation.randaug_std,
    )
    return Drawn(box, flip, operations)


def fill_colour(augmentation: Augmentation) -> Colour:
    """What RandAugment puts where pixels of a photograph come from outside: the mean colour."""
    values = [min(255, round(255 * value)) for value in augmentation.mean]
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue


class Begun(NamedTuple):
    """A crop, and what is still to be done with it."""

    pixels: Pixels
    """As they were decoded."""
    side: int
    """What they are to be resized to."""
    flip: bool
    """Whether they are mirrored then."""
    operations: list[Operation]
    """RandAugment, in order."""


class TrainTransform:
    """From an image and a request to pixels; a pure function of the two.

    Random numbers come from `request.seed` alone and are drawn in the same order for every bandwidth: one
    seed gives one crop box, one flip and one choice of RandAugment operations at all of them. The crop is
    drawn from the image's header, before anything is decoded.

    `fast` resizes the crop straight to the bandwidth (Lanczos, anti-aliased; to the final size by `interpolation`, as
    the pipeline does) and augments there, which is cheap at small bandwidths. `faithful` keeps the order of the
    released code: resize to the final size, flip, RandAugment, then Lanczos to the bandwidth. With any other operator
    than `lanczos` the result stays at the final size (the device reduces it), and the modes are the same.

    Images that are no photographs (see `Channels`) are prepared by `upchirp.data.images.bands`, in the same order.

    Args:
        augmentation: the settings.
        final_size: input side of the last stage, pixels.
        mode: `fast` or `faithful`; `fast_lanczos` is `fast` as it was before, by Lanczos to the final size too and with
            sharpness as strong at every bandwidth in pixels.
        low_frequency: what reduces to the bandwidth where a request names no operator: `lanczos` here, all others on
            the device.

    Raises:
        InputError: an unknown mode or low-frequency method, or a final size below 1.

    >>> transform = TrainTransform(Augmentation(), final_size=64)
    >>> request = Request(index=0, bandwidth=28, magnitude=5.0, seed=1)
    >>> transform(Image.new("RGB", (80, 60)), request).shape
    (28, 28, 3)
    """

    def __init__(
        self,
        augmentation: Augmentation,
        final_size: int,
        mode: Mode = "fast",
        low_frequency: Operator = "lanczos",
    ) -> None:
        check_low_frequency(low_frequency)
        if mode not in get_args(Mode):
            raise InputError(f"mode {mode!r} is unknown: choose one of {', '.join(get_args(Mode))}")
        if final_size < 1:
            raise InputError(f"final size {final_size}: it must be 1 pixel or more")
        self._augmentation = augmentation
        self._final_size = final_size
        self._mode: Mode = mode
        self._low_frequency: Operator = low_frequency
        self._channels = augmentation.channels
        if self._channels.photographs:
            self._fill = fill_colour(augmentation)

    def __call__(self, picture: Picture | Image.Image, request: Request) -> Pixels:
        """The pixels, (S, S, channels), of the augmentation's pixel type: uint8 and 3 by default.

        S is the bandwidth, or the final size where the device reduces.

        Raises:
            OSError: the image is truncated or corrupt.
        """
        return self.finish([self.begin(picture, request)])[0]

    def begin(self, picture: Picture | Image.Image, request: Request) -> Begun:
        """What takes the image itself; `finish` does the rest.

        Raises:
            OSError: the image is truncated or corrupt.
        """
        if isinstance(picture, Image.Image):
            picture = PillowPicture(picture)
        if not self._channels.photographs:
            return self._begin_bands(picture, request)
        settings = self._augmentation
        box, flip, operations = draw(settings, self._final_size, picture.size, request)
        here = (request.operator or self._low_frequency) == "lanczos"
        if self._mode != "faithful" and here:
            if self._mode == "fast":
                operations = at_share(operations, request.bandwidth / self._final_size)
            pixels = picture.region(box, request.bandwidth)
            if pixels.size > MOST_PIXELS * 3 * request.bandwidth**2:
                pixels = resized(pixels, request.bandwidth, self._filter_at(request.bandwidth))
            return Begun(pixels, request.bandwidth, flip, operations)
        size = (self._final_size, self._final_size)
        image = picture.whole().crop(box).resize(size, FILTERS[settings.interpolation])
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = on_image(image, operations, self._fill, _WARP_FILTERS[settings.interpolation])
        if here and request.bandwidth != self._final_size:
            image = image.resize((request.bandwidth, request.bandwidth), Image.Resampling.LANCZOS)
        return Begun(np.array(image), image.width, False, [])

    def finish(self, images: Sequence[Begun]) -> list[Pixels]:
        """The pixels of images that were begun.

        One kind of work after the other, so that its code and tables stay in the core's caches: small images take a
        third less time than one after the other.
        """
        flags = WARP_FLAGS[self._augmentation.interpolation]
        shrunk = [resized(image.pixels, image.side, self._filter_at(image.side)) for image in images]
        if not self._channels.photographs:
            return shrunk
        done = [
            on_pixels(cv2.flip(pixels, 1) if image.flip else pixels, image.operations, self._fill, flags)  # type: ignore[arg-type]
            for pixels, image in zip(shrunk, images, strict=True)
        ]
        return [grey(pixels) for pixels in done] if self._channels.count == 1 else done

    def _begin_bands(self, picture: Picture, request: Request) -> Begun:
        """All of the work on an image that is no photograph."""
        settings, final_size = self._augmentation, self._final_size
        values = values_of(picture, self._channels)
        height, width = values.shape[:2]
        box, flip, operations = draw(settings, final_size, (width, height), request)
        here = (request.operator or self._low_frequency) == "lanczos"
        straight = here and self._mode != "faithful"
        side = request.bandwidth if straight else final_size
        interpolation = self._filter_at(side) if straight else settings.interpolation
        bands = resized_bands(cropped(values, box), (side, side), FILTERS[interpolation])
        fill = np.array(settings.mean, np.float32) * (255 if self._channels.type == "uint8" else 1)
        bands = augmented(bands, operations, fill, WARP_FLAGS[settings.interpolation], flip=flip)
        if here and side != request.bandwidth:
            side = request.bandwidth
            bands = resized_bands(bands, (side, side), Image.Resampling.LANCZOS)
        return Begun(finished_values(bands, self._channels), side, False, [])

    def _filter_at(self, side: int) -> Interpolation:
        return filter_at(side, self._final_size, self._augmentation.interpolation, self._mode)
