"""The user's choices about the data. No torch in here, nor anything else that takes long to import."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from upchirp.curriculum.arguments import as_whole
from upchirp.curriculum.curriculum import Operator
from upchirp.errors import InputError
from upchirp.machine import usable_cores

Interpolation = Literal["bicubic", "bilinear", "lanczos"]
Mode = Literal["fast", "faithful", "fast_lanczos"]
Prepare = Literal["cpu", "device", "device-jpeg"]
AskedPrepare = Literal["auto", "cpu", "device", "device-jpeg"]
Crop = Literal["random", "center"]
PixelType = Literal["uint8", "float32"]

VAL_SHARE = 0.1
"""Share of the images that validates where the data have no validation images."""
DEFAULT_TIMEOUT = 600.0
"""Seconds without a batch after which a loader has stalled."""
_MOST_BY_DEFAULT = 16
"""Loader processes that are started unasked."""


@dataclass(frozen=True)
class Channels:
    """What an image consists of, once it is prepared.

    >>> Channels().photographs, Channels(12, "float32").bytes
    (True, 48)
    """

    count: int = 3
    """1 is grey, 3 are red, green and blue, as long as values have 8 bits."""
    type: PixelType = "uint8"
    """What a value is: of 8 bits, or in units of its own."""

    @property
    def photographs(self) -> bool:
        """Whether images are prepared as grey or RGB photographs are; else as arrays, band by band."""
        return self.type == "uint8" and self.count in (1, 3)

    @property
    def bytes(self) -> int:
        """Of a pixel."""
        return self.count * (1 if self.type == "uint8" else 4)


RGB = Channels()


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Every setting of the augmentation, with the values of Table 24 and timm's flag names.

    Raises:
        InputError: a setting outside its range.

    >>> Augmentation(mixup=0.0).cutmix
    1.0
    >>> Augmentation(reprob=2)
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: `reprob` is 2: it is a probability, give 0 to 1
    """

    crop: Crop = "random"
    """`random` draws a crop by scale and ratio; `center` takes the view of evaluation, as FixRes does."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area that a crop keeps."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width / height of a crop."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    interpolation: Interpolation = "bicubic"
    """Filter of the crop's resize to the final size, and of RandAugment's shears and rotations."""
    randaug_layers: int = 2
    """RandAugment operations drawn for each image; 0 turns RandAugment off."""
    randaug_std: float = 0.5
    """Standard deviation of the magnitude around what the curriculum asks for."""
    randaug_prob: float = 0.5
    """Probability that a drawn operation is carried out."""
    reprob: float = 0.25
    """Probability of erasing a random rectangle."""
    mixup: float = 0.8
    """Alpha of mixup: the share of an image is drawn from Beta(alpha, alpha); 0 turns mixup off."""
    cutmix: float = 1.0
    """Alpha of CutMix; 0 turns CutMix off."""
    mixup_prob: float = 1.0
    """Probability that a group of samples is mixed at all."""
    mixup_switch_prob: float = 0.5
    """Probability of CutMix rather than mixup, where both are on."""
    smoothing: float = 0.1
    """Label smoothing: the share of a target that is spread over all classes."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean of the values of each channel, from 0 to 1 for those of 8 bits and else in units of the data; RandAugment
    fills uncovered pixels with it. By default ImageNet's for RGB, and measured for other images."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation of the same."""
    pixel_type: PixelType = "uint8"
    """What values are: of 8 bits (`uint8`), or others (`float32`), which keep their units; the data decide."""

    def __post_init__(self) -> None:
        for name in ("hflip", "randaug_prob", "reprob", "mixup_prob", "mixup_switch_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise _refusal(name, getattr(self, name), "it is a probability, give 0 to 1")
        for name in ("randaug_std", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise _refusal(name, getattr(self, name), "give 0 or more")
        if not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1):
            raise _refusal("scale", self.scale, "give two shares of the area in (0, 1], the least first")
        if not (len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1] < math.inf):
            raise _refusal("ratio", self.ratio, "give two ratios above 0, the least first")
        if self.crop not in get_args(Crop):
            raise _refusal("crop", repr(self.crop), f"choose one of {', '.join(get_args(Crop))}")
        if self.interpolation not in get_args(Interpolation):
            raise _refusal(
                "interpolation", repr(self.interpolation), f"choose one of {', '.join(get_args(Interpolation))}"
            )
        if not (isinstance(self.randaug_layers, int) and self.randaug_layers >= 0):
            raise _refusal("randaug_layers", self.randaug_layers, "give a whole number from 0")
        if not 0 <= self.smoothing < 1:
            raise _refusal("smoothing", self.smoothing, "give 0 or more, below 1")
        if self.pixel_type not in get_args(PixelType):
            raise _refusal("pixel_type", repr(self.pixel_type), f"choose one of {', '.join(get_args(PixelType))}")
        least, most = (0.0, 1.0) if self.pixel_type == "uint8" else (-math.inf, math.inf)
        if not (self.mean and all(least <= value <= most and math.isfinite(value) for value in self.mean)):
            raise _refusal(
                "mean",
                self.mean,
                "give a value from 0 to 1 for each channel, or `pixel_type='float32'` for values in units of their own"
                if self.pixel_type == "uint8"
                else "give a value for each channel",
            )
        if len(self.std) != len(self.mean):
            raise _refusal(
                "mean", self.mean, f"give `std` with as many values, one for each channel; it has {len(self.std)}"
            )
        if not (all(0 < value < math.inf for value in self.std)):
            raise _refusal("std", self.std, "give values above 0")

    @property
    def channels(self) -> Channels:
        """What prepared images consist of."""
        return Channels(len(self.mean), self.pixel_type)

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed, by mixup or CutMix."""
        return self.mixup_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


def _refusal(name: str, value: object, advice: str) -> InputError:
    return InputError(f"`{name}` is {value}: {advice}")


def loader_processes(workers: int | None) -> int:
    """How many loader processes to start: as many as asked for, by default one for each core, 16 at most.

    Raises:
        InputError: more than can help, as `check_workers` has it.
    """
    if workers is None:
        return min(_MOST_BY_DEFAULT, usable_cores())
    check_workers(workers)
    return workers


def check_workers(workers: int) -> None:
    """Refuse more processes than can help, each of which takes memory.

    Raises:
        InputError: fewer than 0, more than 32, and more than 8 for each core.
    """
    if as_whole("`workers`", workers) < 0:
        raise InputError(f"`workers` is {workers}: it must be 0 or more")
    cores = usable_cores()
    most = max(32, 8 * cores)
    if workers > most:
        raise InputError(
            f"`workers` is {workers}: there {'are' if cores > 1 else 'is'} {cores} core{'s' if cores > 1 else ''}: "
            f"give {most} at most; one for each core is the usual"
        )


class Reduced(Protocol):
    """What has a bandwidth and perhaps an operator of its own: a phase, a stage, a step, a request."""

    @property
    def bandwidth(self) -> int:
        """Side in pixels of the low-frequency input."""

    @property
    def operator(self) -> Operator | None:
        """What reduces images to it; None leaves it to the run."""


def image_side(of: Reduced, low_frequency: Operator, final_size: int) -> int:
    """Side in pixels of the images that workers give: all but `lanczos` reduces on the device, from the final size.

    Args:
        of: a stage, a step or a request.
        low_frequency: what reduces where it names no operator.
        final_size: input side at test time, pixels.

    >>> from upchirp.curriculum import Phase
    >>> image_side(Phase(end=1, bandwidth=96), "lanczos", 224), image_side(Phase(end=1, bandwidth=96), "crop", 224)
    (96, 224)
    """
    return of.bandwidth if (of.operator or low_frequency) == "lanczos" else final_size


def check_low_frequency(low_frequency: str) -> None:
    """Refuse an unknown low-frequency method with an `InputError`."""
    if low_frequency not in get_args(Operator):
        raise InputError(f"low-frequency {low_frequency!r} is unknown: choose one of {', '.join(get_args(Operator))}")


def check_reduction(stages: Iterable[Reduced], low_frequency: Operator, final_size: int) -> None:
    """Refuse bandwidths above what images are reduced from: where bandwidths fall, only `lanczos` makes them.

    Raises:
        InputError: a bandwidth above the final size, by an operator that starts from that.
    """
    for stage in stages:
        if stage.bandwidth > image_side(stage, low_frequency, final_size):
            raise InputError(
                f"bandwidth {stage.bandwidth} is above the final size, {final_size}, from which "
                f"{stage.operator or low_frequency} reduces: use lanczos there, or end with the largest bandwidth"
            )


def filter_at(side: int, final_size: int, interpolation: Interpolation, mode: Mode) -> Interpolation:
    """The filter that resizes a crop straight to a side: the pipeline's own to the final size, below it Lanczos.

    >>> filter_at(96, 224, "bicubic", "fast"), filter_at(224, 224, "bicubic", "fast")
    ('lanczos', 'bicubic')
    """
    return interpolation if mode == "fast" and side == final_size else "lanczos"


def check_device_channels(prepare: Prepare, channels: Channels) -> None:
    """Refuse preparation on the device for images that are no photographs.

    Raises:
        InputError: saying so.
    """
    if prepare != "cpu" and not channels.photographs:
        raise InputError(f"`prepare={prepare!r}` is for grey and RGB images with values of 8 bits: leave it out")


def check_prepare(prepare: str, mode: str, low_frequency: str) -> None:
    """Refuse an unknown place of preparation, and the device for what only workers do.

    Raises:
        InputError: an unknown one, or the device with another mode than fast or another reduction than lanczos.
    """
    if prepare not in get_args(Prepare):
        raise InputError(f"prepare {prepare!r} is unknown: choose one of {', '.join(get_args(Prepare))}")
    if prepare != "cpu" and (mode == "faithful" or low_frequency != "lanczos"):
        raise InputError(
            f"the device prepares images by mode fast with low-frequency lanczos only, not by {mode} with "
            f"{low_frequency}: leave those as they are, or let the CPU prepare them"
        )
