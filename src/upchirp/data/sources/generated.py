"""A generated data set: no download, and the real path through JPEG decoding."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.errors import InputError

Array = npt.NDArray[np.float32]

_DEFAULT_IMAGES = {"train": 5000, "val": 1000}
_SHAPES = ("disc", "square", "triangle", "cross", "ring")
_TEXTURES = ("stripes", "checks", "honeycomb", "grain")
# The first n cells of this order keep both factors in play for any n: 2 x 2 first, then 3 x 3, 4 x 4, all.
_CLASSES = sorted(
    ((shape, texture) for shape in range(len(_SHAPES)) for texture in range(len(_TEXTURES))),
    key=lambda cell: (max(cell), cell),
)
_WAVELENGTHS = (7.2, 9.4)
"""Of a texture, in pixels of a 128-pixel image: 4.1 to 5.4 in its evaluation view at 64 pixels."""
_JPEG_QUALITY = 90


class GeneratedSource:
    """Coloured objects on cluttered backgrounds; a class is a coarse shape with a fine texture.

    The shape of the object is plain at low frequencies. Its texture has wavelengths of 4.1 to 5.4 pixels at the
    final size (half of `size`), at the very limit of what 28 of 64 pixels can show, so the lowest frequencies
    tell the shapes apart and little more. The set is made to show a curriculum at work, not to measure one.
    Colours, contrast, position, scale and rotation say nothing about the class. Every image is a pure function of
    (`seed`, `split`, its index), is made when the source is created and is kept as a JPEG in memory: 6,000 images
    of 128 pixels take about 5 seconds and 40 MB.

    Args:
        split: `train` or `val`: the same distribution, other images.
        size: side of the stored images in pixels, 32 or more.
        num_images: by default 5000 for `train`, 1000 for `val`.
        num_classes: 2 to 20.
        seed: any integer from 0.

    Raises:
        InputError: an argument out of its range.

    >>> source = GeneratedSource("val", num_images=8, num_classes=4)
    >>> source.classes
    ('disc-stripes', 'disc-checks', 'square-stripes', 'square-checks')
    >>> picture, label = source.load(5)
    >>> picture.size, label
    ((128, 128), 1)
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        split: Literal["train", "val"],
        *,
        size: int = 128,
        num_images: int | None = None,
        num_classes: int = len(_CLASSES),
        seed: int = 0,
    ) -> None:
        if split not in _DEFAULT_IMAGES:
            raise InputError(f"generated data have no split {split!r}: choose train or val")
        count = _DEFAULT_IMAGES[split] if num_images is None else num_images
        if size < 32:
            raise InputError(f"generated images of {size} pixels show no texture: choose a size of 32 or more")
        if not 2 <= num_classes <= len(_CLASSES):
            raise InputError(f"generated data have 2 to {len(_CLASSES)} classes, not {num_classes}")
        if count < num_classes:
            raise InputError(f"{count} generated images for {num_classes} classes: make at least one of each")
        if seed < 0:
            raise InputError(f"seed {seed} of the generated data is negative: choose 0 or more")
        cells = _CLASSES[:num_classes]
        self.classes = tuple(f"{_SHAPES[shape]}-{_TEXTURES[texture]}" for shape, texture in cells)
        self._split = split
        painter = _Painter(size, seed)
        split_number = list(_DEFAULT_IMAGES).index(split)

        def encoded(index: int) -> bytes:
            rng = np.random.default_rng([seed, split_number, index])
            buffer = BytesIO()
            Image.fromarray(painter.paint(rng, *cells[index % num_classes])).save(buffer, "JPEG", quality=_JPEG_QUALITY)
            return buffer.getvalue()

        # NumPy and the JPEG encoder let other threads run, so two threads are faster than one.
        with ThreadPoolExecutor(max_workers=2) as pool:
            files = list(pool.map(encoded, range(count)))
        self._ends = np.cumsum([len(file) for file in files], dtype=np.int64)
        self._files = b"".join(files)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._ends)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The label of each image: (images,)."""
        return np.arange(len(self)) % len(self.classes)

    def describe(self, index: int) -> str:
        """The split, index and class of an image."""
        return f"generated {self._split} image {index} ({self.classes[index % len(self.classes)]})"

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label."""
        data, label = self.encoded(index)
        return open_picture(data), label

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The JPEG file of the image, and its label."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start = int(self._ends[index - 1]) if index else 0
        return self._files[start : int(self._ends[index])], index % len(self.classes)


def _disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - np.float32(0.564)


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.5)


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(v, np.abs(u) * np.float32(0.866) - v * np.float32(0.5)) - np.float32(0.439)


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - np.float32(0.671), np.minimum(u, v) - np.float32(0.671 / 3))


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - np.float32(0.515)) - np.float32(0.154)


