"""Preparation of images that are no photographs: each band by itself, in floating point, in units of the data.

Crop, flip and geometric operations are those of photographs for the same seed. What photographs alone have (tones,
colours, sharpness) is left out of RandAugment: on reflectances, counts or logarithms it would mean nothing.
"""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from upchirp.data.images.arrays import ArrayPicture, Values, is_tiff, other_channels, read_tiff
from upchirp.data.images.decoding import Box, Picture, PillowPicture
from upchirp.data.images.pillow import orientation
from upchirp.data.images.rand_augment import MATRICES, SHIFTED_AXIS, Operation
from upchirp.data.settings import Channels

Bands = npt.NDArray[np.float32]
"""(channels, height, width)."""

_OWN_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F")


def values_of(picture: Picture, channels: Channels) -> Values:
    """All values of an image, as its file has them.

    Raises:
        OSError: it cannot be read, has other channels or another type of values, or values that are no numbers.
    """
    values = _stored_values(picture, channels.count)
    if values.shape[-1] != channels.count:
        raise other_channels(values.shape[-1], channels.count)
    if (values.dtype == np.uint8) != (channels.type == "uint8"):
        told = "have 8 bits" if channels.type == "uint8" else "are in units of their own"
        raise OSError(f"its values are {values.dtype}, and those of the others, or of what weights are for, {told}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise OSError("some of its values are not finite: put numbers in their place")
    return values


def _stored_values(picture: Picture, channels: int) -> Values:
    if isinstance(picture, ArrayPicture):
        return picture.laid_out(channels)
    if not isinstance(picture, PillowPicture):
        return np.asarray(picture.whole())
    image = picture.loaded()
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    own = image.mode in _OWN_MODES or image.mode.startswith("I;16")
    values = np.asarray(image if own else image.convert("RGB"))
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[-1] != channels and picture.data is not None and is_tiff(picture.data):
        # Bands may be pages, of which Pillow shows the first.
        return ArrayPicture(read_tiff(picture.data)).laid_out(channels)
    return values


def cropped(values: Values, box: Box) -> Bands:
    """The bands of a box in values, (height, width, channels)."""
    left, top, right, bottom = box
    return np.ascontiguousarray(np.moveaxis(values[top:bottom, left:right], -1, 0), dtype=np.float32)


def resized_bands(bands: Bands, size: tuple[int, int], interpolation: Image.Resampling) -> Bands:
    """Resize to a width and a height by a filter that is widened where it shrinks, as Pillow does for photographs.

    >>> resized_bands(np.ones((5, 8, 6), np.float32), (3, 4), Image.Resampling.LANCZOS).shape
    (5, 4, 3)
    """
    if bands.shape[:0:-1] == size:
        return bands
    return np.stack([np.asarray(Image.fromarray(band).resize(size, interpolation)) for band in bands])


def augmented(
    bands: Bands, operations: list[Operation], fill: npt.NDArray[np.float32], flags: int, *, flip: bool
) -> Bands:
    """Mirror bands, and shear, rotate and shift them; other operations are passed over.

    Args:
        bands: they are left as they are.
        operations: of RandAugment, in order.
        fill: of each channel the value of pixels that come from outside.
        flags: OpenCV's for the interpolation.
        flip: whether they are mirrored.
    """
    if flip:
        bands = bands[:, :, ::-1]
    for name, argument in operations:
        height, width = bands.shape[1:]
        amount = argument or 0.0
        if name in MATRICES:
            matrix = MATRICES[name](amount, width, height)
        elif name in SHIFTED_AXIS:
            matrix = np.eye(2, 3)
            matrix[1 - SHIFTED_AXIS[name], 2] = amount * bands.shape[1 + SHIFTED_AXIS[name]]
        else:
            continue
        warped = [
            cv2.warpAffine(
                np.ascontiguousarray(band),
                matrix,
                (width, height),
                flags=flags | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=float(outside),
            )
            for band, outside in zip(bands, fill, strict=True)
        ]
        bands = np.stack(warped)
    return bands


def finished_values(bands: Bands, channels: Channels) -> Values:
    """(height, width, channels), of the type that prepared images have."""
    values = np.ascontiguousarray(np.moveaxis(bands, 0, -1))
    return np.rint(values).clip(0, 255).astype(np.uint8) if channels.type == "uint8" else values
