"""The batches of one step: waited for as they come, counted, and cut or joined to what is computed at once."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from upchirp.data import Batch


class Arriving:
    """Batches as they arrive, each with the seconds in which the device had nothing to do but wait for it.

    On a CPU that is the time until a batch arrives. An accelerator works through queued steps in the meantime, so there
    it counts from the end of the work before on the device; a batch that arrives before that cost nothing.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self._batches = iter(batches)
        self._queued = device.type == "cuda"
        self._last_work: torch.cuda.Event | None = None

    def next(self) -> tuple[Batch, float] | None:
        """The next batch and how long the device waited for it; nothing at the end."""
        asked = time.perf_counter()
        batch = next(self._batches, None)
        return None if batch is None else (batch, self._idle(time.perf_counter() - asked))

    def work_queued(self) -> None:
        """Take note that the work on a batch was handed to the device."""
        if self._queued:
            self._last_work = _event()

    def _idle(self, waited: float) -> float:
        if self._last_work is None:
            return waited
        if not self._last_work.query():  # type: ignore[no-untyped-call]
            return 0.0
        # The device is idle, so this event happens now, on its own clock.
        arrival = _event()
        arrival.synchronize()
        idle: float = self._last_work.elapsed_time(arrival) / 1000
        return min(waited, idle)


class StepBatches:
    """The batches of one step, which can be gone through again while the step is not done."""

    def __init__(self, first: tuple[Batch, float], arriving: Arriving) -> None:
        self._batches = [first[0]]
        self._arriving = arriving
        self.step = first[0].step
        self.waited = first[1]

    @classmethod
    def next(cls, arriving: Arriving) -> "StepBatches | None":
        """The step that comes next, of which one batch is waited for; nothing if there is none."""
        first = arriving.next()
        return None if first is None else cls(first, arriving)

    def __iter__(self) -> Iterator[Batch]:
        for k in itertools.count():
            if k == len(self._batches):
                if self.complete or (arrived := self._arriving.next()) is None:
                    return
                self._batches.append(arrived[0])
                self.waited += arrived[1]
            yield self._batches[k]

    def work_queued(self) -> None:
        """Take note that work on the step was handed to the device, which does not wait while it has some."""
        self._arriving.work_queued()

    @property
    def taken(self) -> Sequence[Batch]:
        """The batches that are here."""
        return self._batches

    @property
    def complete(self) -> bool:
        """Whether all batches of the step are here."""
        return self._batches[-1].completes_step

    @property
    def rows(self) -> range:
        """Rows that are here."""
        return range(self._batches[0].rows.start, self._batches[-1].rows.stop)

    @property
    def weight(self) -> float:
        """What the rows weigh together."""
        return sum(len(each.rows) if each.weights is None else each.weights.sum().item() for each in self._batches)


def regroup(batches: Iterable[Batch], rows: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The batches of one step, cut or joined so that each has `rows` rows, and the last of the step what is left.

    No more batches are taken than the next one needs, and the last one has `completes_step`. What is cut shares memory
    with what it was cut from; what is joined is on the device. With mixing, `rows` is a multiple of the mixing group.
    """
    waiting: list[Batch] = []
    for batch in batches:
        if not waiting and len(batch.rows) == rows:
            yield batch
            continue
        waiting.append(batch)
        while waiting and (batch.completes_step or sum(len(each.rows) for each in waiting) >= rows):
            micro_batch, rest = _cut(_join(waiting, device), rows)
            yield micro_batch
            waiting = [rest] if rest is not None else []


def _cut(batch: Batch, rows: int) -> tuple[Batch, Batch | None]:
    """The first rows of a batch, and the others if there are any."""
    if len(batch.rows) <= rows:
        return batch, None
    head = _part(batch, slice(None, rows))
    tail = _part(batch, slice(rows, None))
    return replace(head, completes_step=False), replace(tail, corrupt=(), passes=())


def _part(batch: Batch, of: slice) -> Batch:
    return replace(
        batch,
        images=batch.images[of],
        labels=batch.labels[of],
        rows=batch.rows[of],
        indices=batch.indices[of],
        weights=None if batch.weights is None else batch.weights[of],
    )


def _join(batches: Sequence[Batch], device: torch.device | str) -> Batch:
    """Neighbouring rows of one step as one batch."""
    if len(batches) == 1:
        return batches[0]
    first, last = batches[0], batches[-1]
    weighted = any(batch.weights is not None for batch in batches)
    weights = [torch.ones(len(batch.rows)) if batch.weights is None else batch.weights for batch in batches]
    return replace(
        first,
        images=torch.cat([batch.images.to(device, non_blocking=True) for batch in batches]),
        labels=torch.cat([batch.labels.to(device, non_blocking=True) for batch in batches]),
        rows=range(first.rows.start, last.rows.stop),
        indices=torch.cat([batch.indices for batch in batches]),
        weights=torch.cat(weights) if weighted else None,
        completes_step=last.completes_step,
        corrupt=tuple(image for batch in batches for image in batch.corrupt),
        passes=tuple(summary for batch in batches for summary in batch.passes),
    )


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
