"""Evaluation at the final size, and during early stages at the current bandwidth (Figure 8)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from upchirp.data import (
    DECODE_ERRORS,
    Corrupt,
    EvalTransform,
    Interpolation,
    Source,
    Targets,
    default_crop_pct,
    normalize,
    outlive_interrupts,
)
from upchirp.data.chunks import chunk_rows, cut
from upchirp.data.settings import DEFAULT_TIMEOUT, check_workers
from upchirp.data.unreadable import UnreadableImages, too_many
from upchirp.data.worker_processes import batches_of
from upchirp.data.workers import check_label
from upchirp.errors import InputError
from upchirp.spectral import low_frequency_crop
from upchirp.training.engine.task import Classification, Task
from upchirp.training.evaluation.predictions import Predictions
from upchirp.training.parallel.ranks import Ranks

_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model does on a set of images.

    >>> Evaluation(figures={"top1": 50.0, "top5": 75.0, "loss": 1.5}, images=4).describe()
    'top-1 50.00 %, top-5 75.00 %, loss 1.500'
    """

    figures: Mapping[str, float]
    """The task's figures by their names; of a classification `top1` and `top5` in percent, and `loss`, the mean cross
    entropy without label smoothing."""
    images: int
    """How many images were evaluated."""
    best: str = "top1"
    """The figure that tells which weights are best."""
    predictions: Predictions | None = field(default=None, repr=False, compare=False)
    """The first guess for each image, if the task has guesses."""

    @property
    def score(self) -> float:
        """The figure that tells which weights are best."""
        return self.figures[self.best]

    @property
    def top1(self) -> float:
        """Percent of images whose first guess is right; undefined for a task without guesses."""
        return self.figures.get("top1", math.nan)

    @property
    def top5(self) -> float:
        """Percent of images whose label is among the first five guesses; undefined for a task without guesses."""
        return self.figures.get("top5", math.nan)

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.figures["loss"]

    def to_dict(self) -> dict[str, float]:
        """The figures as plain data, without the predictions."""
        return {**self.figures, "images": self.images}

    def describe(self) -> str:
        """The figures in one line."""
        return ", ".join(_described(name, value) for name, value in self.figures.items())


class EvalBatch(NamedTuple):
    """Some images of an evaluation."""

    images: torch.Tensor
    """uint8, (N, 3, S, S)."""
    labels: torch.Tensor
    """int64, (N,)."""
    indices: torch.Tensor
    """Where they are in the data set, int32, (N,)."""


class EvaluationSet:
    """A source's images, prepared once for a size and kept in memory as uint8 if they take up to 512 MiB.

    Args:
        source: labelled images.
        size: side of the square images, pixels.
        crop_pct: share of the resized image that the centre crop keeps; by default the paper's (Appendix A.1).
        interpolation: of the resize.
        workers: loader processes.
        batch_size: images in one batch.
        pin_memory: give batches in page-locked memory.
        timeout: seconds without a batch from the workers after which iterating raises an `InputError`; 0 waits forever.
        ranks: who shares the images out; each takes every n-th one.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        *,
        crop_pct: float | None = None,
        interpolation: Interpolation = "bicubic",
        workers: int = 2,
        batch_size: int = 256,
        pin_memory: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        ranks: Ranks | None = None,
    ) -> None:
        check_workers(workers)
        self.size = size
        self.images = len(source)
        self.corrupt: list[Corrupt] = []
        self.ranks = ranks or Ranks()
        self.batches = math.ceil(math.ceil(self.images / self.ranks.size) / batch_size)
        transform = EvalTransform(size, default_crop_pct(size) if crop_pct is None else crop_pct, interpolation)
        images = _Prepared(source, transform, range(self.ranks.rank, len(source), self.ranks.size))
        self._chunks = [
            cut(range(len(images))[first : first + batch_size], chunk_rows(size) if workers else batch_size)
            for first in range(0, len(images), batch_size)
        ]
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._loader: DataLoader[Any] = DataLoader(
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
        keep = self.images * 3 * self.size**2 <= _CACHE_BYTES * self.ranks.size
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

    def _too_many_are_corrupt(self) -> bool:
        return too_many(len(self.corrupt), self.images)


class View(NamedTuple):
    """A model and the input side it is evaluated at."""

    name: Literal["model", "ema"]
    """Which weights these are."""
    model: nn.Module
    """Takes inputs of side `bandwidth`."""
    bandwidth: int
    """Pixels; below the set's own size the images are cropped in the frequency domain, as in Figure 8."""


