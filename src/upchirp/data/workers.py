"""What a loader worker does: requests in, stacked uint8 images out, damaged images replaced."""

import contextlib
import os
import re
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
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
_SECONDS_TO_DIE = 5

# torch has no exception type of its own for this.
_DIED = re.compile(r"DataLoader worker (\(pid\S* [\d, ]+\) (?:is killed|exited)[^.]*)")
_DEATH = "a loader worker died {}, mostly because memory ran out: give fewer --workers, or make room"

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


class LoaderFailure(InputError):
    """The loader's workers died or stalled."""


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


def batches_of(loader: DataLoader[Any], timeout: float) -> Iterator[Any]:
    """The batches of a loader, in one iteration.

    The loader's own `timeout` does not see a worker that stops as a whole after it has handed a batch over: the
    tensors are fetched from it only then, without a limit of time.

    Args:
        loader: gives what is yielded, or an `InputError` to raise.
        timeout: seconds without a batch after which the workers are killed; 0 waits forever, as does loading in
            this process.

    Raises:
        InputError: a worker handed one over.
        LoaderFailure: a worker died or stalled.
    """
    batches: Any = iter(loader)
    watch = _Watch(getattr(batches, "_workers", ()), timeout)
    try:
        while True:
            watch.asked = time.monotonic()
            try:
                prepared = next(batches)
            except StopIteration:
                return
            except (OSError, EOFError, RuntimeError) as error:
                watch.raise_failure(error)
                raise
            watch.asked = None
            if isinstance(prepared, InputError):
                raise prepared
            yield prepared
    finally:
        watch.ended.set()


@contextmanager
def loader_failures() -> Iterator[None]:
    """Turn what torch says of a dead worker into one line.

    torch notices it in a signal handler, so its error may come out of anything that the process does.

    Raises:
        LoaderFailure: that line.
    """
    try:
        yield
    except RuntimeError as error:
        if died := _DIED.match(str(error)):
            raise LoaderFailure(_DEATH.format(died[1])) from error
        raise


class _Watch:
    """Kills the workers of an iteration that stall, whatever they hang in: nothing else would end the wait for them."""

    def __init__(self, workers: Sequence[BaseProcess], timeout: float) -> None:
        self.asked: float | None = None
        """When the batch that is waited for was asked for."""
        self.ended = threading.Event()
        """Set when no more batches are wanted."""
        self._workers = workers
        self._timeout = timeout
        self._stalled = False
        if workers and timeout:
            threading.Thread(target=self._watch, daemon=True).start()

    def raise_failure(self, error: BaseException) -> None:
        """Raise what became of the workers, if it is they who failed.

        Raised here, as an error that its own frames hold would keep the loader's processes until the very end.
        """
        # A death is seen at the connection before it is seen at the process, and torch may report it meanwhile.
        with contextlib.suppress(RuntimeError):
            for worker in self._workers:
                worker.join(_SECONDS_TO_DIE if self._stalled else 0.1)
        if self._stalled:
            raise LoaderFailure(
                f"the loader gave no batch for {self._timeout:g} s: a worker hangs, or the disk or network under the "
                "data does: check them, or allow more by --loader-timeout"
            ) from error
        if dead := next((worker for worker in self._workers if worker.exitcode), None):
            raise LoaderFailure(_DEATH.format(f"(pid {dead.pid}, exit code {dead.exitcode})")) from error

    def _watch(self) -> None:
        while not self.ended.wait(min(1.0, self._timeout / 10)):
            asked = self.asked
            if asked is not None and time.monotonic() - asked > self._timeout:
                self._stalled = True
                for worker in self._workers:
                    worker.kill()
                return


def outlive_interrupts(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the training process, which ends its loader workers after it has saved.

    Both often reach the whole process group. SIGTERM still ends a worker after a minute, and at once when it comes
    again (unless torchrun sends it), so none is left behind.
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
    # torchrun passes on what the scheduler may have sent to all processes already.
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
