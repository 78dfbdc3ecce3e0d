"""The channels of a data set: what its images consist of, and their mean and standard deviation."""

from dataclasses import replace

import numpy as np

from upchirp.data.images.arrays import ArrayPicture, OtherChannels, Values
from upchirp.data.images.bands import values_of
from upchirp.data.images.decoding import Picture, PillowPicture
from upchirp.data.images.pillow import DECODE_ERRORS, grey
from upchirp.data.settings import RGB, Augmentation, Channels, PixelType
from upchirp.data.sources import Source
from upchirp.errors import InputError

_IMAGES = 256
"""Training images whose values are looked at."""
_TRIED = 20
"""Images that are tried for one that tells the type of all."""
_SHOWN = 3


def for_channels(
    augmentation: Augmentation, source: Source, channels: int, *, asked: bool = True
) -> tuple[Augmentation, list[str]]:
    """Settings for images of so many channels: their pixel type, and the mean and the standard deviation of each.

    RGB photographs keep the settings' own. Of other images, unless the settings have values for as many channels
    already, these are measured on up to 256 training images, evenly spaced. Those for values of 8 bits say nothing of
    values in units of their own.

    Args:
        augmentation: the settings.
        source: the training images, of which one tells the type of all.
        channels: that they are trained with; 1 makes grey images of RGB ones.
        asked: whether the mean and the standard deviation were asked for, and are not those that weights came with.

    Returns:
        The settings, and a line for the user if something was measured.

    Raises:
        InputError: the images have other channels, or another type of values than the settings say.

    >>> from upchirp.data.sources import GeneratedSource
    >>> source = GeneratedSource("train", size=32, num_images=8, num_classes=2)
    >>> grey, notes = for_channels(Augmentation(), source, 1)
    >>> len(grey.mean), 0 < grey.mean[0] < 1
    (1, True)
    """
    kind = _kind(source, channels)
    if kind is None:
        return augmentation, []
    if augmentation.pixel_type == "float32" and kind.type == "uint8":
        raise InputError(
            f"{source.describe(0)} and others have values of 8 bits, and `pixel_type` is float32, for values in units "
            "of their own: leave it out, or give data like those that the weights were trained on"
        )
    usual, of_bytes = augmentation.mean == Augmentation().mean, augmentation.pixel_type == "uint8"
    if kind.type == "float32" and of_bytes and asked and not usual:
        raise InputError(
            f"{source.describe(0)} and others have values in units of their own, and `mean` and `std` are for values "
            "of 8 bits: give `pixel_type='float32'` if they are in these units, or leave them out to have them measured"
        )
    if augmentation.channels.count == channels and not (kind.type == "float32" and (of_bytes or usual)):
        return augmentation, []
    mean, std, images = _measured(source, kind)
    line = (
        f"{channels} channel{'s' if channels > 1 else ''} of {kind.type} values: mean {_listed(mean)} and standard "
        f"deviation {_listed(std)}, measured on {images:,} training images"
    )
    return replace(augmentation, mean=mean, std=std, pixel_type=kind.type), [line]


def _kind(source: Source, channels: int) -> Channels | None:
    """What the images consist of, by the first one that can be read; nothing if they are RGB photographs.

    Raises:
        InputError: they have other channels, or none of the first few can be read.
    """
    refused, other = "", False
    for index in range(min(_TRIED, len(source))):
        try:
            picture, _ = source.load(index)
            if channels == RGB.count and not isinstance(picture, ArrayPicture):
                return None
            kind = Channels(channels, _pixel_type(picture))
            _values(picture, kind)
        except DECODE_ERRORS as error:
            advice = f": give `in_chans={error.here}`" if isinstance(error, OtherChannels) else ""
            other = other or bool(advice)
            refused = refused or f"{source.describe(index)}: {error}{advice}"
        else:
            return kind
    if channels == RGB.count and not other:
        # Whether that is the fault of the images is told when they are read.
        return None
    raise InputError(refused)


def _pixel_type(picture: Picture) -> PixelType:
    if isinstance(picture, ArrayPicture):
        return "uint8" if picture.dtype == np.uint8 else "float32"
    return "float32" if isinstance(picture, PillowPicture) and picture.wide else "uint8"


def _values(picture: Picture, kind: Channels) -> Values:
    """All values, as they are before anything is done with them."""
    if not kind.photographs:
        return values_of(picture, kind)
    pixels = np.asarray(picture.whole())
    return grey(pixels) if kind.count == 1 else pixels


def _measured(source: Source, kind: Channels) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and standard deviation of each channel, every image counting alike, and the number of images."""
    count = min(_IMAGES, len(source))
    moments = []
    for place in range(count):
        try:
            values = _values(source.load(place * len(source) // count)[0], kind)
        except DECODE_ERRORS:
            continue
        scaled = values.reshape(-1, kind.count).astype(np.float64) / (255 if kind.type == "uint8" else 1)
        moments.append((scaled.mean(axis=0), (scaled**2).mean(axis=0)))
    if not moments:
        raise InputError(f"none of {count} training images can be read to measure their mean: look at the files")
    mean, square = np.mean(moments, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    # A channel that is the same everywhere stays at 0.
    std[std <= 1e-6 * np.abs(mean)] = 1
    return tuple(map(_short, mean)), tuple(map(_short, std)), len(moments)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values[:_SHOWN]) + (" ..." if len(values) > _SHOWN else "")
