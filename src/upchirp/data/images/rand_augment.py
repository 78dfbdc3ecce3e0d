"""RandAugment `rand-m{m}-mstd{std}-inc1`: timm's 15 operations, drawn once and carried out in either of two ways.

`on_image` calls timm's own operations, on Pillow images: the reference. `on_pixels` does the same on arrays, with
OpenCV and look-up tables, in less than half the time; where Pillow cuts fractions off OpenCV may round them, and the
geometric operations interpolate with OpenCV's bicubic kernel.
"""

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP

from upchirp.data.images.decoding import Pixels

Colour = tuple[int, int, int]

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey value, ITU-R 601-2, as Pillow has them."""
_LEVELS = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
"""Pillow's smoothing kernel, which its sharpness blends with."""


class Operation(NamedTuple):
    """One operation with its argument."""

    name: str
    """timm's name."""
    argument: float | None
    """Angle in degrees, share of the width, factor, bits or threshold; `None` if it takes none."""


def draw_operations(rng: random.Random, magnitude: float, *, layers: int, prob: float, std: float) -> list[Operation]:
    """The operations for one image.

    Args:
        rng: source of random numbers.
        magnitude: mean magnitude, 0 to 10.
        layers: operations drawn.
        prob: probability that a drawn operation is carried out.
        std: standard deviation of the magnitude.

    >>> draw_operations(random.Random(3), 10.0, layers=2, prob=1.0, std=0.0)
    [Operation(name='Rotate', argument=-30.0), Operation(name='ContrastIncreasing', argument=1.9)]
    """
    names = [NAMES[int(rng.random() * len(NAMES))] for _ in range(layers)]
    operations = []
    for name in names:
        if rng.random() >= prob:
            continue
        level = min(max(rng.gauss(magnitude, std), 0.0), 10.0) / 10
        sign = -1 if rng.random() < 0.5 else 1
        argument = _ARGUMENTS[name]
        operations.append(Operation(name, None if argument is None else argument(level, sign)))
    return operations


def on_image(image: Image.Image, operations: list[Operation], fill: Colour, resample: Image.Resampling) -> Image.Image:
    """Carry out operations on an RGB image, by timm and Pillow.

    Args:
        image: the image.
        operations: what to do.
        fill: colour of pixels that come from outside.
        resample: filter of shears, rotations and shifts.
    """
    for name, argument in operations:
        operation: Any = NAME_TO_OP[name]
        arguments = () if argument is None else (argument,)
        image = operation(image, *arguments, fillcolor=fill, resample=resample)
    return image


def on_pixels(pixels: Pixels, operations: list[Operation], fill: Colour, interpolation: int) -> Pixels:
    """Carry out operations on contiguous RGB values, (height, width, 3).

    Args:
        pixels: the values; they are left as they are.
        operations: what to do.
        fill: colour of pixels that come from outside.
        interpolation: OpenCV's flag for shears, rotations and shifts.
    """
    for name, argument in operations:
        amount = argument or 0.0
        if name in MATRICES:
            height, width = pixels.shape[:2]
            pixels = _warp(pixels, MATRICES[name](amount, width, height), fill, interpolation)
        elif name in SHIFTED_AXIS:
            pixels = _shift(pixels, amount, SHIFTED_AXIS[name], fill, interpolation)
        elif name in TABLES:
            pixels = _mapped(pixels, TABLES[name](amount))
        else:
            pixels = _ON_VALUES[name](pixels, amount)
    return pixels


_SHARPNESS_POWER = 1.35
"""Measured on 40 photographs: a sharpness of one strength changes an image of B pixels 3.2 times (B = 96 of 224), 2.1
times (128) and 1.6 times (160) as much as what is left of it where the whole image is sharpened and then reduced."""


