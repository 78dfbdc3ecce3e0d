"""Decoded pixels as a file: binary PPM, which any tool reads and nothing needs to decode."""

import re

import numpy as np
import numpy.typing as npt

_HEADER = re.compile(rb"P6\n([1-9]\d{0,9}) ([1-9]\d{0,9})\n255\n")


def encode_ppm(pixels: npt.NDArray[np.uint8]) -> bytes:
    r"""RGB pixels, (height, width, 3), as a file.

    >>> encode_ppm(np.zeros((1, 2, 3), np.uint8))
    b'P6\n2 1\n255\n\x00\x00\x00\x00\x00\x00'
    """
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def read_ppm(data: bytes) -> npt.NDArray[np.uint8] | None:
    """A view of the pixels of a file as `encode_ppm` writes it, (height, width, 3); None of any other file.

    >>> read_ppm(encode_ppm(np.full((3, 4, 3), 7, np.uint8))).shape
    (3, 4, 3)
    """
    header = _HEADER.match(data)
    if header is None:
        return None
    width, height = int(header[1]), int(header[2])
    if len(data) != header.end() + 3 * width * height:
        return None
    return np.frombuffer(data, np.uint8, offset=header.end()).reshape(height, width, 3)
