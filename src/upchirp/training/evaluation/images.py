"""Images of an evaluation, shared out among ranks and kept in memory."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from upchirp.data import (
    DECODE_ERRORS,
    Augmentation,
    Corrupt,
    EvalTransform,
    Source,
    default_crop_pct,
    outlive_interrupts,
)
from upchirp.data.labels import check_label
from upchirp.data.settings import DEFAULT_TIMEOUT, loader_processes
from upchirp.data.unreadable import UnreadableImages, too_many
from upchirp.data.workers.chunks import ChunkSize, cut
from upchirp.data.workers.processes import batches_of, loader_of
from upchirp.errors import InputError
from upchirp.training.parallel.ranks import Ranks

_CACHE_BYTES = 512 * 2**20


class EvalBatch(NamedTuple):
    """Some images of an evaluation."""

    images: torch.Tensor
    """(N, channels, S, S), uint8 unless values keep their units."""
    labels: torch.Tensor
    """int64, (N,)."""
    indices: torch.Tensor
    """Where they are in the data set, int32, (N,)."""


class EvaluationSet:
    """A source's images, prepared once for a size and kept in memory if they take up to 512 MiB.

    Args:
        source: labelled images.
        size: side of the square images, pixels.
        augmentation: what the images consist of, how they are resized, and by what models normalise them.
        crop_pct: share of the resized image that the centre crop keeps; by default the paper's (Appendix A.1).
        workers: loader processes, by default one for each core, 16 at most.
        batch_size: images in one batch.
        pin_memory: give batches in page-locked memory.
        timeout: seconds without a batch from the workers after which iterating raises an `InputError`; 0 waits forever.
        ranks: who shares the images out; each takes every n-th one.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        augmentation: Augmentation | None = None,
        *,
        crop_pct: float | None = None,
        workers: int | None = None,
        batch_size: int = 256,
        pin_memory: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        ranks: Ranks | None = None,
    ) -> None:
        workers = loader_processes(workers)
        self.size, self.augmentation = size, augmentation or Augmentation()
        channels = self.augmentation.channels
        self.images = len(source)
        self.corrupt: list[Corrupt] = []
        self.ranks = ranks or Ranks()
        self.batches = math.ceil(math.ceil(self.images / self.ranks.size) / batch_size)
        crop_pct = default_crop_pct(size) if crop_pct is None else crop_pct
        transform = EvalTransform(size, crop_pct, self.augmentation.interpolation, channels)
        images = _Prepared(source, transform, range(self.ranks.rank, len(source), self.ranks.size))
        most = ChunkSize(channels=channels).rows(size) if workers else batch_size
        self._chunks = [
            cut(range(len(images))[first : first + batch_size], most) for first in range(0, len(images), batch_size)
        ]
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._loader = loader_of(
            images,
            batch_sampler=[list(chunk) for batch in self._chunks for chunk in batch],
            num_workers=workers,
            collate_fn=_stack,
            worker_init_fn=outlive_interrupts,
            generator=torch.Generator().manual_seed(0),
        )
        self._timeout = timeout
        self._cache: list[EvalBatch] | None = None

    def __iter__(self) -> Iterator[EvalBatch]:
        if self._cache is not None:
            yield from self._cache
            return
        self.corrupt = []
        keep = self.images * self.augmentation.channels.bytes * self.size**2 <= _CACHE_BYTES * self.ranks.size
        batches: list[EvalBatch] = []
        parts = batches_of(self._loader, self._timeout)
        for chunks in self._chunks:
            batch, corrupt = _put_together(islice(parts, len(chunks)), pin_memory=self._pin_memory)
            self.corrupt += corrupt
            if self._too_many_are_corrupt():
                # All ranks have to hear of it, which `share_corrupt` sees to.
                return
            if not len(batch.labels):
                continue
            if keep:
                batches.append(batch)
            yield batch
        if keep:
            self._cache = batches

    def share_corrupt(self) -> None:
        """Put what all ranks could not read into `corrupt`, when they have been through their images.

        Raises:
            UnreadableImages: it is more than 1 % of the images.
        """
        everywhere = [image for part in self.ranks.gather(self.corrupt) for image in part]
        self.corrupt = sorted({image.index: image for image in everywhere}.values(), key=lambda image: image.index)
        if self._too_many_are_corrupt():
            first = self.corrupt[0]
            raise UnreadableImages(
                f"more than 1 % of the {self.images} validation images cannot be read, the first one is "
                f"{first.name} ({first.reason}): repair or remove them"
            )

    def left_out(self, what: str = "validation") -> list[str]:
        """A line on each image, called a `what` image, that could not be read since this was last asked."""
        lines = [f"cannot read the {what} image {image.name} ({image.reason}): left out" for image in self.corrupt]
        self.corrupt = []
        return lines

    def _too_many_are_corrupt(self) -> bool:
        return too_many(len(self.corrupt), self.images)


class _Prepared(Dataset[Any]):
    def __init__(self, source: Source, transform: Callable[[Any], Any], indices: range) -> None:
        self.source = source
        self.transform = transform
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Any, int, int] | Corrupt | InputError:
        index = self.indices[item]
        try:
            image, label = self.source.load(index)
            check_label(self.source, index, label)
            return self.transform(image), label, index
        except InputError as error:
            return error
        except DECODE_ERRORS as error:
            return Corrupt(index, self.source.describe(index), str(error))


def _stack(items: list[Any]) -> tuple[Any, ...] | InputError:
    """Images, labels and indices of a chunk, and those that cannot be read."""
    if refused := [item for item in items if isinstance(item, InputError)]:
        return refused[0]
    corrupt = [item for item in items if isinstance(item, Corrupt)]
    whole = [item for item in items if not isinstance(item, Corrupt)]
    # Arrays travel inside the message; for each tensor two processes shake hands.
    labels = np.array([label for _, label, _ in whole], dtype=np.int64)
    indices = np.array([index for _, _, index in whole], dtype=np.int32)
    if not whole:
        return torch.empty(0, 1, 1, 3, dtype=torch.uint8), labels, indices, corrupt
    return torch.from_numpy(np.stack([image for image, _, _ in whole])), labels, indices, corrupt


def _put_together(parts: Iterable[tuple[Any, ...]], *, pin_memory: bool) -> tuple[EvalBatch, list[Corrupt]]:
    """Chunks as one batch, each taken out of shared memory, which is small in containers, as it comes."""
    images, labels, indices, corrupt = [], [], [], list[Corrupt]()
    for part, own_labels, own_indices, replaced in parts:
        images.append(part.clone() if part.is_shared() else part)
        labels.append(own_labels)
        indices.append(own_indices)
        corrupt += replaced
    batch = EvalBatch(
        # One without any readable image has no side.
        torch.cat([each for each in images if len(each)] or images[:1]).permute(0, 3, 1, 2),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(np.concatenate(indices)),
    )
    return EvalBatch(*(part.pin_memory() for part in batch)) if pin_memory else batch, corrupt
