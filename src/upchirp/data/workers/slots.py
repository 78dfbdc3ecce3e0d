"""Shared memory that workers lay their chunks in, made once for all of them.

A tensor that a worker makes shared memory for is sent by its file descriptor, for which the two processes shake hands:
a millisecond of the training process for each chunk, and pages that are new to both.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


class Sent(NamedTuple):
    """Where a tensor lies, in place of it."""

    worker: int
    slot: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Slots:
    """Room for the last few chunks of each worker, used in turn.

    A worker is given a new chunk to make when the training process takes the oldest one, which it copies before it
    takes the next. So the slots that count are those of the chunks that a worker may be ahead, and of the one that is
    copied.

    Args:
        workers: their number.
        ahead: chunks that each may be ahead.
        length: bytes of a chunk at most; a multiple of what a value takes.
    """

    def __init__(self, workers: int, ahead: int, length: int) -> None:
        self.ahead = ahead
        self._count = ahead + 1
        storage: Any = torch.UntypedStorage._new_shared(workers * self._count * length)  # type: ignore[no-untyped-call]
        self._memory = torch.empty(0, dtype=torch.uint8).set_(storage).view(workers, self._count, length)
        self._used = 0

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Sent]:
        """In a worker: memory for its next chunk, and what to send in place of it."""
        worker = get_worker_info()
        assert worker is not None
        slot = self._used % self._count
        self._used += 1
        sent = Sent(worker.id, slot, shape, dtype)
        return self.received(sent), sent

    def received(self, sent: Sent) -> Tensor:
        """The tensor that was sent: good until the next chunk is taken."""
        taken = torch.Size(sent.shape).numel() * sent.dtype.itemsize
        return self._memory[sent.worker, sent.slot, :taken].view(sent.dtype).view(sent.shape)
