"""Images as arrays of any number of channels and any type: `.npy` files, and TIFF files of many bands."""

import importlib
import struct
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[Any]
"""(height, width, channels), of any type of number."""

NPY = b"\x93NUMPY"
"""How a `.npy` file begins."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BYTES = 2**31
_SAMPLES_PER_PIXEL, _PILLOW_SAMPLES, _MOST_TAGS = 277, 6, 1000


class ArrayPicture:
    """An image that is an array: a `Picture` where it is grey or RGB with values of 8 bits, else for `laid_out` alone.

    Args:
        values: (height, width), (height, width, channels) or (channels, height, width).

    Raises:
        OSError: it has another shape, or no numbers in it.

    >>> picture = ArrayPicture(np.zeros((12, 64, 48), np.uint16))
    >>> picture.size, picture.laid_out(12).shape
    ((48, 64), (64, 48, 12))
    """

    def __init__(self, values: Values) -> None:
        if values.ndim not in (2, 3) or 0 in values.shape:
            raise OSError(
                f"it is an array of shape {values.shape}: expected height x width, with channels last or first"
            )
        if values.dtype.kind not in "uif":
            raise OSError(f"its values are {values.dtype}: convert them to whole or floating-point numbers")
        self._values = values

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        return self._values.dtype

    @property
    def channels(self) -> int:
        """Their number, where the shorter of the first and the last side counts them."""
        return 1 if self._values.ndim == 2 else self._values.shape[0 if self._first else -1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        height, width = self._values.shape[1:] if self._first else self._values.shape[:2]
        return width, height

    @property
    def _first(self) -> bool:
        """Whether channels come first."""
        return self._values.ndim == 3 and self._values.shape[0] < self._values.shape[-1]

    def laid_out(self, channels: int) -> Values:
        """The values with so many channels last; where both sides have that length, the last one counts.

        Raises:
            OSError: it has another number of them.
        """
        if self._values.ndim == 2 and channels == 1:
            return self._values[..., None]
        if self._values.ndim == 3 and self._values.shape[-1] == channels:
            return self._values
        if self._values.ndim == 3 and self._values.shape[0] == channels:
            return np.moveaxis(self._values, 0, -1)
        raise other_channels(self.channels, channels)

    def region(self, box: tuple[int, int, int, int], least: int) -> npt.NDArray[np.uint8]:
        """The pixels of a box; see `Picture.region`."""
        left, top, right, bottom = box
        return np.ascontiguousarray(self._photograph()[top:bottom, left:right])

    def whole(self) -> Image.Image:
        """All pixels; see `Picture.whole`."""
        return Image.fromarray(self._photograph())

    def _photograph(self) -> npt.NDArray[np.uint8]:
        """RGB values."""
        if self.channels not in (1, 3):
            raise other_channels(self.channels, "1 or 3")
        if self.dtype != np.uint8:
            raise OSError(f"its values are {self.dtype}, and those of photographs have 8 bits")
        return np.ascontiguousarray(np.broadcast_to(self.laid_out(self.channels), (*self.size[::-1], 3)))


class OtherChannels(OSError):
    """An image has another number of channels than is asked for."""

    here: int
    """The number that it has."""


def other_channels(here: int, asked: int | str) -> OtherChannels:
    """The error of an image with so many channels."""
    # Set here, as `OSError` makes a number and a text of two arguments.
    error = OtherChannels(f"it has {here} channel{'s' if here > 1 else ''}, not {asked}")
    error.here = here
    return error


def read_npy(data: bytes) -> Values:
    """A view of the array in a `.npy` file.

    Raises:
        OSError: it is damaged, or holds Python objects.
    """
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
    except Exception as error:
        # The header is a Python literal, and its parser raises what parsers raise.
        raise OSError("the header of the .npy file is damaged") from error
    start, count = stream.tell(), int(np.prod(shape, dtype=object))
    # Not what the header claims, which may be more than the memory holds.
    if dtype.hasobject or count * dtype.itemsize != len(data) - start:
        raise OSError("the .npy file is damaged, or holds no numbers")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if by_columns else "C")


def is_tiff(data: bytes) -> bool:
    """Whether bytes are those of a TIFF file."""
    return data[:4] in _TIFF


def has_many_bands(data: bytes) -> bool:
    """Whether bytes are those of a TIFF file with more values in a pixel than Pillow decodes, which it complains of."""
    if not is_tiff(data):
        return False
    order, big = "<>"[data[:2] == b"MM"], b"+" in data[2:4]
    offset, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    try:
        (place,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, data, place)
        first = place + struct.calcsize(order + count)
        for start in range(first, first + entry * min(entries, _MOST_TAGS), entry):
            tag, _ = struct.unpack_from(order + "HH", data, start)
            if tag == _SAMPLES_PER_PIXEL:
                samples: int = struct.unpack_from(order + "H", data, start + entry - (8 if big else 4))[0]
                return samples > _PILLOW_SAMPLES
    except struct.error:
        return False
    return False


def read_tiff(data: bytes) -> Values:
    """The array in a TIFF file of any number of bands or pages and any type, by tifffile.

    Raises:
        OSError: tifffile is not installed, or cannot read it.
    """
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError:
        raise OSError(
            "it is no TIFF file that Pillow reads: those of many bands take tifffile, pip install 'upchirp[tiff]'"
        ) from None
    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            series = file.series[0]
            if (taken := series.size * series.dtype.itemsize) > _MOST_BYTES:
                raise OSError(f"it is too large: it claims to have {taken:,} bytes")
            values: Values = series.asarray()
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise OSError(f"cannot read the TIFF file: {error}") from error
    return values