def at_share(operations: list[Operation], share: float) -> list[Operation]:
    """Operations as strong on an image of a share of the final size as on the final size that is then reduced to it.

    Of all operations sharpness alone counts in pixels, and so is stronger on a small image.

    >>> at_share([Operation("SharpnessIncreasing", 1.9)], 0.5)[0].argument < 1.4
    True
    """
    weaker = share**_SHARPNESS_POWER
    return [
        operation._replace(argument=1 + (operation.argument - 1) * weaker)
        if operation.name == "SharpnessIncreasing" and operation.argument is not None
        else operation
        for operation in operations
    ]


def _posterize_bits(level: float, sign: int) -> float:
    # timm goes down to 0 bits, a black image, which Pillow 13 refuses.
    return max(1, 4 - int(level * 4))


def _enhance_factor(level: float, sign: int) -> float:
    return max(0.1, 1.0 + sign * level * 0.9)


_ARGUMENTS: dict[str, Callable[[float, int], float] | None] = {
    "AutoContrast": None,
    "Equalize": None,
    "Invert": None,
    "Rotate": lambda level, sign: sign * level * 30,
    "PosterizeIncreasing": _posterize_bits,
    "SolarizeIncreasing": lambda level, sign: 256 - min(256, int(level * 256)),
    "SolarizeAdd": lambda level, sign: min(128, int(level * 110)),
    "ColorIncreasing": _enhance_factor,
    "ContrastIncreasing": _enhance_factor,
    "BrightnessIncreasing": _enhance_factor,
    "SharpnessIncreasing": _enhance_factor,
    "ShearX": lambda level, sign: sign * level * 0.3,
    "ShearY": lambda level, sign: sign * level * 0.3,
    "TranslateXRel": lambda level, sign: sign * level * 0.45,
    "TranslateYRel": lambda level, sign: sign * level * 0.45,
}
"""The argument of each operation at a level from 0 to 1, as timm's `inc1` has them."""
NAMES = tuple(_ARGUMENTS)
"""The operations; each may be told by its number among them."""


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> npt.NDArray[np.float64]:
    """Pillow's six coefficients, for pixel centres at half coordinates, as a matrix for centres at whole ones."""
    return np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])


def _rotation(degrees: float, width: int, height: int) -> npt.NDArray[np.float64]:
    angle = -math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return _affine(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


MATRICES: dict[str, Callable[[float, int, int], npt.NDArray[np.float64]]] = {
    "Rotate": _rotation,
    "ShearX": lambda factor, width, height: _affine(1, factor, 0, 0, 1, 0),
    "ShearY": lambda factor, width, height: _affine(1, 0, 0, factor, 1, 0),
}
"""Of each argument, width and height: where in the image a pixel of the result comes from, (2, 3), whole numbers being
pixel centres."""
SHIFTED_AXIS = {"TranslateYRel": 0, "TranslateXRel": 1}
"""The axis that is shifted by a share of its length."""
TABLES: dict[str, Callable[[float], npt.NDArray[np.floating | np.integer]]] = {
    "Invert": lambda _: 255 - _LEVELS,
    "PosterizeIncreasing": lambda bits: _LEVELS & (256 - (1 << (8 - int(bits)))),
    "SolarizeIncreasing": lambda threshold: np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS),
    "SolarizeAdd": lambda amount: np.where(_LEVELS < 128, _LEVELS + amount, _LEVELS),
    "BrightnessIncreasing": lambda factor: np.trunc(factor * _LEVELS),
}
"""What becomes of each value, (256,), where that does not depend on the image; beyond 0 to 255 it is cut off."""


