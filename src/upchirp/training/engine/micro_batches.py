"""Micro-batches: as many images of a step as are computed at once, cut, joined and halved as memory asks for it."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from upchirp.data import Batch, Corrupt, PassSummary
from upchirp.training.engine.memory import OutOfMemory


class MicroBatches:
    """The most images that are computed at once at each bandwidth; memory that runs out halves it.

    >>> micro_batches = MicroBatches({96: 192, 224: 48}, reduced={96: 64})
    >>> micro_batches.halve(224, rows=48, group=8)
    24
    >>> micro_batches.sizes, micro_batches.reduced
    ({96: 64, 224: 24}, {96: 64, 224: 24})

    Args:
        sizes: by bandwidth; where one is left out, a training takes batches as they come.
        reduced: to what memory that ran out has brought them before.
        least: no fewer are tried.
    """

    def __init__(
        self, sizes: Mapping[int, int] | None = None, *, reduced: Mapping[int, int] | None = None, least: int = 1
    ) -> None:
        self.sizes = dict(sizes or {})
        self.reduced: dict[int, int] = {}
        self._least = least
        self.reduce(reduced or {})

    def reduce(self, to: Mapping[int, int]) -> None:
        """Take no more than so many images at some bandwidths, as memory holds no more."""
        for bandwidth, size in to.items():
            self.sizes[bandwidth] = self.reduced[bandwidth] = min(size, self.sizes.get(bandwidth, size))

    def halve(self, bandwidth: int, *, rows: int, group: int) -> int:
        """Take half as many as did not fit, in whole mixing groups; returns how many.

        Args:
            bandwidth: where memory ran out.
            rows: images that were there to compute.
            group: images that are mixed as one.

        Raises:
            OutOfMemory: there is no half of it.
        """
        before = min(rows, self.sizes.get(bandwidth, rows))
        half = before // group // 2 * group
        if half < max(self._least, 1):
            images = f"{before} image{'' if before == 1 else 's'}"
            raise OutOfMemory(
                f"out of memory at {bandwidth} px with a micro-batch of {images}, which cannot be halved: take a "
                "smaller model or final size, or free memory that others use"
            )
        self.reduce({bandwidth: half})
        return half


class StepBatches:
    """The batches of one step, which can be gone through again while the step is not done.

    Args:
        first: the first of them, and the seconds that the device waited for it.
        arriving: the others, with theirs; no more than the step's are taken.
    """

    def __init__(self, first: tuple[Batch, float], arriving: Iterator[tuple[Batch, float]]) -> None:
        self._batches = [first[0]]
        self._arriving = arriving
        self.step = first[0].step
        self.waited = first[1]

    def __iter__(self) -> Iterator[Batch]:
        for k in itertools.count():
            if k == len(self._batches) and not self._take():
                return
            yield self._batches[k]

    def _take(self) -> bool:
        item = None if self.complete else next(self._arriving, None)
        if item is None:
            return False
        self._batches.append(item[0])
        self.waited += item[1]
        return True

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

    @property
    def corrupt(self) -> tuple[Corrupt, ...]:
        """Images of the step that were replaced."""
        return tuple(image for each in self._batches for image in each.corrupt)

    @property
    def passes(self) -> tuple[PassSummary, ...]:
        """Passes that began with the step."""
        return tuple(summary for each in self._batches for summary in each.passes)

    @property
    def prepared(self) -> int:
        """Images that were newly prepared for the step."""
        return sum(each.prepared for each in self._batches)

    @property
    def sent_bytes(self) -> int:
        """Bytes that the loader gave to the device for the step."""
        return sum(each.sent_bytes for each in self._batches)


def regroup(batches: Iterable[Batch], rows: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The batches of one step, cut or joined so that each has `rows` rows, and the last of the step what is left.

    No more batches are taken than the next one needs. What is cut shares memory with what it was cut from; what is
    joined is on the device.

    Args:
        batches: of one step, in order, the last one with `completes_step`.
        rows: in each micro-batch. With mixing, a multiple of the mixing group.
        device: where to join.
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
