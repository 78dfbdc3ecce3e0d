"""Workers prepare bounded parts of batches, and the batches are what they would be without workers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upchirp import Loader, Selection, efficienttrain_plus_plus, plan
from upchirp.data import Corrupt, FolderSource
from upchirp.data.batch import Batch
from upchirp.data.requests import RequestSampler
from upchirp.data.workers import chunks


@given(st.integers(1, 500), st.integers(1, 70))
def test_items_are_cut_in_order_into_few_and_equal_parts(count: int, most: int) -> None:
    parts = chunks.cut(range(count), most)
    assert [item for part in parts for item in part] == list(range(count))
    assert len(parts) == -(-count // most)
    lengths = [len(part) for part in parts]
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("side", [16, 32, 96, 128, 160, 192, 224, 256, 384])
def test_eight_workers_train_and_evaluate_within_a_container_s_shared_memory(side: int) -> None:
    assert 8 * (2 * chunks.PREFETCHED + 1) * chunks.ChunkSize().bytes(side) < 0.9 * 64 * 2**20
    assert chunks.ChunkSize().rows(side) <= 64


@pytest.mark.parametrize(("free", "ahead"), [(None, 72), (2**33, 72), (200 * 2**20, 10), (57 * 2**20, 2), (0, 2)])
def test_batches_are_ahead_as_far_as_shared_memory_has_room(
    monkeypatch: pytest.MonkeyPatch, free: int | None, ahead: int
) -> None:
    monkeypatch.setattr(chunks, "room", lambda: free)
    # One and a half batches of 3,072 images are 576 chunks of 8, of 1.1 MiB each.
    assert chunks.ChunkSize().ahead(8, [(96, 64), (224, 3072), (224, 512)]) == ahead


def test_the_rows_of_a_batch_are_its_parts_one_after_another() -> None:
    def parts() -> Iterator[Any]:
        for number, rows in enumerate([3, 1, 2, 9]):
            images = torch.full((rows, 4, 4, 3), number, dtype=torch.uint8)
            yield images.share_memory_(), np.arange(rows) + 10 * number, (Corrupt(number, "x", "y"),)

    arriving = parts()
    images, labels, corrupt = chunks.put_together(arriving, 6, pin_memory=False)
    assert images[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 2, 2]
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert not images.is_shared()
    assert labels.tolist() == [0, 1, 2, 10, 20, 21]
    assert [each.index for each in corrupt] == [0, 1, 2]
    assert len(next(arriving)[1]) == 9


@pytest.fixture(scope="module")
def source(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Images, some of them damaged."""
    root = tmp_path_factory.mktemp("damaged")
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for index, path in enumerate(sorted((image_folder / "train" / label).iterdir())):
            data = path.read_bytes()
            (root / label / path.name).write_bytes(data[: len(data) // 3] if index % 8 == 3 else data)
    return FolderSource(root)


def fields(batch: Batch) -> tuple[Any, ...]:
    tensors = (batch.images, batch.labels, batch.indices, batch.weights if batch.weights is not None else torch.ones(0))
    plain = (batch.step, batch.rows, batch.completes_step, batch.corrupt, batch.passes)
    return (*plain, *(tensor.tolist() for tensor in tensors))


@pytest.mark.parametrize("kind", ["plain", "replay", "select", "crop"])
@pytest.mark.parametrize("micro_batch", [None, 8])
def test_batches_put_together_are_those_of_one_process(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch, kind: str, micro_batch: int | None
) -> None:
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=2, batch_size=16, dataset_size=len(source))
    if kind == "replay":
        run = run.with_replay(1, final=True)
    options: dict[str, Any] = {"select": Selection() if kind == "select" else None, "micro_batch": micro_batch}
    options["low_frequency"] = "crop" if kind == "crop" else "lanczos"
    monkeypatch.setattr(chunks, "ROWS", 3)
    cut = chunks.cut
    lengths: list[int] = []

    def note(items: Any, most: int) -> Any:
        parts = cut(items, most)
        lengths.extend(len(part) for part in parts)
        return parts

    monkeypatch.setattr(chunks, "cut", note)

    def batches(workers: int, start_step: int = 0) -> list[tuple[Any, ...]]:
        loader = Loader(source, run, workers=workers, on_corrupt=list, start_step=start_step, seed=3, **options)
        found = []
        for batch in loader:
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert not batch.images.is_shared()
            if kind == "select":
                loader.record(batch, batch.labels.float() + batch.indices)
            found.append(fields(batch))
        return found

    alone = batches(0)
    assert not lengths
    assert any(corrupt for _, _, _, corrupt, *_ in alone)
    assert batches(2) == alone
    assert set(lengths) <= {2, 3}
    if kind in ("plain", "replay") and micro_batch:
        # The last 5 steps, two micro-batches each.
        assert batches(2, start_step=run.total_steps - 5) == alone[-10:]


def test_what_a_sampler_gives_stays_whole_micro_batches(source: FolderSource) -> None:
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=1, batch_size=16, dataset_size=len(source))
    sampler = RequestSampler(run, micro_batch=8)
    pieces = list(chunks.Chunks(sampler, sampler.image_side))
    assert [request for piece in pieces for request in piece] == [request for batch in sampler for request in batch]
