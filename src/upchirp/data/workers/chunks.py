"""Chunks: bounded parts of a batch that a worker prepares at once, put together again in the training process.

A whole batch in one worker would come late, with as many others right behind it, and fill the shared memory.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upchirp.data.images.regions import image_bytes
from upchirp.data.requests import Request
from upchirp.data.settings import RGB, Channels, Prepare
from upchirp.data.workers.requested import Corrupt
from upchirp.data.workers.shared_memory import room

ROWS = 64
"""Images of a chunk at most."""
BYTES: dict[Prepare, int] = {"cpu": 5 * 2**18, "device": 14 * 2**20, "device-jpeg": 14 * 2**20}
"""Their pixels at most, unless one image has more. Of prepared images, with eight workers, each two chunks ahead in
training, beside the one that is copied, and in evaluation, this fits the 64 MB of shared memory that containers have.
Regions take a third of it in the mean: with less, a chunk of them would be few images, and each is a message, which the
training process has to read."""
PREFETCHED = 2
"""Chunks that a worker is ahead at least, so that it need not wait for the training process."""
_BATCHES_AHEAD = 1.5

Item = TypeVar("Item")
Part = tuple[Tensor, npt.NDArray[np.int64], tuple[Corrupt, ...]]
"""Images (rows, S, S, channels), labels and what was replaced of some neighbouring rows, as a worker gives them."""


@dataclass(frozen=True)
class ChunkSize:
    """How many images a worker prepares at once, and how many it is ahead.

    >>> [ChunkSize().rows(side) for side in (32, 96, 224, 2000)], [ChunkSize("device").rows(side) for side in (96, 224)]
    ([64, 47, 8, 1], [64, 12])
    """

    prepare: Prepare = "cpu"
    """Where images are prepared."""
    channels: Channels = RGB
    """What they consist of."""

    def rows(self, side: int) -> int:
        """Images of a side in pixels in one chunk at most."""
        return max(1, min(ROWS, BYTES[self.prepare] // image_bytes(side, self.prepare, self.channels)))

    def bytes(self, side: int) -> int:
        """Shared memory that a chunk takes at most."""
        return image_bytes(side, self.prepare, self.channels) * self.rows(side)

    def ahead(self, workers: int, batches: Sequence[tuple[int, int]]) -> int:
        """How many chunks each worker is ahead: one to two batches in all, where shared memory has room for them.

        Args:
            workers: their number, from 1.
            batches: of each stage the side of its images, pixels, and how many make a batch.
        """
        wanted = max(_BATCHES_AHEAD * rows / (workers * self.rows(side)) for side, rows in batches)
        free, largest = room(), max(self.bytes(side) for side, _ in batches)
        # Half of it is for evaluations.
        fitting = math.inf if free is None else free // 2 // (workers * largest)
        return max(PREFETCHED, math.ceil(min(wanted, fitting)))

    def batches_ahead(self, workers: int, batches: Sequence[tuple[int, int]]) -> int:
        """How many whole batches of any stage they may be ahead: what they prepared before a stage is over then.

        >>> ChunkSize().batches_ahead(0, [(96, 2048)]), ChunkSize().batches_ahead(1, [(224, 8)])
        (0, 2)
        """
        if not workers:
            return 0
        chunks = workers * self.ahead(workers, batches)
        return max(math.ceil(chunks * min(rows, self.rows(side)) / rows) for side, rows in batches)


def cut(items: Sequence[Item], most: int) -> list[Sequence[Item]]:
    """Neighbouring parts of at most `most` items, as few and as equal as can be.

    >>> cut(range(10), 4)
    [range(0, 4), range(4, 7), range(7, 10)]
    """
    short, longer = divmod(len(items), parts := -(-len(items) // most) or 1)
    ends = [number * short + min(number, longer) for number in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


def put_together(parts: Iterator[Part], rows: int, *, pin_memory: bool) -> tuple[Tensor, Tensor, tuple[Corrupt, ...]]:
    """The next parts as one batch, out of shared memory.

    Args:
        parts: in the order of the rows.
        rows: of the batch; whole parts make it up.
        pin_memory: put the batch in page-locked memory.

    Returns:
        Images (rows, channels, S, S), channels last in memory; labels, int64 (rows,); what was replaced.
    """
    images, labels, corrupt = next(parts)
    if len(labels) == rows and not (pin_memory or images.is_shared()):  # type: ignore[no-untyped-call]
        return images.permute(0, 3, 1, 2), torch.from_numpy(labels), corrupt
    whole = torch.empty(rows, *images.shape[1:], dtype=images.dtype, pin_memory=pin_memory)
    all_labels = torch.empty(rows, dtype=torch.int64, pin_memory=pin_memory)
    done = 0
    while True:
        # Copied as they come: a worker's memory is free again before the batch is whole.
        of = slice(done, done + len(labels))
        # By numpy: torch would share a copy out among cores that the workers are busy on, and wait for the last.
        np.copyto(whole[of].numpy(), images.numpy())
        all_labels[of] = torch.from_numpy(labels)
        done = of.stop
        if done == rows:
            return whole.permute(0, 3, 1, 2), all_labels, corrupt
        images, labels, more = next(parts)
        corrupt += more


class Chunks:
    """Batches of requests, cut into chunks: a batch sampler for `torch.utils.data.DataLoader`.

    Args:
        batches: of requests.
        side: of the images that are given for a request, pixels.
        size: of a chunk.
    """

    def __init__(
        self, batches: Iterable[Sequence[Request]], side: Callable[[Request], int], size: ChunkSize = ChunkSize()
    ) -> None:
        self._batches = batches
        self._side = side
        self._size = size

    def __iter__(self) -> Iterator[Sequence[Request]]:
        for requests in self._batches:
            yield from cut(requests, self._size.rows(self._side(requests[0])))
