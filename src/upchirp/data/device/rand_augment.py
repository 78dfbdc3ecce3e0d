"""RandAugment on the device: what `on_pixels` does, for many images at once, those of one kind of operation together.

Sums and tables are computed in whole numbers: the device, and the images beside one, change nothing there.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from upchirp.data.device.sending import to_device
from upchirp.data.images.rand_augment import LUMA, MATRICES, NAMES, SHIFTED_AXIS, TABLES, Colour, shift_of

Parameters = Callable[[str, float, int], Sequence[float] | npt.NDArray[np.floating | np.integer]]
"""Of an operation by name, argument and side of the image, as numbers for the device."""
_LUMA_THOUSANDTHS = tuple(round(1000 * weight) for weight in LUMA)


def rand_augment(images: Tensor, operations: npt.NDArray[np.float64], fill: Colour, interpolation: int) -> Tensor:
    """Carry out operations on images, in place.

    Args:
        images: uint8, (N, S, S, 3).
        operations: of each image the number in `NAMES` and the argument of one operation after another, -1 for none:
            (N, 2 layers).
        fill: colour of pixels that come from outside.
        interpolation: OpenCV's flag for shears, rotations and shifts.

    Returns:
        The images.
    """
    cubic = interpolation != cv2.INTER_LINEAR
    kinds: tuple[tuple[set[str], Parameters, Callable[[Tensor, Tensor], Tensor]], ...] = (
        (set(TABLES), _table, _through_tables),
        ({"AutoContrast"}, _none, lambda chosen, _: _through(chosen, _auto_contrast(chosen))),
        ({"Equalize"}, _none, lambda chosen, _: _through(chosen, _equalize(chosen))),
        ({"ContrastIncreasing"}, _argument, lambda chosen, factors: _through(chosen, _contrast(chosen, factors))),
        ({"ColorIncreasing"}, _argument, _color),
        ({"SharpnessIncreasing"}, _argument, _sharpness),
        (set(MATRICES), _matrix, lambda chosen, matrices: _warp(chosen, matrices, fill, cubic=cubic)),
        (set(SHIFTED_AXIS), _shift_by(interpolation), lambda chosen, shifts: _shift(chosen, shifts, fill)),
    )
    side = images.shape[1]
    for numbers, arguments in zip(operations[:, ::2].T, operations[:, 1::2].T, strict=True):
        for names, parameters, carry_out in kinds:
            chosen = np.flatnonzero(np.isin(numbers, [NAMES.index(name) for name in names]))
            if not len(chosen):
                continue
            rows = np.array([parameters(NAMES[int(numbers[k])], arguments[k], side) for k in chosen])
            # In one copy; float32 holds every index of a batch.
            packed = to_device(np.column_stack([chosen, rows]).astype(np.float32), images.device)
            which = packed[:, 0].long()
            images.index_copy_(0, which, carry_out(images[which], packed[:, 1:]))
    return images


def _none(name: str, argument: float, side: int) -> Sequence[float]:
    return (0.0,)


def _argument(name: str, argument: float, side: int) -> Sequence[float]:
    return (argument,)


def _table(name: str, argument: float, side: int) -> npt.NDArray[np.floating | np.integer]:
    return TABLES[name](argument).clip(0, 255)


def _matrix(name: str, argument: float, side: int) -> npt.NDArray[np.float64]:
    return MATRICES[name](argument, side, side).ravel()


def _shift_by(interpolation: int) -> Parameters:
    def parameters(name: str, share: float, side: int) -> Sequence[float]:
        whole, weights = shift_of(share * side, interpolation)
        return (SHIFTED_AXIS[name], whole, *weights)

    return parameters


def _through_tables(images: Tensor, tables: Tensor) -> Tensor:
    return _through(images, tables[:, None].expand(-1, 3, -1))


def _through(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in the image's table for its channel, (N, 3, 256)."""
    channels = 256 * torch.arange(3, device=images.device)
    places = (images.long() + channels).flatten(1)
    return tables.to(torch.uint8).reshape(-1, 768).gather(1, places).view_as(images)


def _levels(images: Tensor) -> Tensor:
    return torch.arange(256, device=images.device)


