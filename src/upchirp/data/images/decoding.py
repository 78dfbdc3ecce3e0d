"""From the bytes of an image file to RGB pixels, upright; or to arrays, see `upchirp.data.images.arrays`.

JPEG files go through libjpeg-turbo (simplejpeg), which can decode at 1/2, 1/4 and 1/8 of the full scale for less than
the price of all pixels; everything else, and every file that libjpeg-turbo complains about, goes through Pillow.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from upchirp.data.images.arrays import NPY, ArrayPicture, has_many_bands, is_tiff, read_npy, read_tiff
from upchirp.data.images.jpeg import Header, decode_rows, read_header
from upchirp.data.images.pillow import check_size, decode, large_allowed, load, open_image, orientation
from upchirp.data.images.ppm import read_ppm

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, pixels."""
Pixels = npt.NDArray[np.uint8]
"""RGB values, (height, width, 3)."""

# Only these scales have fast inverse transforms in libjpeg-turbo; 5/8 to 7/8 take longer than decoding everything.
_DIVISORS = (8, 4, 2)
# Pixels that a decoded crop has for each pixel that is asked for. At 1 the scaled transform's own roll-off adds to the
# resize's (AC error 13 % at B = 96, 4.6 % leakage); at 1.5 it is 8.5 % and 2.8 %, for 5 % more time.
_MARGIN = 1.5
_LATE_EXIF = b"eXIf"
_END, _SEARCHED = b"\xff\xd9", 4096
"""How a JPEG file ends, and the bytes among which is looked for it, or for who wrote the file."""


@runtime_checkable
class Picture(Protocol):
    """An image whose pixels are decoded where, and as finely, as they are asked for.

    Its size is known before anything is decoded, so that a crop can be drawn first.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels, after turning the image upright as its EXIF orientation says."""

    def region(self, box: Box, least: int) -> Pixels:
        """The pixels of a box, at a coarse scale that still suits a resize to `least` pixels in each direction.

        The box is snapped to whole pixels of that scale, at least `least` of them in each direction if it has as many.

        Raises:
            OSError: the image is truncated or corrupt.
        """

    def whole(self) -> Image.Image:
        """All pixels at full scale, as an RGB image.

        Raises:
            OSError: the image is truncated or corrupt.
        """


def open_picture(data: bytes) -> Picture:
    """Read the header of an encoded image; its pixels stay encoded.

    Args:
        data: the bytes of an image file, in any format that Pillow reads, a `.npy` file, or a TIFF file of many bands.

    Raises:
        OSError: the bytes are no image that can be read.

    >>> from io import BytesIO
    >>> buffer = BytesIO()
    >>> Image.new("RGB", (400, 300)).save(buffer, "JPEG")
    >>> picture = open_picture(buffer.getvalue())
    >>> picture.size, picture.region((0, 0, 300, 300), least=96).shape
    ((400, 300), (150, 150, 3))
    """
    header = read_header(data) if data[:2] == b"\xff\xd8" else None
    if header is not None and header.plain:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            # Pillow reads it, or says why not.
            return PillowPicture(open_image(data))
        check_size(width, height)
        if colours not in ("CMYK", "YCCK"):
            return JpegPicture(data, header, (width, height))
    if (pixels := read_ppm(data)) is not None:
        check_size(pixels.shape[1], pixels.shape[0])
        return DecodedPicture(pixels)
    if data[: len(NPY)] == NPY:
        return ArrayPicture(read_npy(data))
    if has_many_bands(data):
        return ArrayPicture(read_tiff(data))
    try:
        image = open_image(data)
    except OSError:
        if not is_tiff(data):
            raise
        return ArrayPicture(read_tiff(data))
    if image.format == "PNG" and "exif" not in image.info and _LATE_EXIF in data:
        # Behind the pixels: Pillow finds it, and so the size of the upright image, when it has read them.
        load(image)
    if header is not None and image.format == "JPEG" and image.mode in ("RGB", "L") and orientation(image) == 1:
        return JpegPicture(data, header, image.size)
    return PillowPicture(image, data)


