from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upchirp import Batch, constant, plan
from upchirp.data import Corrupt
from upchirp.data.selection import PassSummary
from upchirp.training.engine.step_batches import regroup


def batches_of_a_step(sizes: list[int], weighted: list[bool], first: int) -> list[Batch]:
    step = plan(constant(8), epochs=1, dataset_size=1000, batch_size=first + sum(sizes)).step(0)
    batches = []
    for number, (size, weighs) in enumerate(zip(sizes, weighted, strict=True)):
        rows = range(first, first + size)
        first += size
        images = torch.arange(rows.start, rows.stop, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
        numbers = torch.arange(rows.start, rows.stop)
        batches.append(
            Batch(
                images.contiguous(memory_format=torch.channels_last),
                numbers + 100,
                step,
                rows,
                numbers + 200,
                numbers.float() if weighs else None,
                completes_step=number == len(sizes) - 1,
                corrupt=(Corrupt(number, "x", "y"),),
                passes=(PassSummary(number, 1, 0, 0, None),),
            )
        )
    return batches


@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 20),
)
def test_rows_come_in_order_in_micro_batches_of_one_size(
    delivered: list[tuple[int, bool]], rows: int, first: int
) -> None:
    sizes = [size for size, _ in delivered]
    batches = batches_of_a_step(sizes, [weighs for _, weighs in delivered], first)
    taken = 0

    def arriving() -> Iterator[Batch]:
        nonlocal taken
        for batch in batches:
            taken += 1
            yield batch

    parts = []
    for part in regroup(arriving(), rows):
        parts.append(part)
        # No batch is taken before it is needed: the loader prepares it while the device computes.
        assert sum(sizes[: taken - 1]) < part.rows.stop - first
    lengths = [len(part.rows) for part in parts]
    assert sum(lengths) == sum(sizes)
    assert all(length == rows for length in lengths[:-1])
    assert 1 <= lengths[-1] <= rows
    assert [part.completes_step for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [row for part in parts for row in part.rows] == list(range(first, first + sum(sizes)))
    for part in parts:
        numbers = torch.arange(part.rows.start, part.rows.stop)
        assert torch.equal(part.images[:, 0, 0, 0].long(), numbers)
        assert torch.equal(part.labels, numbers + 100)
        assert torch.equal(part.indices, numbers + 200)
        assert part.images.is_contiguous(memory_format=torch.channels_last)
        sources = [next(batch for batch in batches if row in batch.rows) for row in part.rows]
        weights = [1 if batch.weights is None else row for row, batch in zip(part.rows, sources, strict=True)]
        if part.weights is None:
            assert all(batch.weights is None for batch in sources)
        else:
            assert part.weights.tolist() == weights
    # What is told of a batch is told once.
    assert [image.index for part in parts for image in part.corrupt] == list(range(len(batches)))
    assert [summary.number for part in parts for summary in part.passes] == list(range(len(batches)))


@pytest.mark.parametrize("rows", [4, 8])
def test_batches_of_the_right_size_are_given_on_as_they_are(rows: int) -> None:
    batches = batches_of_a_step([rows] * 3, [False] * 3, 0)
    assert all(one is other for one, other in zip(regroup(batches, rows), batches, strict=True))


def test_what_is_joined_on_a_device_is_prepared_there() -> None:
    def transform(images: torch.Tensor, labels: torch.Tensor, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        return images, labels

    for part in regroup(batches_of_a_step([3, 3, 2], [False, False, False], 0), 4, "meta"):
        images, labels = part.prepare(transform, "meta")  # type: ignore[arg-type]
        assert images.device.type == labels.device.type == "meta"
