"""What a loader worker does: requests in, stacked uint8 images out, damaged images replaced."""

import os
import signal
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from upchirp.data.decoding import Picture, Pixels
from upchirp.data.requests import Request, replacement
from upchirp.data.sources import Source
from upchirp.errors import InputError

_REPLACEMENT_ATTEMPTS = 20
_GRACE_SECONDS = 60

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


class Requested(Dataset[Any]):
    """A data set that is indexed by batches of requests."""

    def __init__(self, source: Source, transform: Callable[[Picture, Request], Pixels]) -> None:
        self.source = source
        self.transform = transform

    def __getitems__(
        self, requests: Sequence[Request]
    ) -> tuple[torch.Tensor, npt.NDArray[np.int64], tuple[Corrupt, ...]] | InputError:
        corrupt: list[Corrupt] = []
        try:
            pairs = [self._load(request, corrupt) for request in requests]
        except InputError as error:
            # Handed over as a value: what a worker raises arrives wrapped in its traceback.
            return error
        # In a worker torch stacks them in shared memory right away, which saves a copy.
        images = default_collate([torch.from_numpy(image) for image, _ in pairs]).permute(0, 3, 1, 2)
        # An array travels inside the message; for a tensor of its own two processes shake hands.
        labels = np.array([label for _, label in pairs], dtype=np.int64)
        return images, labels, tuple(corrupt)

    def _load(self, request: Request, corrupt: list[Corrupt]) -> tuple[Pixels, int]:
        current = request
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            try:
                image, label = self.source.load(current.index)
                return self.transform(image, current), label
            except InputError:
                raise
            except DECODE_ERRORS as error:
                corrupt.append(Corrupt(current.index, self.source.describe(current.index), str(error)))
                current = replacement(request, len(self.source), attempt)
        raise InputError(
            f"{_REPLACEMENT_ATTEMPTS} images in a row cannot be read, the last one {corrupt[-1].name} "
            f"({corrupt[-1].reason}): check the data folder"
        )


def usable_cores() -> int:
    """The cores that this process may use: with a scheduler or in a container often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outlive_interrupts(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the training process, which ends its loader workers after it has saved.

    Both often reach the whole process group. SIGTERM still ends a worker after a minute, so none is left behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda signum, frame: _end_later())


def start_worker(worker: int) -> None:
    """Prepare a worker process: it outlives interrupts and computes on one core."""
    outlive_interrupts(worker)
    # One core each, and threads that the training process may have started do not survive the fork.
    cv2.setNumThreads(0)


def start_in_background(worker: int) -> None:
    """The same, and let it wait for idle time."""
    start_worker(worker)
    if hasattr(os, "nice"):
        os.nice(19)


def _end_later() -> None:
    signal.alarm(_GRACE_SECONDS)
