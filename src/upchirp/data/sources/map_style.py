"""A user's own map-style data set as a source."""

from operator import index as as_int
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from upchirp.data.decoding import Picture, PillowPicture
from upchirp.errors import InputError


class MapStyleDataset(Protocol):
    """What PyTorch calls a map-style data set: a length, and samples by index."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """The pair (image, label) at `index`."""


class MapStyleSource:
    """Any map-style data set of (image, label) pairs, before any transform.

    An image is a PIL image, a uint8 tensor (channels, height, width) or a uint8 array (height, width[,
    channels]) with 1 or 3 channels; a label is an integer.

    Args:
        dataset: the data set. Its `classes`, if it has any, are taken as the names of the classes.

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
        self._dataset: Any = dataset
        self.classes = tuple(str(name) for name in getattr(dataset, "classes", ()))

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset)

    def describe(self, index: int) -> str:
        """The data set's name and the index."""
        return f"sample {index} of {type(self._dataset).__name__}"

    def load(self, index: int) -> tuple[Picture, int]:
        """The image and its label.

        Raises:
            InputError: the sample is not a pair of an accepted image and an integer.
        """
        sample = self._dataset[index]
        try:
            image, label = sample
        except (TypeError, ValueError):
            raise InputError(f"{self.describe(index)} is not a pair (image, label)") from None
        try:
            number = as_int(label)
        except TypeError:
            raise InputError(
                f"{self.describe(index)}: the label is a {type(label).__name__}, expected an integer"
            ) from None
        return PillowPicture(self._as_pil(image, index)), number

    def _as_pil(self, image: object, index: int) -> Image.Image:
        if isinstance(image, Image.Image):
            return image
        got = f"a {type(image).__name__}"
        array: np.ndarray[Any, Any] | None = None
        if isinstance(image, torch.Tensor):
            got = f"a {image.dtype} tensor of shape {tuple(image.shape)}"
            if image.dtype == torch.uint8 and image.ndim == 3:
                array = image.permute(1, 2, 0).numpy(force=True)
        elif isinstance(image, np.ndarray):
            got = f"a {image.dtype} array of shape {image.shape}"
            if image.dtype == np.uint8:
                array = image[..., None] if image.ndim == 2 else image
        if array is None or array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
            raise InputError(
                f"{self.describe(index)}: the image is {got}; expected a PIL image, a uint8 tensor "
                "(channels, height, width) or a uint8 array (height, width, channels): "
                "remove transforms that make floats"
            )
        return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array))
