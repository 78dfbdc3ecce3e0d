"""What a loader worker does: requests in, stacked uint8 images out, damaged images replaced."""

import os
import re
import signal
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from upchirp.data.decoding import Picture, Pixels
from upchirp.data.requests import Request, replacement
from upchirp.data.sources import Source
from upchirp.errors import InputError

_REPLACEMENT_ATTEMPTS = 20
_GRACE_SECONDS = 60
_KILL_SECONDS = 5

DEFAULT_TIMEOUT = 600.0
"""Seconds after which a loader that gives no batch has stalled."""

# torch has no exception types of its own for these; the second comes from a signal handler, wherever the process is.
_STALLED = re.compile(r"DataLoader timed out after ([\d.]+) seconds")
_DIED = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed|exited)[^.]*")

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


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader, in one iteration.

    Raises:
        InputError: a worker handed one over, died, or gave nothing for as long as the loader's `timeout`.
    """
    with loader_failures():
        batches = iter(loader)
        while True:
            try:
                prepared = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if _STALLED.match(str(error)):
                    _kill(batches)
                raise
            if isinstance(prepared, InputError):
                raise prepared
            yield prepared


@contextmanager
def loader_failures() -> Iterator[None]:
    """Turn what torch says of workers that died or stalled into one line.

    torch notices a dead worker in a signal handler, so the error may come out of anything that the process does.

    Raises:
        InputError: that line.
    """
    try:
        yield
    except RuntimeError as error:
        if stalled := _STALLED.match(str(error)):
            raise InputError(
                f"the loader gave no batch for {float(stalled[1]):g} s: a worker hangs, or the disk or network under "
                "the data does: check them, or allow more by --loader-timeout"
            ) from error
        if died := _DIED.match(str(error)):
            raise InputError(
                f"a loader worker died ({died[0].removeprefix('DataLoader ')}), mostly because memory ran out: give "
                "fewer --workers, or make room"
            ) from error
        raise


def usable_cores() -> int:
    """The cores that this process may use: with a scheduler or in a container often fewer than the machine has.

    Processes that torchrun started on one machine share them out.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def outlive_interrupts(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the training process, which ends its loader workers after it has saved.

    Both often reach the whole process group. SIGTERM still ends a worker after a minute, and at once when it comes
    again, so none is left behind.
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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _kill(batches: Any) -> None:
    """Kill the workers of a stalled iteration: one that hangs in a library would keep this process from ending."""
    handled = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    # torch's handler would report the very deaths that are wanted here.
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if handled else None
    for worker in getattr(batches, "_workers", ()):
        worker.kill()
    for worker in getattr(batches, "_workers", ()):
        worker.join(_KILL_SECONDS)
    if handled:
        signal.signal(signal.SIGCHLD, previous)
