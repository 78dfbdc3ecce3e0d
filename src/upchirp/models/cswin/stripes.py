"""The width of CSWin's stripes, and the windows that they make."""

from collections.abc import Sequence

from upchirp.errors import InputError

Windows = tuple[tuple[int, int], ...]
"""Rows and columns of the windows, in tokens, for each group of heads."""

STRIDES = (4, 8, 16, 32)
"""Pixels per token, per stage."""


def stripe_widths(side: int, split_size: Sequence[int] | None = None, reference: int = 224) -> tuple[int, ...]:
    """Width of the stripes of each stage, tokens, for images of side `side`.

    They are 1, 2, B/32 and B/32. A `split_size` of one's own, meant for images of side `reference`, keeps its
    share of the map as closely as stripes that divide the map can.

    Args:
        side: pixels, a multiple of 32.
        split_size: width per stage at `reference`.
        reference: pixels.

    >>> stripe_widths(224), stripe_widths(96)
    ((1, 2, 7, 7), (1, 2, 3, 3))
    >>> stripe_widths(96, (7, 7, 7, 7), reference=224)
    (3, 3, 3, 3)
    """
    if split_size is None:
        return (1, 2, side // 32, side // 32)
    widths = []
    for width, stride in zip(split_size, STRIDES, strict=True):
        cells, wanted = side // stride, width * side / reference
        divisors = (n for n in range(1, cells + 1) if cells % n == 0)
        widths.append(min(divisors, key=lambda n: abs(n - wanted)))
    return tuple(widths)


def stage_windows(side: int, widths: Sequence[int]) -> list[Windows]:
    """The windows of each stage: vertical and horizontal stripes, in the last stage the whole map.

    The vertical ones come first, as in the official weights.

    >>> stage_windows(96, (1, 2, 3, 3))
    [((24, 1), (1, 24)), ((12, 2), (2, 12)), ((6, 3), (3, 6)), ((3, 3),)]
    """
    *crossed, last = [side // stride for stride in STRIDES]
    crosses = [((cells, width), (width, cells)) for cells, width in zip(crossed, widths, strict=False)]
    return [*crosses, ((last, last),)]


def windows_on(windows: Windows, height: int, width: int) -> Windows:
    """The same windows on a map of another size: stripes as wide as they were, from edge to edge.

    >>> windows_on(((12, 2), (2, 12)), 8, 10), windows_on(((3, 3),), 8, 10)
    (((8, 2), (2, 10)), ((8, 10),))
    """
    if len(windows) == 1:
        return ((height, width),)
    (_, columns), (rows, _) = windows
    return (height, columns), (rows, width)


def check_stripes(split_size: Sequence[int], side: int) -> tuple[int, ...]:
    """`split_size` if it suits images of side `side`.

    Raises:
        InputError: a width does not divide its map, or the last is not the whole map.

    >>> check_stripes((1, 2, 4, 7), 224)
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: split_size is (1, 2, 4, 7): 4 does not divide a map of side 14
    """
    maps = [side // stride for stride in STRIDES]
    for width, cells in zip(split_size, maps, strict=True):
        if width < 1 or cells % width:
            raise InputError(f"split_size is {tuple(split_size)}: {width} does not divide a map of side {cells}")
    if split_size[-1] != maps[-1]:
        raise InputError(f"split_size ends in {split_size[-1]}: the last stage attends over its whole map, {maps[-1]}")
    return tuple(split_size)
