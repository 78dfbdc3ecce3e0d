"""Shared memory in which workers lay what they prepare."""

from types import SimpleNamespace

import pytest
import torch

from upchirp.data.workers import slots
from upchirp.data.workers.slots import Sent, Slots


def test_a_chunk_stays_while_as_many_others_are_made_as_a_worker_may_be_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Slots(workers=2, ahead=2, length=12)

    def lay(worker: int, value: int, shape: tuple[int, ...]) -> Sent:
        monkeypatch.setattr(slots, "get_worker_info", lambda: SimpleNamespace(id=worker))
        memory, sent = room.take(shape, torch.uint8)
        memory.fill_(value)
        return sent

    first = lay(0, 1, (2, 2, 3))
    room._used = 0  # each worker counts for itself
    other = lay(1, 2, (12,))
    room._used = 1
    later = [lay(0, value, (5,)) for value in (3, 4)]
    assert room.received(first).tolist() == [[[1] * 3] * 2] * 2
    assert room.received(other).tolist() == [2] * 12
    assert [room.received(sent).tolist() for sent in later] == [[3] * 5, [4] * 5]
    # The next one of the worker takes the place of its first, which was copied before this was asked for.
    lay(0, 5, (12,))
    assert room.received(first).unique().tolist() == [5]
    assert room.received(first).is_shared()
