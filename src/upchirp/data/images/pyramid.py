"""An image that is stored at several sizes, of which only the bytes of one are read.

Entropy decoding of the original file caps a loader, whatever the bandwidth: only fewer bytes help. Reading a smaller
version that still holds enough pixels of the crop is what makes a small bandwidth cheap.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from upchirp.data.images.decoding import Box, Picture, Pixels, open_picture
from upchirp.data.tars.index import Level


def choose_level(levels: Sequence[Level], box: Box, least: int) -> int:
    """Which version to read: the smallest whose part of the box has enough pixels, else the original.

    Args:
        levels: the stored versions, the original first; absent ones have length and width 0.
        box: in pixels of the original.
        least: pixels that are wanted in each direction, of which a smaller version must hold as many.

    >>> levels = [Level(0, 90_000, 500, 375), Level(0, 9_000, 171, 128), Level(0, 18_000, 256, 192)]
    >>> choose_level(levels, (0, 0, 500, 375), 128), choose_level(levels, (0, 0, 400, 300), 128)
    (1, 2)
    >>> choose_level(levels, (0, 0, 100, 100), 128)
    0
    """
    left, top, right, bottom = box
    width, height = levels[0].width, levels[0].height
    chosen = 0
    for number in range(1, len(levels)):
        level = levels[number]
        if (
            level.length
            and level.width * level.height < levels[chosen].width * levels[chosen].height
            and (right - left) * level.width >= least * width
            and (bottom - top) * level.height >= least * height
        ):
            chosen = number
    return chosen


def scale_box(box: Box, original: Level, level: Level) -> Box:
    """A box of the original in whole pixels of a smaller version, at least one in each direction.

    >>> scale_box((100, 75, 300, 225), Level(0, 1, 500, 375), Level(0, 1, 171, 128))
    (34, 26, 103, 77)
    """
    left, right = _snap(box[0], box[2], original.width, level.width)
    top, bottom = _snap(box[1], box[3], original.height, level.height)
    return left, top, right, bottom


def _snap(start: int, end: int, before: int, after: int) -> tuple[int, int]:
    # floor(x + 0.5) rather than round(x), which rounds halves to even and so may lose a pixel of a whole width.
    first = min(math.floor(start * after / before + 0.5), after - 1)
    return first, min(max(math.floor(end * after / before + 0.5), first + 1), after)


class PyramidPicture:
    """A picture whose smaller versions are stored beside it. Nothing is read before pixels are asked for.

    Args:
        levels: the stored versions, the original first.
        read: the bytes of one of them, by its number.
        name: what to call one of them in messages, by its number.

    >>> from io import BytesIO
    >>> def encoded(size):
    ...     buffer = BytesIO()
    ...     Image.new("RGB", size).save(buffer, "JPEG")
    ...     return buffer.getvalue()
    >>> files = [encoded((500, 375)), encoded((171, 128))]
    >>> levels = [Level(0, len(files[0]), 500, 375), Level(0, len(files[1]), 171, 128)]
    >>> picture = PyramidPicture(levels, files.__getitem__, "version {}".format)
    >>> picture.size, picture.region((0, 0, 375, 375), least=96).shape
    ((500, 375), (128, 128, 3))
    """

    def __init__(self, levels: Sequence[Level], read: Callable[[int], bytes], name: Callable[[int], str]) -> None:
        self._levels = levels
        self._read = read
        self._name = name
        self.size = (levels[0].width, levels[0].height)

    def region(self, box: Box, least: int) -> Pixels:
        """The pixels of a box, from the smallest stored version that will do; see `Picture.region`."""
        number, box = self._choose(box, least)
        with self._named(number):
            return self._open(number).region(box, least)

    def version(self, box: Box, least: int) -> tuple[Picture, Box]:
        """The smallest stored version that will do for a box, and the box in it; see `region`.

        Raises:
            OSError: it is truncated or corrupt.
        """
        number, box = self._choose(box, least)
        with self._named(number):
            return self._open(number), box

    def whole(self) -> Image.Image:
        """All pixels of the original; see `Picture.whole`."""
        with self._named(0):
            return self._open(0).whole()

    def _choose(self, box: Box, least: int) -> tuple[int, Box]:
        number = choose_level(self._levels, box, least)
        return number, scale_box(box, self._levels[0], self._levels[number]) if number else box

    def _open(self, number: int) -> Picture:
        picture = open_picture(self._read(number))
        level = self._levels[number]
        if picture.size != level.size:
            # A box would cut out another part of the image.
            raise OSError(f"it has {picture.size} pixels, its index says {level.size}")
        return picture

    @contextmanager
    def _named(self, number: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"{self._name(number)}: {error}") from error
