"""Mixup and CutMix: what is drawn for a batch, the targets that come of it, and their loss."""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upchirp.data.label_sets import LabelSets
from upchirp.data.settings import Augmentation
from upchirp.errors import InputError

MIX_GROUP = 8
"""Most samples in a group that is mixed as one."""


@dataclass(frozen=True)
class Targets:
    """Targets of a mixed batch: `weight` parts of `labels`, the rest of `partners`."""

    labels: Tensor
    """Own labels, int64, (N,)."""
    partners: Tensor
    """Labels of the samples that were mixed in, int64, (N,)."""
    weight: Tensor
    """Shares of `labels`, 0 to 1, float32, (N,)."""
    smoothing: float = 0.0
    """Share of the targets that is spread over all classes, [0, 1)."""

    @classmethod
    def of(cls, labels: Tensor) -> "Targets":
        """The targets of images that were not mixed, by their labels (N,)."""
        return cls(labels, labels, torch.ones(len(labels), device=labels.device))

    def dense(self, classes: int) -> Tensor:
        """The share of each class, float32, (N, classes), for a loss that takes such, as torch's own do.

        >>> Targets(torch.tensor([0]), torch.tensor([2]), torch.tensor([0.75]), smoothing=0.5).dense(4)
        tensor([[0.5000, 0.1250, 0.2500, 0.1250]])
        """
        shares = torch.full((len(self.labels), classes), self.smoothing / classes, device=self.labels.device)
        for labels, weight in ((self.labels, self.weight), (self.partners, 1 - self.weight)):
            shares.scatter_add_(1, labels[:, None], (1 - self.smoothing) * weight[:, None])
        return shares


def mix_group(augmentation: Augmentation, batch_size: int) -> int:
    """Samples that are mixed as one group; micro-batches must be multiples of it. 1 if nothing is mixed.

    >>> mix_group(Augmentation(), 20)
    4

    Raises:
        InputError: an odd batch size with mixing on.
    """
    if not augmentation.mixes:
        return 1
    if batch_size % 2:
        raise InputError(f"batch size {batch_size} is odd: mixing pairs samples, make it even or turn mixing off")
    return gcd(batch_size, MIX_GROUP)


def mixed_cross_entropy(
    logits: Tensor, targets: Targets, smoothing: float | None = None, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    """Cross entropy against mixed, smoothed targets, without building them.

    With `s` the smoothing, `K` classes and `w` the weight, the target is `(1 - s) (w onehot(labels) + (1 - w)
    onehot(partners)) + s / K`. Computed in float32.

    Args:
        logits: (N, K), any floating dtype.
        targets: targets of the N samples.
        smoothing: share of the target that is spread over all classes, [0, 1); by default that of the targets.
        reduction: `mean` over the batch, or `none` for the loss of each sample.

    Returns:
        float32: a scalar, or (N,) without reduction.

    Raises:
        InputError: another reduction, or labels in place of targets.

    >>> pair = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5]))
    >>> mixed_cross_entropy(torch.zeros(1, 2), pair)
    tensor(0.6931)
    """
    if reduction not in ("mean", "none"):
        raise InputError(f"reduction {reduction!r} is unknown: choose mean or none")
    if not isinstance(targets, Targets):
        raise InputError(
            f"the targets are a {type(targets).__name__}: give, after the logits, the second of what `batch.prepare` "
            "returns, or `Targets.of(labels)`"
        )
    smoothing = targets.smoothing if smoothing is None else smoothing
    log_probs = torch.log_softmax(logits.float(), dim=1)
    own = log_probs.gather(1, targets.labels[:, None]).squeeze(1)
    other = log_probs.gather(1, targets.partners[:, None]).squeeze(1)
    likelihood = (1 - smoothing) * torch.lerp(other, own, targets.weight)
    if smoothing:
        likelihood = likelihood + smoothing * log_probs.mean(dim=1)
    return -likelihood if reduction == "none" else -likelihood.mean()


def multi_hot(targets: Targets, sets: LabelSets) -> Tensor:
    """The share of each class where labels stand for sets of classes, float32, (N, classes).

    As `Targets.dense` has it: with `s` the smoothing, `K` classes and `w` the weight it is `(1 - s) (w own + (1 - w)
    partner) + s / K`, where `own` and `partner` are 1 for the classes that are in the sets. For binary cross entropy.

    >>> sets = LabelSets.of([(0, 1), ()], classes=2)
    >>> multi_hot(Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75])), sets)
    tensor([[0.7500, 0.7500]])
    """
    table = _table(sets, targets.labels.device)
    shares = torch.lerp(table[targets.partners].float(), table[targets.labels].float(), targets.weight[:, None])
    return (1 - targets.smoothing) * shares + targets.smoothing / sets.classes


@lru_cache(maxsize=8)
def _table(sets: LabelSets, device: torch.device) -> Tensor:
    # Cached: a copy to the device in every step would make the host wait for it.
    with torch.inference_mode(False):
        return torch.from_numpy(sets.rows).to(device)


def mix_draws(
    rng: np.random.Generator, groups: int, augmentation: Augmentation, side: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """For each group the weight of its own samples, and (is CutMix, top, bottom, left, right).

    As in timm: lambda from Beta(alpha, alpha), a CutMix box around a uniform centre, cut off at the borders,
    and lambda corrected to the share that is kept.
    """
    mixes, cuts, centre_y, centre_x = rng.random((4, groups))
    from_mixup = rng.beta(augmentation.mixup, augmentation.mixup, groups) if augmentation.mixup > 0 else np.ones(groups)
    from_cutmix = (
        rng.beta(augmentation.cutmix, augmentation.cutmix, groups) if augmentation.cutmix > 0 else np.ones(groups)
    )
    switch = augmentation.mixup_switch_prob if augmentation.mixup > 0 else 1.0
    mixed = mixes < augmentation.mixup_prob
    cut = mixed & (cuts < switch) & (augmentation.cutmix > 0)
    length = np.where(cut, np.floor(side * np.sqrt(1 - from_cutmix)), 0).astype(np.int64)
    y, x = (centre_y * side).astype(np.int64), (centre_x * side).astype(np.int64)
    top, bottom = np.clip(y - length // 2, 0, side), np.clip(y + (length + 1) // 2, 0, side)
    left, right = np.clip(x - length // 2, 0, side), np.clip(x + (length + 1) // 2, 0, side)
    kept = 1 - (bottom - top) * (right - left) / side**2
    weights = np.where(cut, kept, np.where(mixed, from_mixup, 1.0))
    return weights, np.column_stack([cut, top, bottom, left, right]).astype(np.int64)


def box_mask(boxes: Tensor, side: int, channels: int = 3) -> Tensor:
    """True inside the boxes (top, bottom, left, right): (n, 4) to (n, side, channels side), for lines of pixels."""
    row = torch.arange(side, device=boxes.device)
    column = torch.arange(channels * side, device=boxes.device) // channels
    top, bottom, left, right = boxes[:, :, None].unbind(1)
    rows = (row >= top) & (row < bottom)
    columns = (column >= left) & (column < right)
    return rows[:, :, None] & columns[:, None, :]
