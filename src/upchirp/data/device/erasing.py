"""Random erasing on the device: boxes filled with noise."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upchirp.data.device.mixing import box_mask
from upchirp.data.device.sending import to_device
from upchirp.randomness import Stream, philox

_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)
_TRIES = 10
_NOISE_STRIDE = 4099
"""Distance between the noise of neighbouring rows: a prime, so that no image side divides it."""


class Erasing:
    """Puts noise into a random box of some images, drawn for the whole global batch from (seed, step).

    Args:
        probability: share of the images that lose a box.
        seed: seed of all draws.
    """

    def __init__(self, probability: float, *, seed: int) -> None:
        self._probability = probability
        self._seed = seed
        self._noise_banks: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, lines: Tensor, step: int, batch_size: int, rows: range) -> None:
        """Erase in place.

        Args:
            lines: normalised images of some rows of the batch, (N, S, channels S).
            step: whose batch it is.
            batch_size: of the whole step.
            rows: which of its rows these are.
        """
        if self._probability == 0:
            return
        side = lines.shape[1]
        rng = np.random.Generator(philox(Stream.ERASING, self._seed, step))
        draws = rng.random((batch_size, 4 + 2 * _TRIES))[rows.start : rows.stop]
        boxes, valid = _boxes(draws, side)
        chosen = np.flatnonzero(valid & (draws[:, 0] < self._probability))
        if not len(chosen):
            return
        bank = self._noise_bank(side * lines.shape[2], lines.device)
        noise_rows = (draws[chosen, 1] * len(bank)).astype(np.int64)
        erase = erase_box_by_box if lines.device.type == "cpu" else erase_together
        erase(lines, bank, np.column_stack([chosen, noise_rows, boxes[chosen]]))

    def _noise_bank(self, length: int, device: torch.device) -> Tensor:
        """Rows of `length` numbers from N(0, 1), overlapping in memory; given by the seed and the length."""
        key = (length, device)
        if key not in self._noise_banks:
            total = max(1 << 20, 1 << (4 * length - 1).bit_length())
            numbers = np.random.Generator(philox(Stream.NOISE, self._seed)).standard_normal(total, dtype=np.float32)
            rows = (total - length) // _NOISE_STRIDE
            # Only one size is in use at a time.
            self._noise_banks = {
                key: torch.from_numpy(numbers).to(device).as_strided((rows, length), (_NOISE_STRIDE, 1))
            }
        return self._noise_banks[key]


def _boxes(draws: npt.NDArray[np.float64], side: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Boxes (top, bottom, left, right) of (n, 4 + 2 tries) uniform draws, and which of them were found.

    As in timm: the first of the tries that fits counts, and an image with no such try is left as it is.
    """
    area = (_AREA[0] + (_AREA[1] - _AREA[0]) * draws[:, 4::2]) * side * side
    low, high = np.log(_ASPECT)
    aspect = np.exp(low + (high - low) * draws[:, 5::2])
    heights, widths = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (heights < side) & (widths < side)
    first = fits.argmax(axis=1)[:, None]
    height = np.take_along_axis(heights, first, axis=1)[:, 0]
    width = np.take_along_axis(widths, first, axis=1)[:, 0]
    top = np.floor(draws[:, 2] * (side - height + 1))
    left = np.floor(draws[:, 3] * (side - width + 1))
    return np.column_stack([top, top + height, left, left + width]).astype(np.int64), fits.any(axis=1)


def erase_box_by_box(lines: Tensor, bank: Tensor, boxes: npt.NDArray[np.int64]) -> None:
    """Put noise into boxes of images, in place, touching only what is erased: best where a call costs little.

    Args:
        lines: images, (N, S, channels S).
        bank: noise, (rows, channels S S).
        boxes: of each the image, the row of noise and top, bottom, left, right in pixels, (boxes, 6).
    """
    noises, channels = bank.view(-1, *lines.shape[1:]), lines.shape[2] // lines.shape[1]
    for image, noise, top, bottom, left, right in boxes.tolist():
        box = np.s_[top:bottom, channels * left : channels * right]
        lines[image][box] = noises[noise][box]


def erase_together(lines: Tensor, bank: Tensor, boxes: npt.NDArray[np.int64]) -> None:
    """The same as `erase_box_by_box` in few calls, whatever the number of boxes: best on accelerators."""
    side, width = lines.shape[1:]
    packed = to_device(boxes, lines.device)
    noise = bank[packed[:, 1]].view(-1, side, width)
    erased = torch.where(box_mask(packed[:, 2:], side, width // side), noise, lines.index_select(0, packed[:, 0]))
    lines.index_copy_(0, packed[:, 0], erased)
