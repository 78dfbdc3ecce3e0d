"""The work of a loader worker: requests in, stacked images out, damaged images replaced."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from upchirp.data.images.augmentation import Begun, TrainTransform
from upchirp.data.images.decoding import Picture, Pixels
from upchirp.data.images.pillow import DECODE_ERRORS
from upchirp.data.images.regions import Take, in_own_memory
from upchirp.data.labels import check_label
from upchirp.data.requests import Request, replacement
from upchirp.data.sources import Source
from upchirp.data.workers.slots import Slots
from upchirp.errors import DataFault, InputError

_REPLACEMENT_ATTEMPTS = 20


@dataclass(frozen=True)
class Corrupt:
    """An image that could not be read and was replaced by another."""

    index: int
    """Its index in the data set."""
    name: str
    """Its path or name."""
    reason: str
    """What the decoder said."""


def stacked(images: Sequence[Pixels], take: Take) -> Any:
    """Images of one size as (N, S, S, channels), in memory of their own."""
    memory, sent = take((len(images), *images[0].shape), getattr(torch, images[0].dtype.name))
    np.stack(images, out=memory.numpy())
    return sent


def finished(transform: TrainTransform, images: Sequence[Begun], take: Take) -> Any:
    """Images that were begun, as `stacked` gives them."""
    return stacked(transform.finish(images), take)


class Requested(Dataset[Any]):
    """A data set that is indexed by batches of requests.

    Args:
        source: the images.
        transform: what is done with one.
        together: makes one thing of what the transform gave, in memory that it is given.
        slots: where workers put that.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Picture, Request], Any],
        together: Callable[[Sequence[Any], Take], Any] = stacked,
        slots: Slots | None = None,
    ) -> None:
        self.source = source
        self.transform = transform
        self.together = together
        self.slots = slots

    def __getitems__(
        self, requests: Sequence[Request]
    ) -> tuple[Any, npt.NDArray[np.int64], tuple[Corrupt, ...]] | InputError:
        corrupt: list[Corrupt] = []
        try:
            pairs = [self.load(request, corrupt) for request in requests]
        except InputError as error:
            # Handed over as a value: what a worker raises arrives wrapped in its traceback.
            return error
        take = in_own_memory if self.slots is None else self.slots.take
        images = self.together([image for image, _ in pairs], take)
        labels = np.array([label for _, label in pairs], dtype=np.int64)
        return images, labels, tuple(corrupt)

    def load(self, request: Request, corrupt: list[Corrupt]) -> tuple[Any, int]:
        """What becomes of one request, and its label; `corrupt` takes the images that were replaced."""
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


class SingleImages(Dataset[Any]):
    """A data set that is indexed by single requests, for a `DataLoader` that puts them together by itself."""

    def __init__(self, requested: Requested) -> None:
        self._requested = requested

    def __len__(self) -> int:
        return len(self._requested.source)

    def __getitem__(self, request: Request) -> tuple[torch.Tensor, int]:
        """An image, (channels, S, S), and its label."""
        corrupt: list[Corrupt] = []
        begun, label = self._requested.load(request, corrupt)
        for each in corrupt:
            warnings.warn(f"cannot read {each.name} ({each.reason}): another image replaces it", stacklevel=2)
        image = self._requested.together([begun], in_own_memory)[0]
        return image.permute(2, 0, 1), label
