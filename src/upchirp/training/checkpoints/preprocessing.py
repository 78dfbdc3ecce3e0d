"""The preprocessing of images for trained weights, which goes with the weights wherever they go."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from upchirp.conversion import plain
from upchirp.data import RGB, Augmentation, Channels, Interpolation, PixelType, default_crop_pct


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What evaluation does to an image, as far as it is known; None where it is not.

    >>> Preprocessing.of_timm({"mean": [0.5, 0.5, 0.5], "crop_pct": 0.9, "interpolation": "nearest"}).settings
    {'mean': (0.5, 0.5, 0.5)}
    """

    input_size: int | None = None
    """Side, pixels."""
    mean: tuple[float, ...] | None = None
    """Mean of the values of each channel, 0 to 1 for those of 8 bits."""
    std: tuple[float, ...] | None = None
    """Standard deviation of the same."""
    pixel_type: PixelType | None = None
    """What values are; see `Augmentation`."""
    interpolation: Interpolation | None = None
    """Filter of the resize."""
    crop_pct: float | None = None
    """Share of the resized image that the centre crop keeps at `input_size`."""

    @property
    def channels(self) -> Channels:
        """What images consist of."""
        return Channels(len(self.mean or RGB.count * [0]), self.pixel_type or "uint8")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a training that follow from it."""
        values = {"mean": self.mean, "std": self.std, "pixel_type": self.pixel_type}
        return {name: value for name, value in values.items() if value is not None}

    def crop_at(self, size: int) -> float | None:
        """The share to keep at an input side; None if it is known for another one only."""
        return self.crop_pct if size == self.input_size else None

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain data that `from_dict` reads."""
        return {name: plain(value) for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_dict` gave.

        Raises:
            LookupError, TypeError: something else.
        """
        return cls(**{**data, **{name: tuple(data[name]) for name in ("mean", "std") if name in data}})

    @classmethod
    def of(cls, seen: Augmentation, size: int, crop_pct: float | None = None) -> "Preprocessing":
        """What evaluation does to images of these settings at an input side; by default it crops as is usual there."""
        return cls(
            input_size=size,
            mean=seen.mean,
            std=seen.std,
            pixel_type=None if seen.pixel_type == "uint8" else seen.pixel_type,
            interpolation=seen.interpolation,
            crop_pct=crop_pct or default_crop_pct(size),
        )

    @classmethod
    def of_timm(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Read timm's `pretrained_cfg`; what upchirp cannot do is left out."""
        size, crop, filter_name = (config.get(name) for name in ("input_size", "crop_pct", "interpolation"))
        return cls(
            input_size=int(size[-1]) if isinstance(size, list | tuple) and size else None,
            mean=_values(config.get("mean")),
            std=_values(config.get("std")),
            interpolation=filter_name if filter_name in get_args(Interpolation) else None,
            crop_pct=float(crop) if isinstance(crop, int | float) and 0 < crop <= 1 else None,
        )


def _values(values: Any) -> tuple[float, ...] | None:
    return tuple(map(float, values)) if isinstance(values, list | tuple) and values else None
