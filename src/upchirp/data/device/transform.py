"""The transform of a batch on the device: exact crop, normalisation, erasing, mixing.

Random draws are made on the host for the whole global batch from (seed, step) and sliced, so neither the
number of ranks nor the size of the micro-batches changes them. The host knows every draw and the device waits
for none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from upchirp.curriculum import Operator
from upchirp.data.device.erasing import Erasing
from upchirp.data.device.mixing import Targets, box_mask, mix_draws, mix_group
from upchirp.data.device.moment import Moment, Transform
from upchirp.data.device.reducing import reduced
from upchirp.data.device.sending import to_device
from upchirp.data.settings import Augmentation, check_low_frequency
from upchirp.errors import InputError
from upchirp.randomness import Stream, philox
from upchirp.spectral import low_pass_filter


class BatchTransform:
    """Turns batches of a loader into model inputs and mixed targets.

    In this order: reduction to the bandwidth where workers leave that to the device, low-pass filter where a radius is
    given, normalisation, random erasing with noise from N(0, 1) per pixel (after normalising, as timm does), mixup or
    CutMix.

    Mixing happens inside groups of gcd(batch size, 8) consecutive samples of the global batch: each group
    draws mixup or CutMix and one lambda, and sample `i` of `n` is mixed with sample `n - 1 - i`. As a group
    never crosses a micro-batch, the result for a sample depends on (seed, step, its row) and on no more.

    Args:
        augmentation: the settings.
        seed: seed of the run.
        low_frequency: what reduces to the bandwidth where a call names no operator; with `lanczos` workers did so.
        channels_last: memory format of the result.
        dtype: dtype of the result; everything before is computed in float32.
        own: transforms of one's own by the names that curricula give them; the last thing that is done with a batch.

    Raises:
        InputError: an unknown low-frequency method.

    >>> transform = BatchTransform(Augmentation(), seed=0)
    >>> images = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    >>> labels = torch.tensor([0, 1, 2, 3])
    >>> pixels, targets = transform(images, labels, bandwidth=28, step=0, batch_size=4)
    >>> pixels.shape, targets.partners
    (torch.Size([4, 3, 28, 28]), tensor([3, 2, 1, 0]))
    """

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        seed: int,
        low_frequency: Operator = "lanczos",
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
        own: Mapping[str, Transform] | None = None,
    ) -> None:
        check_low_frequency(low_frequency)
        self._augmentation = augmentation
        self._seed = seed
        self._low_frequency: Operator = low_frequency
        self._channels_last = channels_last
        self._dtype = dtype
        self._own = dict(own or {})
        self._erase = Erasing(augmentation.reprob, seed=seed)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        bandwidth: int,
        step: int,
        batch_size: int,
        first_row: int = 0,
        operator: Operator | None = None,
        radius: float | None = None,
        progress: float = 0.0,
        own: str | None = None,
    ) -> tuple[Tensor, Targets]:
        """Transform a whole batch, or the rows of it that one rank or micro-batch holds.

        Args:
            images: (N, channels, S, S), of the augmentation's pixel type.
            labels: int64, (N,), on the same device.
            bandwidth: side of the result, pixels; equal to S unless the batch is reduced here.
            step: index of the optimizer step.
            batch_size: samples in the global batch of this step.
            first_row: row of the global batch that `images[0]` is.
            operator: what reduces the batch to the bandwidth; by default `low_frequency`.
            radius: of a low-pass filter, in periods per image; by default nothing is filtered.
            progress: share of the run done, for the transform of one's own.
            own: its name; by default there is none.

        Returns:
            Inputs (N, channels, bandwidth, bandwidth), and the targets.

        Raises:
            InputError: rows outside the batch, rows that cut a mixing group, an odd batch size with
                mixing on, images of other channels or of another type, or whose side does not fit the bandwidth.
        """
        rows = range(first_row, first_row + len(images))
        operator = operator or self._low_frequency
        self._check(images, bandwidth, rows, batch_size, operator)
        # A copy in any case: what follows is done in place.
        pixels = images.contiguous(memory_format=torch.channels_last).to(torch.float32, copy=True)
        if images.shape[-1] > bandwidth:
            pixels = reduced(pixels, bandwidth, operator).contiguous(memory_format=torch.channels_last)
        if radius is not None:
            pixels = low_pass_filter(pixels, radius=radius).contiguous(memory_format=torch.channels_last)
        lines = _lines(pixels)
        _normalize_lines(lines, self._augmentation.mean, self._augmentation.std, scale_of(images))
        self._erase(lines, step, batch_size, rows)
        lines, targets = self._mix(lines, labels, step, batch_size, rows)
        pixels = lines.view(-1, bandwidth, bandwidth, pixels.shape[1]).permute(0, 3, 1, 2)
        if own is not None:
            check_transforms([own], self._own)
            moment = Moment(progress=progress, step=step, bandwidth=bandwidth, rows=rows, seed=self._seed)
            pixels = self._own[own](pixels, moment)
        memory_format = torch.channels_last if self._channels_last else torch.contiguous_format
        return pixels.to(self._dtype).contiguous(memory_format=memory_format), targets

    def mix_group(self, batch_size: int) -> int:
        """How many rows of a batch of this size are mixed as one group; rows in parts must be multiples of it."""
        return mix_group(self._augmentation, batch_size)

    def _check(self, images: Tensor, bandwidth: int, rows: range, batch_size: int, operator: Operator) -> None:
        side = images.shape[-1]
        count, kind = self._augmentation.channels.count, self._augmentation.pixel_type
        if images.dtype != getattr(torch, kind) or images.ndim != 4 or images.shape[1:] != (count, side, side):
            raise InputError(
                f"images are {images.dtype} of shape {tuple(images.shape)}: expected torch.{kind} of shape "
                f"(N, {count}, S, S)"
            )
        reduces = operator != "lanczos"
        if side != bandwidth and not (reduces and side > bandwidth):
            hint = "at most their side" if reduces else "equal to their side, as workers reduce by lanczos"
            raise InputError(f"bandwidth {bandwidth} for images of {side} pixels: it must be {hint}")
        if rows.start < 0 or rows.stop > batch_size:
            raise InputError(f"rows {rows.start} to {rows.stop} do not lie in a batch of {batch_size}")
        group = mix_group(self._augmentation, batch_size)
        if rows.start % group or rows.stop % group:
            raise InputError(
                f"rows {rows.start} to {rows.stop} of a batch of {batch_size} cut a mixing group of {group}: "
                f"make the micro-batch a multiple of {group}"
            )

    def _mix(self, lines: Tensor, labels: Tensor, step: int, batch_size: int, rows: range) -> tuple[Tensor, Targets]:
        smoothing = self._augmentation.smoothing
        if not self._augmentation.mixes or not len(lines):
            return lines, replace(Targets.of(labels), smoothing=smoothing)
        side = lines.shape[1]
        group = mix_group(self._augmentation, batch_size)
        rng = np.random.Generator(philox(Stream.MIXING, self._seed, step))
        weights, boxes = mix_draws(rng, batch_size // group, self._augmentation, side)
        mine = slice(rows.start // group, rows.stop // group)
        packed = to_device(np.column_stack([weights[mine], boxes[mine]]).astype(np.float32), lines.device)
        weight = packed[:, 0]
        # A CutMix group keeps nothing of itself inside its box, everything outside; mixup's box is empty.
        outside = torch.where(packed[:, 1] > 0, torch.ones_like(weight), weight)
        keep = torch.where(box_mask(packed[:, 2:], side, lines.shape[2] // side), 0.0, outside[:, None, None])
        grouped = lines.view(-1, group, *lines.shape[1:])
        mixed = torch.lerp(grouped.flip(1), grouped, keep[:, None])
        partners = labels.view(-1, group).flip(1).reshape(-1)
        return mixed.flatten(0, 1), Targets(labels, partners, weight[:, None].expand(-1, group).reshape(-1), smoothing)


def check_transforms(names: Iterable[str | None], given: Mapping[str, Transform]) -> None:
    """Refuse a plan that names transforms which are not given.

    Raises:
        InputError: naming the first one.
    """
    for name in names:
        if name is not None and name not in given:
            known = f"given are {', '.join(sorted(given))}" if given else "none are given"
            raise InputError(
                f"the curriculum names the transform {name!r}, and {known}: give it by `upchirp.train(..., "
                f"transforms={{{name!r}: ...}})`"
            )


def scale_of(images: Tensor) -> float:
    """The value that counts as 1 in images as loaders give them: of floating-point ones 1, as they keep their units."""
    return 1.0 if images.is_floating_point() else 255.0


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], scale: float = 255.0) -> Tensor:
    """Normalise pixel values 0 to 255 by a mean and a standard deviation given for values 0 to 1.

    Args:
        images: uint8 or floating, (N, channels, H, W).
        mean: of the values of each channel.
        std: of the same.
        scale: the value that counts as 1; for images that keep their units give `scale_of(images)`.

    Returns:
        float32, (N, channels, H, W), in the memory format of `images`.

    >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    >>> normalize(white, (0.5, 0.5, 0.5), (0.5, 0.25, 0.1)).flatten().round(decimals=3)
    tensor([1., 2., 5.])
    """
    pixels = images.to(torch.float32, copy=True)
    if pixels.is_contiguous(memory_format=torch.channels_last):
        _normalize_lines(_lines(pixels), tuple(mean), tuple(std), scale)
        return pixels
    factor, shift = (
        values.view(-1, 1, 1) for values in _factor_and_shift(tuple(mean), tuple(std), scale, pixels.device, 1)
    )
    return torch.addcmul(shift, pixels, factor, out=pixels)


def _lines(pixels: Tensor) -> Tensor:
    """A view of images (N, channels, H, W) that lie channels last: (N, H, channels W).

    With three channels as the innermost loop a CPU takes four times as long for what is done to each value.
    """
    return pixels.permute(0, 2, 3, 1).flatten(2)


def _normalize_lines(lines: Tensor, mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> None:
    factor, shift = _factor_and_shift(mean, std, scale, lines.device, lines.shape[2] // len(mean))
    torch.addcmul(shift, lines, factor, out=lines)


@lru_cache(maxsize=64)
def _factor_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], scale: float, device: torch.device, repeats: int
) -> tuple[Tensor, Tensor]:
    """Factor and summand of each channel, the channels repeated for each pixel of a row."""
    # Cached: a copy to the device in every step would make the host wait for it.
    with torch.inference_mode(False):
        centre, width = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        factor, shift = 1 / (scale * width), -centre / width
        return tuple(value.float().repeat(repeats).to(device) for value in (factor, shift))  # type: ignore[return-value]
