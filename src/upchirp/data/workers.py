"""What a loader worker does: requests in, stacked uint8 images out, damaged images replaced."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from upchirp.data.faults import DataFault
from upchirp.data.images.decoding import Picture, Pixels
from upchirp.data.requests import Request, replacement
from upchirp.data.sources import Source
from upchirp.errors import InputError

_REPLACEMENT_ATTEMPTS = 20

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on files that are damaged or no images."""


@dataclass(frozen=True)
class Corrupt:
    """An image that could not be read and was replaced by another."""

    index: int
    """Its index in the data set."""
    name: str
    """Its path or name."""
    reason: str
    """What the decoder said."""


def check_label(source: Source, index: int, label: int, classes: int | None = None) -> None:
    """Raise unless a label counts one of the classes.

    Args:
        source: where the image is.
        index: which one.
        label: its label.
        classes: how many there are; by default as many as the source names, or any number.

    Raises:
        DataFault: naming the image.
    """
    count = classes or len(source.classes)
    if label < 0 or (count and label >= count):
        limits = f"0 to {count - 1}, as there are {count} classes" if count else "0 or more"
        hint = "leave out what has no label" if label == -1 else "count the classes from 0"
        raise DataFault(f"{source.describe(index)} has label {label}, and labels must be {limits}: {hint}")


def stacked(images: Sequence[Pixels]) -> torch.Tensor:
    """Images of one size as (N, 3, S, S), channels last in memory."""
    # In a worker torch stacks them in shared memory right away, which saves a copy.
    together: torch.Tensor = default_collate([torch.from_numpy(image) for image in images])
    return together.permute(0, 3, 1, 2)


class Requested(Dataset[Any]):
    """A data set that is indexed by batches of requests.

    Args:
        source: the images.
        transform: what is done with one.
        together: makes one thing to send of what the transform gave.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Picture, Request], Any],
        together: Callable[[Sequence[Any]], Any] = stacked,
    ) -> None:
        self.source = source
        self.transform = transform
        self.together = together

    def __getitems__(
        self, requests: Sequence[Request]
    ) -> tuple[Any, npt.NDArray[np.int64], tuple[Corrupt, ...]] | InputError:
        corrupt: list[Corrupt] = []
        try:
            pairs = [self._load(request, corrupt) for request in requests]
        except InputError as error:
            # Handed over as a value: what a worker raises arrives wrapped in its traceback.
            return error
        images = self.together([image for image, _ in pairs])
        # An array travels inside the message; for a tensor of its own two processes shake hands.
        labels = np.array([label for _, label in pairs], dtype=np.int64)
        return images, labels, tuple(corrupt)

    def _load(self, request: Request, corrupt: list[Corrupt]) -> tuple[Any, int]:
        current = request
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            try:
                image, label = self.source.load(current.index)
                check_label(self.source, current.index, label)
                return self.transform(image, current), label
            except InputError:
                raise
            except DECODE_ERRORS as error:
                corrupt.append(Corrupt(current.index, self.source.describe(current.index), str(error)))
                current = replacement(request, len(self.source), attempt)
        raise DataFault(
            f"{_REPLACEMENT_ATTEMPTS} images in a row cannot be read, the last one {corrupt[-1].name} "
            f"({corrupt[-1].reason}): check the data folder"
        )
