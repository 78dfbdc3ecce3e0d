"""A user's own map-style data set as a source."""

from collections.abc import Mapping
from operator import index as as_int
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from upchirp.data.images.arrays import ArrayPicture
from upchirp.data.images.decoding import Picture, PillowPicture
from upchirp.errors import DataFault, InputError

_IMAGE_KEYS = ("image", "img", "pixel_values")
_LABEL_KEYS = ("label", "labels", "target")


class MapStyleDataset(Protocol):
    """What PyTorch calls a map-style data set: a length, and samples by index."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """The pair (image, label) at `index`."""


class MapStyleSource:
    """Any map-style data set of (image, label) pairs, before any transform.

    An image is a PIL image, a uint8 tensor (channels, height, width) or a uint8 array (height, width[,
    channels]) with 1 or 3 channels; for training with `in_chans` it may have any number of channels other than 3, and
    values of any type. A label is an integer. A sample may also be a dictionary that has them under one
    of the usual names: `image`, `img` or `pixel_values`, and `label`, `labels` or `target`.

    Args:
        dataset: the data set. Its `classes` or `class_to_idx`, if it has any, give the names of the classes; those of
            a `torch.utils.data.Subset` are its whole's.

    Raises:
        InputError: `dataset` has no length or no samples by index, or (on loading) a sample is none of the
            above.

    >>> source = MapStyleSource([(Image.new("RGB", (4, 3)), 1), (torch.zeros(3, 3, 4, dtype=torch.uint8), 0)])
    >>> [(image.size, label) for image, label in (source.load(0), source.load(1))]
    [((4, 3), 1), ((4, 3), 0)]
    """

    classes: tuple[str, ...]

    def __init__(self, dataset: MapStyleDataset | Dataset[Any]) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise InputError(
                f"{type(dataset).__name__} is no map-style data set: it needs __len__ and __getitem__ "
                "(an iterable data set has no samples by index)"
            )
        if isinstance(dataset, IterableDataset):
            raise InputError(
                f"{type(dataset).__name__} is an IterableDataset, which has no samples by index: give a map-style data "
                "set, or tar shards in a folder (upchirp.open_data reads WebDataset's)"
            )
        self._dataset: Any = dataset
        self.classes = _classes(dataset)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset)

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The label of each sample, (samples,), if the data set has them in `targets` or `labels`, else nothing."""
        found = _labels(self._dataset)
        return None if found is None or len(found) != len(self) else found

    def describe(self, index: int) -> str:
        """The data set's name and the index."""
        return f"sample {index} of {type(self._dataset).__name__}"

    def load(self, index: int) -> tuple[Picture, int]:
        """The image and its label.

        Raises:
            InputError: the sample is not a pair of an accepted image and an integer.
        """
        sample = self._dataset[index]
        if isinstance(sample, Mapping):
            sample = self._pair(sample, index)
        try:
            image, label = sample
        except (TypeError, ValueError):
            raise DataFault(f"{self.describe(index)} is not a pair (image, label)") from None
        try:
            number = as_int(label)
        except TypeError:
            raise DataFault(
                f"{self.describe(index)}: the label is a {type(label).__name__}, expected an integer"
            ) from None
        return self._picture(image, index), number

    def _pair(self, sample: Mapping[Any, Any], index: int) -> tuple[Any, Any]:
        """The image and the label of a sample with names."""
        found = [[name for name in names if name in sample] for names in (_IMAGE_KEYS, _LABEL_KEYS)]
        if [len(names) for names in found] != [1, 1]:
            raise DataFault(
                f"{self.describe(index)} is a dictionary of {', '.join(map(str, sample))}: it needs one of "
                f"{', '.join(_IMAGE_KEYS)} and one of {', '.join(_LABEL_KEYS)}, or return pairs (image, label)"
            )
        return sample[found[0][0]], sample[found[1][0]]

    def _picture(self, image: object, index: int) -> Picture:
        if isinstance(image, Image.Image):
            return PillowPicture(image)
        if (many := _many_channels(image)) is not None:
            return many
        if (photograph := _photograph(image)) is None:
            raise DataFault(
                f"{self.describe(index)}: the image is {_kind(image)}; expected a PIL image, a uint8 tensor "
                "(channels, height, width) or a uint8 array (height, width, channels): "
                "remove transforms that make floats"
            )
        return PillowPicture(Image.fromarray(np.ascontiguousarray(photograph)))


def _photograph(image: object) -> npt.NDArray[np.uint8] | None:
    """The values of a grey image, (height, width), or of an RGB one, (height, width, 3); nothing if it is neither."""
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3:
        values: npt.NDArray[np.uint8] = image.permute(1, 2, 0).numpy(force=True)
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8:
        values = image[..., None] if image.ndim == 2 else image
    else:
        return None
    if values.ndim != 3 or values.shape[-1] not in (1, 3) or 0 in values.shape:
        return None
    return values[..., 0] if values.shape[-1] == 1 else values


def _kind(image: object) -> str:
    if isinstance(image, torch.Tensor):
        return f"a {image.dtype} tensor of shape {tuple(image.shape)}"
    if isinstance(image, np.ndarray):
        return f"a {image.dtype} array of shape {image.shape}"
    return f"a {type(image).__name__}"


def _many_channels(image: object) -> ArrayPicture | None:
    """An image that is surely no photograph: of another type or of more channels, and in no sense of three."""
    values = image.numpy(force=True) if isinstance(image, torch.Tensor) else image
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or 0 in values.shape or 3 in values.shape:
        return None
    if values.dtype.kind not in "uif":
        return None
    picture = ArrayPicture(values)
    return None if picture.dtype == np.uint8 and picture.channels == 1 else picture


def _classes(dataset: Any) -> tuple[str, ...]:
    if isinstance(dataset, Subset):
        return _classes(dataset.dataset)
    if (names := getattr(dataset, "classes", None)) is not None:
        return tuple(map(str, names))
    by_name = getattr(dataset, "class_to_idx", None)
    if isinstance(by_name, Mapping) and sorted(by_name.values()) == list(range(len(by_name))):
        return tuple(str(name) for name in sorted(by_name, key=by_name.__getitem__))
    return ()


def _labels(dataset: Any) -> npt.NDArray[np.int64] | None:
    if isinstance(dataset, Subset):
        whole = _labels(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices, dtype=np.int64)]
    # What a transform makes of them shows only when a sample is asked for.
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        found = getattr(dataset, name, None)
        if found is None or callable(found):
            continue
        try:
            labels = np.asarray(found)
        except (TypeError, ValueError, RuntimeError):
            continue
        if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
            return labels.astype(np.int64)
    return None
