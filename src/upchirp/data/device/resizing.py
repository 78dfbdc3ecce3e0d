"""Resizing with anti-aliasing of many regions at once, each of its own size, to squares of one side.

The filter is separable, so a resize is two matrix products; the matrices are made on the device from the sizes. Weights
are whole numbers of 2^-14, as Pillow and torch have them, so all sums are exact in float32: the result depends neither
on the order of summation nor on the regions beside one. (TF32, which trainings on CUDA allow, keeps 11 bits of a
weight; the sums stay exact.)
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upchirp.data.device.sending import to_device
from upchirp.data.settings import Interpolation

_ONE = 2**14
"""What weights are whole parts of: 1.5 * 255 times that, the most that a sum can be, is below 2^24."""
_CANVAS_BYTES = 2**25
"""Memory of what is resized at once, as uint8; the values that are computed with take about nine times as much."""
_MULTIPLE = 8
"""Matrix products want sides that this divides."""


def resize_regions(
    pixels: Tensor,
    sizes: npt.NDArray[np.int64],
    flips: npt.NDArray[np.bool_],
    side: int,
    interpolation: Interpolation = "lanczos",
) -> Tensor:
    """Resize regions to squares, and mirror some of them.

    The filter is that of `upchirp.data.images.resizing.resized`, first along the rows, rounded, then along the columns.

    Args:
        pixels: RGB values of all regions, one after another, then `slack` bytes: uint8, (bytes,).
        sizes: height and width of each, (N, 2).
        flips: whether each is mirrored, (N,).
        side: of the results, pixels.
        interpolation: the filter.

    Returns:
        uint8, (N, side, side, 3).

    >>> pixels = torch.full((3 * 50 * 40 + 400,), 7, dtype=torch.uint8)
    >>> resize_regions(pixels, np.array([[50, 40]]), np.array([False]), 28).shape
    torch.Size([1, 28, 28, 3])
    """
    lengths = 3 * sizes.prod(axis=1)
    starts = np.cumsum(lengths) - lengths
    images = torch.empty(len(sizes), side, side, 3, dtype=torch.uint8, device=pixels.device)
    for group in _groups(sizes):
        height, width = (_padded(int(most)) for most in sizes[group].max(axis=0))
        described = to_device(
            np.column_stack([group, starts[group], sizes[group], flips[group]]).astype(np.int64), pixels.device
        )
        which, start, heights, widths, mirrored = described.unbind(1)
        # A view in which a row begins at each byte; what lies behind a region's width weighs nothing.
        rows = pixels.as_strided((len(pixels) - 3 * width + 1, 3 * width), (1, 1))
        row = torch.arange(height, device=pixels.device).minimum(heights[:, None] - 1)
        canvas = rows[(start[:, None] + row * 3 * widths[:, None]).flatten()]
        across = resize_weights(widths, width, side, interpolation)
        down = resize_weights(heights, height, side, interpolation)
        across = torch.where(mirrored[:, None, None] > 0, across.flip(1), across)
        columns = canvas.view(-1, height, width, 3).transpose(1, 2).reshape(-1, width, 3 * height)
        lines = _rounded(torch.bmm(across, columns.float())).view(-1, side, height, 3)
        squares = torch.bmm(down, lines.transpose(1, 2).reshape(-1, height, 3 * side))
        images.index_copy_(0, which, _rounded(squares).to(torch.uint8).view(-1, side, side, 3))
    return images


def slack(sizes: npt.NDArray[np.int64]) -> int:
    """Bytes behind the last of some regions that `resize_regions` reads and leaves out of account."""
    return 3 * _padded(int(sizes[:, 1].max()))


def _lanczos(distance: Tensor) -> Tensor:
    return torch.sinc(distance) * torch.sinc(distance / 3)


def _cubic(distance: Tensor) -> Tensor:
    # Pillow's, with a = -1/2.
    far = distance.abs()
    return torch.where(far < 1, (1.5 * far - 2.5) * far**2 + 1, ((-0.5 * far + 2.5) * far - 4) * far + 2)


def _triangle(distance: Tensor) -> Tensor:
    return 1 - distance.abs()


_KERNELS: dict[Interpolation, tuple[int, Callable[[Tensor], Tensor]]] = {
    "lanczos": (3, _lanczos),
    "bicubic": (2, _cubic),
    "bilinear": (1, _triangle),
}
"""How far each filter reaches, and what it weighs at a distance, both in pixels of the result where it shrinks."""


def resize_weights(sizes: Tensor, most: int, side: int, interpolation: Interpolation = "lanczos") -> Tensor:
    """How much each of some pixels in a row makes of each of `side` ones.

    Args:
        sizes: pixels of each row, up to `most`, (N,).
        most: what all rows are padded to.
        side: pixels of the results.
        interpolation: the filter.

    Returns:
        float32, (N, side, most): whole numbers, of which each row's sum to about 2^14; zero from the row's size on.

    >>> resize_weights(torch.tensor([2]), 3, 2).int().tolist()
    [[[16384, 0, 0], [0, 16384, 0]]]
    """
    scale = (sizes / side)[:, None, None]
    centres = (torch.arange(side, device=sizes.device)[:, None] + 0.5) * scale
    pixel = torch.arange(most, device=sizes.device)
    distance = (pixel + 0.5 - centres) / scale.clamp(min=1.0)
    reach, kernel = _KERNELS[interpolation]
    inside = (distance.abs() < reach) & (pixel < sizes[:, None, None])
    weights = torch.where(inside, kernel(distance), 0.0)
    # In float64 the padding, which changes the order of summation, does not show.
    total = weights.sum(dim=2, keepdim=True, dtype=torch.float64).float()
    return (_ONE * weights / total).round()


def _groups(sizes: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Which regions are resized together: those of about one size, as all are padded to the largest."""
    order = np.argsort(sizes.max(axis=1), kind="stable")
    first, most = 0, np.zeros(2, dtype=np.int64)
    for number, index in enumerate(order):
        most = np.maximum(most, sizes[index])
        if number > first and (number + 1 - first) * 3 * int(most.prod()) > _CANVAS_BYTES:
            yield order[first:number]
            first, most = number, sizes[index]
    yield order[first:]


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _rounded(sums: Tensor) -> Tensor:
    return (sums / _ONE + 0.5).floor().clamp(0, 255)