# Distance to the outline, negative inside. All five have area 1, so that the area gives no shape away.
_OUTLINES: tuple[Callable[[Array, Array], Array], ...] = (_disc, _square, _triangle, _cross, _ring)


class _Painter:
    """Paints single images; what all images of one size share is computed once."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._axis = np.linspace(-1, 1, size, dtype=np.float32)
        self._pixels = np.arange(size, dtype=np.float32)
        # One noise field, shifted: fresh noise for each image would cost more than all the rest.
        self._noise = np.random.default_rng([seed, 2]).standard_normal((2 * size, 2 * size), dtype=np.float32)

    def paint(self, rng: np.random.Generator, shape: int, texture: int) -> npt.NDArray[np.uint8]:
        """One image, (size, size, 3)."""
        size = self._size
        object_mask = self._object(rng, shape, rng.uniform(0.9, 1.3), rng.uniform(-0.25, 0.25, 2))
        other = int(rng.integers(len(_SHAPES)))
        clutter_mask = self._object(rng, other, rng.uniform(0.2, 0.4), rng.uniform(-1, 1, 2))
        fine = self._texture(rng, texture)
        fine *= np.float32(rng.uniform(16, 34))
        colours = rng.uniform(40, 215, (3, 3)).astype(np.float32)
        # An object as bright as its background, in every channel, would have no outline to see.
        colours[1] = (colours[0] + rng.choice((-1, 1), 3) * rng.uniform(50, 120, 3) - 40) % 175 + 40
        drift = rng.normal(0, 10, (2, 3)).astype(np.float32)

        image = np.empty((3, size, size), dtype=np.float32)
        top, left = rng.integers(0, size + 1, 2)
        noise = self._noise[top : top + size, left : left + size] * np.float32(rng.uniform(3, 8))
        first, second = self._coarse_field(rng), self._coarse_field(rng)
        fine = fine * object_mask + noise
        keep = 1 - object_mask
        clutter_mask *= np.float32(rng.uniform(0.4, 1)) * keep
        keep -= clutter_mask
        for channel in range(3):
            plane = image[channel]
            np.multiply(first, drift[0, channel], out=plane)
            plane += second * drift[1, channel]
            plane += colours[0, channel]
            plane *= keep
            plane += object_mask * colours[1, channel]
            plane += clutter_mask * colours[2, channel]
            plane += fine
        np.clip(image, 0, 255, out=image)
        return np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))

    def _object(self, rng: np.random.Generator, shape: int, scale: float, centre: npt.NDArray[Any]) -> Array:
        """How much of each pixel an object covers: (size, size), 0 to 1, a turned shape of area `scale`^2."""
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
        x = self._axis - np.float32(centre[0])
        y = (self._axis - np.float32(centre[1]))[:, None]
        distance = _OUTLINES[shape](cos * x + sin * y, cos * y - sin * x)
        distance *= np.float32(-scale * self._size / 2)
        distance += np.float32(0.5)
        return np.clip(distance, 0, 1, out=distance)

    def _texture(self, rng: np.random.Generator, texture: int) -> Array:
        """A texture with zero mean and unit power, turned at random."""
        waves = (1, 2, 3, 12)[texture]
        wavelength = rng.uniform(*_WAVELENGTHS) * self._size / 128
        if _TEXTURES[texture] == "grain":
            angles = rng.uniform(0, np.pi, waves)
            wavelengths = wavelength * rng.uniform(0.85, 1.15, waves)
        else:
            angles = rng.uniform(0, np.pi) + np.arange(waves) * np.pi / waves
            wavelengths = np.full(waves, wavelength)
        frequency = 2 * np.pi / wavelengths
        return self._waves(rng, frequency * np.cos(angles), frequency * np.sin(angles))

    def _coarse_field(self, rng: np.random.Generator) -> Array:
        """A smooth field with zero mean and unit power: a few waves of half a turn to four turns each."""
        frequency = 2 * np.pi / self._size * rng.uniform(0.5, 4, 5)
        angles = rng.uniform(0, 2 * np.pi, 5)
        return self._waves(rng, frequency * np.cos(angles), frequency * np.sin(angles))

    def _waves(self, rng: np.random.Generator, along_x: npt.NDArray[Any], along_y: npt.NDArray[Any]) -> Array:
        """Sum of plane waves with random phases, as one product of two thin matrices."""
        phases = rng.uniform(0, 2 * np.pi, len(along_x))
        x = (self._pixels[:, None] * along_x + phases).astype(np.float32)
        y = (self._pixels[:, None] * along_y).astype(np.float32)
        left = np.concatenate([np.cos(y), np.sin(y)], axis=1)
        right = np.concatenate([np.cos(x), -np.sin(x)], axis=1)
        field: Array = left @ right.T
        field *= np.float32(np.sqrt(2 / len(along_x)))
        return field
