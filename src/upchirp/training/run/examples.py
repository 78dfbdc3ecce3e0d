"""What the model sees in each stage, for the report."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from upchirp.curriculum import Plan
from upchirp.data import DECODE_ERRORS, Augmentation, BatchTransform, Source, TrainTransform
from upchirp.data.requests import Request, sample_seeds
from upchirp.reports.examples import ExampleRow, Examples
from upchirp.training.recipes.groups import Loading

_IMAGES = 8


def examples_of(
    plans: Mapping[str, Plan], source: Source, augmentation: Augmentation, loading: Loading
) -> list[Examples]:
    """The same few images through every stage of every plan, as they enter the model: erased and mixed ones too."""
    chosen = [k * len(source) // _IMAGES for k in range(min(_IMAGES, len(source)))]
    seeds = sample_seeds(loading.seed, 0, len(chosen)).tolist()
    return [
        Examples(label=label, rows=_rows(plan, source, augmentation, loading, chosen, seeds))
        for label, plan in plans.items()
    ]


def _rows(
    plan: Plan,
    source: Source,
    augmentation: Augmentation,
    loading: Loading,
    chosen: Sequence[int],
    seeds: Sequence[int],
) -> tuple[ExampleRow, ...]:
    load = TrainTransform(augmentation, plan.final_size, mode=loading.mode, low_frequency=loading.low_frequency)
    enter = BatchTransform(augmentation, seed=loading.seed, low_frequency=loading.low_frequency)
    rows = []
    for stage in plan.stages:
        middle = sum(stage.magnitude) / 2
        loaded, labels = [], []
        for index, seed in zip(chosen, seeds, strict=True):
            try:
                image, label = source.load(index)
                request = Request(index, stage.bandwidth, middle, seed, stage.operator)
                loaded.append(torch.from_numpy(load(image, request)))
                labels.append(label)
            except DECODE_ERRORS:
                continue
        # Images are mixed in pairs.
        count = len(loaded) - len(loaded) % 2
        images: list[np.ndarray] = []
        if count:
            inputs, _ = enter(
                torch.stack(loaded[:count]).permute(0, 3, 1, 2),
                torch.tensor(labels[:count]),
                bandwidth=stage.bandwidth,
                step=0,
                batch_size=count,
                operator=stage.operator,
                radius=stage.radius,
            )
            images = list(_pixels(inputs, augmentation))
        rows.append(
            ExampleRow(
                bandwidth=stage.bandwidth, progress=stage.progress, magnitude=stage.magnitude, images=tuple(images)
            )
        )
    return tuple(rows)


def _pixels(inputs: torch.Tensor, augmentation: Augmentation) -> np.ndarray:
    """Normalised inputs, (N, 3, B, B), as uint8 of shape (N, B, B, 3)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (augmentation.mean, augmentation.std))
    pixels = (inputs * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()
