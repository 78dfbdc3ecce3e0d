"""Arrival of batches: parts come from the workers, are put together and, where asked for, prepared on the device.

On CUDA all of it goes on ahead of who trains, in a thread and on a stream of its own: while one batch is trained on,
the next one is copied to the device and prepared there.
"""

import itertools
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from upchirp.data.device.decoding import Decode, on_device
from upchirp.data.device.preparation import Preparation
from upchirp.data.device.sending import to_device
from upchirp.data.images.regions import Regions
from upchirp.data.workers.chunks import put_together
from upchirp.data.workers.requested import Corrupt
from upchirp.data.workers.slots import Slots

AHEAD = 1
"""Batches that are ready beside the one that is being made and the one that is trained on."""
_PORTION_BYTES = 2**25
"""Regions that are copied and prepared at once: few calls for each image, and little page-locked memory."""
_SECONDS_TO_STOP = 10.0

Item = TypeVar("Item")


class Fresh(NamedTuple):
    """New images of a batch."""

    images: Tensor
    """(rows, channels, S, S), channels last in memory."""
    labels: Tensor
    """int64, (rows,)."""
    corrupt: tuple[Corrupt, ...]
    """What was replaced."""
    sent_bytes: int
    """What the workers gave to the device: images, or regions of which it makes them."""


class Arrival:
    """Makes batches of parts.

    Args:
        device: where the batches are to be.
        preparation: makes images of regions; by default the workers have done so.
        decoder: decodes what the workers have left encoded.
        pin_memory: put batches that stay on the host in page-locked memory.
    """

    def __init__(
        self,
        device: torch.device,
        preparation: Preparation | None = None,
        decoder: Decode | None = None,
        *,
        pin_memory: bool,
    ) -> None:
        if device.type == "cuda" and device.index is None:
            # Another thread has another current device.
            device = torch.device("cuda", torch.cuda.current_device())
        self._device = device
        self._preparation = preparation
        self._decoder = decoder
        self._goes_ahead = device.type == "cuda"
        self._pin_memory = pin_memory or device.type == "cuda"

    def batches(self, parts: Iterator[Any], shapes: Iterable[tuple[int, int]]) -> Generator[Fresh, None, None]:
        """The batches, one for each shape, until there are no more parts.

        Args:
            parts: images or regions, labels and what was replaced of neighbouring rows.
            shapes: rows and bandwidth of each batch; whole parts make it up.
        """
        if not self._goes_ahead:
            yield from self._each(parts, shapes)
            return
        # Workers start with the first part: in this thread, and before there is another.
        first = list(itertools.islice(parts, 1))
        stream: torch.cuda.Stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        arriving = self._each(itertools.chain(first, parts), shapes)
        for fresh, ready in ahead(self._on_stream(arriving, stream), AHEAD):
            training = torch.cuda.current_stream(self._device)
            training.wait_event(ready)
            # Its memory belongs to the other stream, and may go to the next batch when this one is done with.
            fresh.images.record_stream(training)
            fresh.labels.record_stream(training)
            yield fresh

    def _each(self, parts: Iterator[Any], shapes: Iterable[tuple[int, int]]) -> Iterator[Fresh]:
        for rows, side in shapes:
            if not (first := list(itertools.islice(parts, 1))):
                return
            yield self._one(itertools.chain(first, parts), rows, side)

    def _on_stream(
        self, batches: Iterator[Fresh], stream: torch.cuda.Stream
    ) -> Generator[tuple[Fresh, Any], None, None]:
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            for fresh in batches:
                yield fresh, stream.record_event()

    def _one(self, parts: Iterator[Any], rows: int, side: int) -> Fresh:
        if self._preparation is None:
            images, labels, corrupt = put_together(parts, rows, pin_memory=self._pin_memory)
            images, labels = (tensor.to(self._device, non_blocking=True) for tensor in (images, labels))
            return Fresh(images, labels, corrupt, images.nbytes)
        count = self._preparation.channels.count
        images = torch.empty(rows, side, side, count, dtype=torch.uint8, device=self._device)
        numbers, replaced, done, sent = [], tuple[Corrupt, ...](), 0, 0
        for regions, labels, corrupt in portions(parts, rows, pin_memory=self._pin_memory):
            sent += regions.pixels.nbytes
            pixels = on_device(regions, self._device, self._decoder)
            images[done : done + len(labels)] = self._preparation(regions._replace(pixels=pixels), side)
            done += len(labels)
            numbers.append(labels)
            replaced += corrupt
        return Fresh(images.permute(0, 3, 1, 2), to_device(np.concatenate(numbers), self._device), replaced, sent)


def opened(parts: Iterator[Any], slots: Slots | None) -> Iterator[Any]:
    """Parts with what was sent by its place in shared memory, which holds it until the next part is taken."""
    for images, labels, corrupt in parts:
        if slots is None:
            yield images, labels, corrupt
        elif isinstance(images, Regions):
            yield images._replace(pixels=slots.received(images.pixels)), labels, corrupt
        else:
            yield slots.received(images), labels, corrupt


def portions(
    parts: Iterator[Any], rows: int, *, pin_memory: bool, most: int = _PORTION_BYTES
) -> Iterator[tuple[Regions, Any, tuple[Corrupt, ...]]]:
    """Parts with regions joined to fewer and larger ones, out of shared memory.

    Args:
        parts: in the order of the rows.
        rows: of all portions together; whole parts make them up.
        pin_memory: put the pixels in page-locked memory.
        most: bytes of a portion, unless one part has more.
    """
    waiting: list[Any] = [next(parts)]
    while waiting:
        room = max(most, len(waiting[0][0].pixels))
        memory = torch.empty(room, dtype=torch.uint8, pin_memory=pin_memory)
        used, joined, numbers, replaced = 0, [], [], tuple[Corrupt, ...]()
        while waiting and used + len(waiting[0][0].pixels) <= room:
            regions, labels, corrupt = waiting.pop()
            # Copied as they come, so that a worker's memory is free again, and by numpy: see `put_together`.
            memory.numpy()[used : used + len(regions.pixels)] = regions.pixels.numpy()
            used += len(regions.pixels)
            joined.append(regions[1:])
            numbers.append(labels)
            replaced += corrupt
            rows -= len(labels)
            if rows > 0:
                del regions
                waiting.append(next(parts))
        recipes, lengths, boxes = map(np.concatenate, zip(*joined, strict=True))
        yield Regions(memory[:used], recipes, lengths, boxes), np.concatenate(numbers), replaced


def ahead(items: Generator[Item, None, None], count: int) -> Generator[Item, None, None]:
    """Items that a thread takes before they are asked for.

    What the items raise is raised where they are asked for. When no more are wanted the thread ends with the item that
    it waits for.

    Args:
        items: taken and closed in the thread only.
        count: how many may be ready.

    >>> list(ahead((letter for letter in "abc"), 2))
    ['a', 'b', 'c']
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def take() -> None:
        try:
            for item in items:
                put(item)
                # An item that the next one is made beside should not be held here.
                del item
                if stopped.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())
        finally:
            # Here, as it may have changed the device or the stream of this thread.
            items.close()

    thread = threading.Thread(target=take, daemon=True, name="upchirp-ahead")
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
            del item
    finally:
        stopped.set()
        thread.join(_SECONDS_TO_STOP)