@torch.no_grad()
def evaluate(
    views: Sequence[View],
    data: EvaluationSet,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    autocast: torch.dtype | None = None,
    in_step: bool = False,
    task: Task | None = None,
) -> list[Evaluation]:
    """Evaluate several models, or one at several sizes, in one pass over the images.

    Ranks evaluate the images that are theirs, and all of them return the figures of all images. With `in_step` they
    take the same number of forward passes, as ranks must that hold parts of a model.

    Raises:
        UnreadableImages: more than 1 % of the images.
    """
    task = task or Classification()
    modes = [view.model.training for view in views]
    sums = torch.zeros(len(views), len(task.figures), dtype=torch.float32, device=device)
    seen: list[torch.Tensor] = []
    guessed: list[list[torch.Tensor]] = [[] for _ in views]
    count, left = 0, data.batches
    try:
        for view in views:
            view.model.eval()
        for images, labels, indices in data:
            inputs = normalize(images.to(device, non_blocking=True), mean, std)
            targets = Targets.of(labels.to(device, non_blocking=True))
            seen.append(torch.stack([indices.to(torch.int32), labels.to(torch.int32)]))
            for view, total, guesses in zip(views, sums, guessed, strict=True):
                own = inputs if view.bandwidth >= data.size else low_frequency_crop(inputs, view.bandwidth)
                shown, asked = task.ask(own, targets)
                with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                    outputs = view.model(shown)
                total += task.measure(outputs, asked)
                # Left on the device, which nobody waits for here.
                if (guess := task.guesses(outputs)) is not None:
                    guesses.append(guess.to(torch.int32))
            count += len(labels)
            left -= 1
        for view in [*views] * left if in_step else []:
            view.model(torch.zeros(1, 3, view.bandwidth, view.bandwidth, device=device))
        data.share_corrupt()
    finally:
        for view, training in zip(views, modes, strict=True):
            view.model.train(training)
    (count,) = data.ranks.add(torch.tensor([count])).tolist()
    means = (data.ranks.add(sums) / max(count, 1)).tolist()
    predicted = all(map(any, data.ranks.gather(list(map(bool, guessed)))))
    predictions = _predictions(seen, guessed, data.ranks) if predicted else [None] * len(views)
    return [
        Evaluation(
            figures={name: task.figures[name] * value for name, value in zip(task.figures, own, strict=True)},
            images=count,
            best=task.best,
            predictions=guesses,
        )
        for own, guesses in zip(means, predictions, strict=True)
    ]


def _described(name: str, value: float) -> str:
    percent = name in ("top1", "top5")
    return f"top-{name[3:]} {value:.2f} %" if percent else f"{name} {value:.3f}"


def _predictions(
    seen: Sequence[torch.Tensor], guessed: Sequence[Sequence[torch.Tensor]], ranks: Ranks
) -> list[Predictions]:
    """The guesses of each view on all ranks."""
    empty = torch.empty(2, 0, dtype=torch.int32)
    views = [torch.cat([empty[0], *(guesses.cpu() for guesses in own)]) for own in guessed]
    rows = torch.cat([torch.cat([empty, *seen], dim=1), *(view[None] for view in views)]).numpy()
    everywhere = np.concatenate(ranks.gather(rows), axis=1)
    indices, labels, *guesses = everywhere[:, np.argsort(everywhere[0], kind="stable")]
    return [Predictions(indices=indices, labels=labels, guesses=own) for own in guesses]


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
