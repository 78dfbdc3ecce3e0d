"""JPEG files by libjpeg-turbo: at a coarse scale, and only down to the last row that is wanted.

Rows are stored from the top, so a decoder that is told of a lower picture stops early: what lies below a crop then
costs next to nothing. What lies above it or beside it has to be decoded, since no maintained packaged binding of
libjpeg-turbo offers a region (simplejpeg has no argument for one, and neither has the `decode` of PyTurboJPEG).
"""

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

_EXIF = b"Exif\x00\x00"
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_SEQUENTIAL = (0xC0, 0xC1)
"""Start of a frame whose pixels come row by row: baseline, and extended sequential with Huffman codes."""
_FANCY_ROWS = 2
"""Rows below the last one wanted that smooth its colours, where those are stored at half the resolution."""
_REST = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd[0-79]")
"""What libjpeg-turbo says when it passes rows that it was not told of, on its way to the end of the file."""


class Header(NamedTuple):
    """What comes before the pixels."""

    plain: bool
    """Whether there are neither EXIF data nor anything unusual, for which Pillow should look."""
    height_at: int | None
    """Where the height is stored, 2 bytes, if the pixels come row by row in one scan."""


def read_header(data: bytes) -> Header:
    """Walk the segments of a JPEG file up to its pixels.

    >>> read_header(simplejpeg.encode_jpeg(np.zeros((40, 30, 3), np.uint8)))
    Header(plain=True, height_at=163)
    >>> read_header(bytes([0xFF, 0xD8, 0xFF, 0xE1]))
    Header(plain=False, height_at=None)
    """
    position, plain, height_at, components = 2, True, None, 0
    while True:
        head = data[position : position + 10]
        if len(head) < 10 or head[0] != 0xFF:
            return Header(False, None)
        marker = head[1]
        if marker == _START_OF_SCAN:
            return Header(plain, height_at if head[4] == components else None)
        if marker == _APP1 and head[4:] == _EXIF:
            plain = False
        if marker in _SEQUENTIAL:
            height_at, components = position + 5, head[9]
        position += 2 + int.from_bytes(head[2:4])


def decode_rows(
    data: bytes, header: Header, size: tuple[int, int], *, bottom: int, divisor: int
) -> npt.NDArray[np.uint8]:
    """Decode a file at 1 / `divisor` of its scale, at least down to row `bottom`.

    Args:
        data: the file.
        header: of the file.
        size: its width and height, pixels.
        bottom: row of the file, in full scale, from which on nothing is wanted.
        divisor: 1, 2, 4 or 8.

    Returns:
        RGB values, (height, width, 3); the rows above `bottom` are those of the whole picture.

    Raises:
        ValueError: libjpeg-turbo complains about the file.

    >>> data = simplejpeg.encode_jpeg(np.zeros((400, 300, 3), np.uint8))
    >>> decode_rows(data, read_header(data), (300, 400), bottom=100, divisor=2).shape
    (52, 150, 3)
    """
    width, height = size
    rows = min(height, bottom + _FANCY_ROWS * divisor)
    buffer = None
    if header.height_at is None or rows == height:
        rows = height
    else:
        data = b"".join((data[: header.height_at], rows.to_bytes(2), data[header.height_at + 2 :]))
        buffer = np.empty((-(-rows // divisor), -(-width // divisor), 3), np.uint8)
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, min_height=-(-rows // divisor), min_width=-(-width // divisor), buffer=buffer
        )
    except ValueError as error:
        if buffer is None or not _REST.fullmatch(str(error)):
            raise
        return buffer
    return pixels
