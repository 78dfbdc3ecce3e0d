"""Evaluation at the final size, and during early stages at the current bandwidth (Figure 8)."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from upchirp.data import (
    DECODE_ERRORS,
    Corrupt,
    EvalTransform,
    Interpolation,
    Source,
    default_crop_pct,
    normalize,
    outlive_interrupts,
)
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth
from upchirp.spectral import low_frequency_crop

_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model does on a set of images."""

    top1: float
    """Percent of images whose first guess is right."""
    top5: float
    """Percent of images whose label is among the first five guesses."""
    loss: float
    """Mean cross-entropy, without label smoothing."""
    images: int
    """How many images were evaluated."""

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


class EvaluationSet:
    """A source's images, prepared once for a size and kept in memory as uint8 if they take up to 512 MiB.

    Args:
        source: labelled images.
        size: side of the square images, pixels.
        crop_pct: share of the resized image that the centre crop keeps; by default the paper's (Appendix A.1).
        interpolation: of the resize.
        workers: loader processes.
        batch_size: images in one batch.
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
    ) -> None:
        self.size = size
        self.images = len(source)
        self.corrupt: list[Corrupt] = []
        transform = EvalTransform(size, crop_pct or default_crop_pct(size), interpolation)
        self._loader: DataLoader[Any] = DataLoader(
            _Prepared(source, transform),
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=_stack,
            worker_init_fn=outlive_interrupts,
            generator=torch.Generator().manual_seed(0),
        )
        self._cache: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self._cache is not None:
            yield from self._cache
            return
        self.corrupt = []
        keep = self.images * 3 * self.size**2 <= _CACHE_BYTES
        batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        for images, labels, corrupt in self._loader:
            self.corrupt += corrupt
            if 100 * len(self.corrupt) > self.images:
                first = self.corrupt[0]
                raise InputError(
                    f"more than 1 % of the {self.images} validation images cannot be read, the first one is "
                    f"{first.name} ({first.reason}): repair or remove them"
                )
            if keep:
                batches.append((images, labels))
            yield images, labels
        if keep:
            self._cache = batches


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: EvaluationSet,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    bandwidth: int | None = None,
    autocast: torch.dtype | None = None,
) -> Evaluation:
    """Accuracy of a model that takes inputs of `bandwidth` (by default the set's own size).

    At a smaller bandwidth the images are cropped in the frequency domain, as the paper's Figure 8 does.
    """
    training = model.training
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    count = 0
    try:
        for images, labels in data:
            inputs = normalize(images.to(device, non_blocking=True), mean, std)
            if bandwidth is not None and bandwidth < data.size:
                inputs = low_frequency_crop(inputs, bandwidth)
            with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                logits = model(inputs)
            sums += _sums(logits.float(), labels.to(device)).to("cpu", torch.float64)
            count += len(labels)
    finally:
        model.train(training)
    top1, top5, loss = (sums / max(count, 1)).tolist()
    return Evaluation(top1=100 * top1, top5=100 * top5, loss=loss, images=count)


def at_size(model: nn.Module, current: int, size: int) -> nn.Module:
    """The model itself if it takes inputs of that side now, else a copy that was fitted to it."""
    if current == size:
        return model
    fitted = copy.deepcopy(model)
    fit_to_bandwidth(fitted, size)
    return fitted


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([hits[:, 0].sum().float(), hits.any(dim=1).sum().float(), loss])


class _Prepared(Dataset[Any]):
    def __init__(self, source: Source, transform: Callable[[Any], Any]) -> None:
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, int] | Corrupt:
        try:
            image, label = self.source.load(index)
            return self.transform(image), label
        except InputError:
            raise
        except DECODE_ERRORS as error:
            return Corrupt(index, self.source.describe(index), str(error))


def _stack(items: list[Any]) -> tuple[torch.Tensor, torch.Tensor, list[Corrupt]]:
    corrupt = [item for item in items if isinstance(item, Corrupt)]
    pairs = [item for item in items if not isinstance(item, Corrupt)]
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    if not pairs:
        return torch.empty(0, 3, 1, 1, dtype=torch.uint8), labels, corrupt
    return torch.stack([torch.from_numpy(image) for image, _ in pairs]), labels, corrupt