class JpegPicture:
    """A JPEG file that libjpeg-turbo decodes, at the scale that is asked for.

    Args:
        data: the file.
        header: what comes before its pixels.
        size: its width and height, pixels.
    """

    def __init__(self, data: bytes, header: Header, size: tuple[int, int]) -> None:
        self.data = data
        self._header = header
        self.size = size

    @property
    def is_plain(self) -> bool:
        """Whether any decoder gives its pixels alike: the file ends as it should, and has the usual colours."""
        adobe = self.data.find(b"Adobe", 0, _SEARCHED)
        # Behind the name stand a version and flags, then how colours are stored: 0 is not as brightness and colour.
        return _END in self.data[-_SEARCHED:] and (adobe < 0 or self.data[adobe + 11 : adobe + 12] != b"\0")

    def region(self, box: Box, least: int) -> Pixels:
        """The pixels of a box; see `Picture.region`."""
        left, top, right, bottom = box
        room = min(right - left, bottom - top)
        divisor = next((divisor for divisor in _DIVISORS if room >= _MARGIN * least * divisor), 1)
        try:
            pixels = decode_rows(self.data, self._header, self.size, bottom=bottom, divisor=divisor)
        except ValueError:
            # Damage that libjpeg-turbo could bridge: Pillow decides, as it does for peers.
            return PillowPicture(open_image(self.data)).region(box, least)
        return crop(pixels, tuple(round(edge / divisor) for edge in box))  # type: ignore[arg-type]

    def whole(self) -> Image.Image:
        """All pixels; see `Picture.whole`."""
        return decode(open_image(self.data))


class DecodedPicture:
    """An image whose pixels need no decoding.

    Args:
        pixels: (height, width, 3).
    """

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.size = (pixels.shape[1], pixels.shape[0])

    def region(self, box: Box, least: int) -> Pixels:
        """The pixels of a box; see `Picture.region`."""
        # A copy: the file's bytes cannot be written to, and far more of them would be kept.
        return crop(self._pixels, box).copy()

    def whole(self) -> Image.Image:
        """All pixels; see `Picture.whole`."""
        return Image.fromarray(self._pixels)


class PillowPicture:
    """An image that Pillow holds, decoded or not: always at full scale.

    Args:
        image: an image of any mode.
        data: the file that it was read from, if it was.
    """

    def __init__(self, image: Image.Image, data: bytes | None = None) -> None:
        self._image = image
        self.data = data
        width, height = image.size
        self.size = (height, width) if orientation(image) in (5, 6, 7, 8) else (width, height)

    def region(self, box: Box, least: int) -> Pixels:
        """The pixels of a box; see `Picture.region`."""
        with large_allowed():
            return np.array(self.whole().crop(box))

    @property
    def wide(self) -> bool:
        """Whether it holds grey values of more than 8 bits."""
        return self._image.mode == "F" or self._image.mode.startswith("I")

    def loaded(self) -> Image.Image:
        """The image as it is stored, decoded.

        Raises:
            OSError: it is truncated or corrupt.
        """
        load(self._image)
        return self._image

    def whole(self) -> Image.Image:
        """All pixels; see `Picture.whole`."""
        image = decode(self._image)
        if image.size != self.size:
            # A box that was drawn for the size announced would cut out what is not there, in black.
            raise OSError(f"the image has {image.size} pixels, its header says {self.size}")
        return image


def crop(pixels: Pixels, box: Box) -> Pixels:
    """A view of the pixels in a box, at least one in each direction."""
    height, width = pixels.shape[:2]
    left, top = min(box[0], width - 1), min(box[1], height - 1)
    return pixels[top : max(box[3], top + 1), left : max(box[2], left + 1)]
