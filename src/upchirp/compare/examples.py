"""What the model sees in each stage, for the report."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from upchirp.curriculum import Plan
from upchirp.data import DECODE_ERRORS, Source, TrainTransform
from upchirp.data.requests import Request, sample_seeds
from upchirp.reports.examples import ExampleRow, Examples
from upchirp.spectral import low_frequency_crop
from upchirp.training import TrainConfig

_IMAGES = 8


def examples_of(plans: Mapping[str, Plan], source: Source, config: TrainConfig) -> list[Examples]:
    """The same few images through every stage of every plan, prepared as the training prepares them."""
    chosen = [k * len(source) // _IMAGES for k in range(min(_IMAGES, len(source)))]
    seeds = sample_seeds(config.seed, 0, len(chosen)).tolist()
    return [Examples(label=label, rows=_rows(plan, source, config, chosen, seeds)) for label, plan in plans.items()]


def _rows(
    plan: Plan, source: Source, config: TrainConfig, chosen: Sequence[int], seeds: Sequence[int]
) -> tuple[ExampleRow, ...]:
    transform = TrainTransform(
        config.augmentation, plan.final_size, mode=config.mode, low_frequency=config.low_frequency
    )
    rows = []
    for stage in plan.stages:
        middle = sum(stage.magnitude) / 2
        images = []
        for index, seed in zip(chosen, seeds, strict=True):
            try:
                image = transform(source.load(index)[0], Request(index, stage.bandwidth, middle, seed))
            except DECODE_ERRORS:
                continue
            images.append(_cropped(image, stage.bandwidth))
        rows.append(
            ExampleRow(
                bandwidth=stage.bandwidth,
                progress=stage.progress,
                magnitude=stage.magnitude,
                images=tuple(images),
            )
        )
    return tuple(rows)


def _cropped(image: np.ndarray, bandwidth: int) -> np.ndarray:
    """The exact crop, where the loader leaves it to the device."""
    if len(image) == bandwidth:
        return image
    cropped = low_frequency_crop(torch.from_numpy(image).permute(2, 0, 1).float(), bandwidth)
    return cropped.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