def _auto_contrast(images: Tensor) -> Tensor:
    low, high = (bound(images.flatten(1, 2), dim=1).long()[:, :, None] for bound in (torch.amin, torch.amax))
    levels = _levels(images)
    stretched = (levels - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, stretched.clamp(0, 255), levels)


def _equalize(images: Tensor) -> Tensor:
    count, side = images.shape[:2]
    levels = _levels(images)
    bins = 256 * torch.arange(3 * count, device=images.device).view(count, 1, 3)
    ones = torch.ones(1, dtype=torch.int32, device=images.device)
    places = (images.view(count, side * side, 3).long() + bins).flatten()
    counts = torch.zeros(768 * count, dtype=torch.int32, device=images.device)
    counts = counts.scatter_add_(0, places, ones.expand(len(places))).view(count, 3, 256).long()
    highest = torch.where(counts > 0, levels, 0).amax(dim=2, keepdim=True)
    step = (side * side - counts.gather(2, highest)) // 255
    mapped = (step // 2 + counts.cumsum(dim=2) - counts) // step.clamp(min=1)
    return torch.where(step > 0, mapped.clamp(0, 255), levels)


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    sums = images.flatten(1, 2).sum(dim=1, dtype=torch.int64)
    red, green, blue = _LUMA_THOUSANDTHS
    thousands = red * sums[:, 0] + green * sums[:, 1] + blue * sums[:, 2]
    pixels = images.shape[1] ** 2
    mean = ((2 * thousands + 1000 * pixels) // (2000 * pixels))[:, None]
    table = torch.trunc(mean + factors * (_levels(images) - mean)).clamp(0, 255)
    return table[:, None].expand(-1, 3, -1)


def _color(images: Tensor, factors: Tensor) -> Tensor:
    values = images.float()
    red, green, blue = LUMA.tolist()
    grey = red * values[..., :1] + green * values[..., 1:2] + blue * values[..., 2:]
    return _rounded(torch.lerp(grey, values, factors[:, :, None, None]))


def _sharpness(images: Tensor, factors: Tensor) -> Tensor:
    values = images.float()
    lines = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    sums = lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:]
    inner = values[:, 1:-1, 1:-1]
    result = images.clone()
    result[:, 1:-1, 1:-1] = _rounded(torch.lerp((sums + 4 * inner) / 13, inner, factors[:, :, None, None]))
    return result


def _warp(images: Tensor, matrices: Tensor, fill: Colour, *, cubic: bool) -> Tensor:
    side = images.shape[1]
    # Around the fill, as what lies outside counts as zero.
    values = images.float().permute(0, 3, 1, 2) - _colour(fill, images).view(1, 3, 1, 1)
    place = torch.arange(side, device=images.device, dtype=torch.float32)
    x, y = place.view(1, 1, -1), place.view(1, -1, 1)
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    grid = torch.stack([a * x + b * y + c, d * x + e * y + f], dim=-1)
    warped = functional.grid_sample(
        values,
        (2 * grid + 1) / side - 1,
        mode="bicubic" if cubic else "bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return _rounded(warped.permute(0, 2, 3, 1) + _colour(fill, images))


def _shift(images: Tensor, shifts: Tensor, fill: Colour) -> Tensor:
    """Shift along an axis: (axis, whole pixels, five weights) of each image, (N, 7)."""
    side = images.shape[1]
    across = (shifts[:, 0] > 0).view(-1, 1, 1, 1)
    # Turned, so that all are shifted along the rows.
    values = torch.where(across, images.transpose(1, 2), images).float()
    source = torch.arange(side, device=images.device) + shifts[:, 1:2].long()
    number = torch.arange(len(images), device=images.device)[:, None]
    filtered = sum(
        values[number, (source.clamp(0, side - 1) + k - 2).clamp(0, side - 1)] * shifts[:, 2 + k].view(-1, 1, 1, 1)
        for k in range(5)
    )
    inside = ((source >= 0) & (source < side))[:, :, None, None]
    shifted = torch.where(inside, filtered, _colour(fill, images))
    return _rounded(torch.where(across, shifted.transpose(1, 2), shifted))


def _colour(fill: Colour, images: Tensor) -> Tensor:
    return to_device(np.array(fill, dtype=np.float32), images.device)


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