def _warp(pixels: Pixels, matrix: npt.NDArray[np.float64], fill: Colour, interpolation: int) -> Pixels:
    height, width = pixels.shape[:2]
    # By way of float32: OpenCV takes a quarter less time than on uint8 and gives the same.
    warped = cv2.warpAffine(
        pixels.astype(np.float32),
        matrix,
        (width, height),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.rint(warped).clip(0, 255).astype(np.uint8)


def _shift(pixels: Pixels, share: float, axis: int, fill: Colour, interpolation: int) -> Pixels:
    """Shift by a share of the side along one axis: whole pixels by slicing, the rest by a filter of five taps.

    It is what `_warp` would do, in a tenth of the time, with Pillow's cubic kernel and border.
    """
    size = pixels.shape[axis]
    whole, weights = shift_of(share * size, interpolation)
    kernel = weights.astype(np.float32).reshape((1, 5) if axis else (5, 1))
    filtered = cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    before, after = max(0, -whole), max(0, whole)
    if axis:
        kept, borders = filtered[:, after : size - before], (0, 0, before, after)
    else:
        kept, borders = filtered[after : size - before], (before, after, 0, 0)
    return cv2.copyMakeBorder(kept, *borders, cv2.BORDER_CONSTANT, value=fill)  # type: ignore[return-value]


def shift_of(distance: float, interpolation: int) -> tuple[int, npt.NDArray[np.float64]]:
    """A shift by a number of pixels as whole ones, and the weights of five neighbours for the rest."""
    whole = math.floor(distance + 0.5)
    away = np.abs(np.arange(-2, 3) - (distance - whole))
    if interpolation == cv2.INTER_LINEAR:
        return whole, np.maximum(0, 1 - away)
    near, far = away**3 - 2 * away**2 + 1, -(away**3) + 5 * away**2 - 8 * away + 4
    return whole, np.where(away < 1, near, np.where(away < 2, far, 0))


def _mapped(pixels: Pixels, levels: npt.NDArray[np.floating | np.integer]) -> Pixels:
    """Replace each value by its entry in a table of 256, or of (256, 3) for each channel."""
    table = levels.clip(0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table if table.ndim == 1 else table[None])  # type: ignore[return-value]


def _histograms(pixels: Pixels) -> npt.NDArray[np.int64]:
    """How often each value occurs in each channel: (256, 3)."""
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    return np.stack(counts, axis=1).astype(np.int64)


def _auto_contrast(pixels: Pixels, _: float) -> Pixels:
    seen = _histograms(pixels) > 0
    low, high = seen.argmax(axis=0), 255 - seen[::-1].argmax(axis=0)
    scale = 255 / np.maximum(high - low, 1)
    stretched = np.trunc(_LEVELS[:, None] * scale - low * scale)
    return _mapped(pixels, np.where(high > low, stretched, _LEVELS[:, None]))


def _equalize(pixels: Pixels, _: float) -> Pixels:
    counts = _histograms(pixels)
    last = counts[255 - (counts[::-1] > 0).argmax(axis=0), range(3)]
    step = (counts.sum(axis=0) - last) // 255
    before = np.cumsum(counts, axis=0) - counts
    levels = (step // 2 + before) // np.maximum(step, 1)
    return _mapped(pixels, np.where(step > 0, levels, _LEVELS[:, None]))


def _color(pixels: Pixels, factor: float) -> Pixels:
    return cv2.transform(pixels, factor * np.eye(3) + (1 - factor) * LUMA)  # type: ignore[return-value]


def _contrast(pixels: Pixels, factor: float) -> Pixels:
    mean = int(np.dot(LUMA, cv2.mean(pixels)[:3]) + 0.5)
    return _mapped(pixels, np.trunc(mean + factor * (_LEVELS - mean)))


def _sharpness(pixels: Pixels, factor: float) -> Pixels:
    kernel = (1 - factor) * _SMOOTH
    kernel[1, 1] += factor
    result = cv2.filter2D(pixels, -1, kernel)
    # Pillow leaves the outermost pixels alone.
    for edge in (np.s_[:1], np.s_[-1:], np.s_[:, :1], np.s_[:, -1:]):
        result[edge] = pixels[edge]
    return result  # type: ignore[return-value]


_ON_VALUES: dict[str, Callable[[Pixels, float], Pixels]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "ColorIncreasing": _color,
    "ContrastIncreasing": _contrast,
    "SharpnessIncreasing": _sharpness,
}
