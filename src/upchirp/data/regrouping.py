"""Micro-batches of another size than the loader gives: as many rows of a step at once as the device's memory holds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from upchirp.data.batch import Batch


def regroup(batches: Iterable[Batch], rows: int | None, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The batches of one step, cut or joined so that each has `rows` rows, and the last of the step what is left.

    No more batches are taken than the next one needs. What is cut shares memory with what it was cut from; what is
    joined is on the device.

    Args:
        batches: of one step, in order, the last one with `completes_step`.
        rows: in each micro-batch; none leaves the batches as they are. With mixing, a multiple of the mixing group.
        device: where to join.
    """
    waiting: list[Batch] = []
    for batch in batches:
        if rows is None or (not waiting and len(batch.rows) == rows):
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
