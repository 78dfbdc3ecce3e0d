"""Images as the model sees them in each stage, for the report."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from upchirp.curriculum import Plan, Stage
from upchirp.data import DECODE_ERRORS, Augmentation, BatchTransform, Source, TrainTransform
from upchirp.data.requests import Request, sample_seeds
from upchirp.models import at_size
from upchirp.reports.examples import ExampleRow, Examples
from upchirp.training.engine.trainer import Trainer
from upchirp.training.recipes.run_groups import Loading

_IMAGES, _STAGES = 8, 8


def examples_of(label: str, plan: Plan, source: Source, augmentation: Augmentation, loading: Loading) -> Examples:
    """The same few images through every stage of a plan, as they enter the model: erased and mixed ones too."""
    chosen, seeds = _chosen(source, loading)
    rows = []
    for stage in _shown(plan):
        inputs = _inputs(stage, plan, source, augmentation, loading, chosen, seeds)
        rows.append(_row(stage, () if inputs is None else pixels_of(inputs, augmentation)))
    return Examples(label=label, rows=tuple(rows))


def _shown(plan: Plan) -> list[Stage]:
    """The stages, or of many the first one of each kind, and of many kinds a few from the first to the last."""
    if len(plan.stages) <= _STAGES:
        return list(plan.stages)
    kinds = {(stage.bandwidth, stage.radius, stage.operator): stage for stage in reversed(plan.stages)}
    stages = sorted(kinds.values(), key=lambda stage: stage.progress)
    if len(stages) <= _STAGES:
        return stages
    return [stages[round(k * (len(stages) - 1) / (_STAGES - 1))] for k in range(_STAGES)]


def answers_of(trainer: Trainer, plan: Plan, source: Source, model: nn.Module) -> list[tuple[str, ExampleRow]]:
    """What the task shows of the same images, in every stage of a plan, asked of the model as it is now.

    Args:
        trainer: who asks, and where.
        plan: the stages.
        source: the images.
        model: the trained module.
    """
    augmentation, device = trainer.augmentation, trainer.device
    chosen, seeds = _chosen(source, trainer.loading)
    rows: list[tuple[str, ExampleRow]] = []
    for stage in _shown(plan):
        inputs = _inputs(stage, plan, source, augmentation, trainer.loading, chosen, seeds)
        if inputs is None:
            continue
        with at_size(model, stage.bandwidth) as fitted, torch.no_grad():
            training = fitted.training
            own = np.array(seeds[: len(inputs)], np.uint64)
            pictures = trainer.task.pictures(fitted.eval(), inputs.to(device), own, augmentation)
            fitted.train(training)
        if pictures:
            rows.append(("the images", _row(stage, pixels_of(inputs, augmentation))))
        rows += [(name, _row(stage, _bytes(picture))) for name, picture in pictures.items()]
    return rows


def _chosen(source: Source, loading: Loading) -> tuple[list[int], list[int]]:
    chosen = [k * len(source) // _IMAGES for k in range(min(_IMAGES, len(source)))]
    return chosen, sample_seeds(loading.seed, 0, len(chosen)).tolist()


def _row(stage: Stage, images: Sequence[np.ndarray]) -> ExampleRow:
    return ExampleRow(
        bandwidth=stage.bandwidth, progress=stage.progress, magnitude=stage.magnitude, images=tuple(images)
    )


def _inputs(
    stage: Stage,
    plan: Plan,
    source: Source,
    augmentation: Augmentation,
    loading: Loading,
    chosen: Sequence[int],
    seeds: Sequence[int],
) -> torch.Tensor | None:
    """The images as they enter the model, (N, channels, B, B); None if none can be read."""
    load = TrainTransform(augmentation, plan.final_size, mode=loading.mode, low_frequency=loading.low_frequency)
    enter = BatchTransform(augmentation, seed=loading.seed, low_frequency=loading.low_frequency)
    middle = sum(stage.magnitude or (0.0, 0.0)) / 2
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
    if not count:
        return None
    inputs, _ = enter(
        torch.stack(loaded[:count]).permute(0, 3, 1, 2),
        torch.tensor(labels[:count]),
        bandwidth=stage.bandwidth,
        step=0,
        batch_size=count,
        operator=stage.operator,
        radius=stage.radius,
    )
    return inputs


def pixels_of(inputs: torch.Tensor, augmentation: Augmentation) -> Sequence[np.ndarray]:
    """Normalised inputs, (N, channels, B, B), as uint8 of shape (B, B, 3).

    Of many bands the first three are shown as red, green and blue, and values in units of their own from two standard
    deviations below the mean to two above.
    """
    if augmentation.pixel_type == "float32":
        return _bytes(_rgb(inputs / 4 + 0.5))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (augmentation.mean, augmentation.std))
    return _bytes(_rgb(inputs * std + mean))


def _rgb(pictures: torch.Tensor) -> torch.Tensor:
    return pictures[:, :3] if pictures.shape[1] >= 3 else pictures[:, :1].expand(-1, 3, -1, -1)


def _bytes(pictures: torch.Tensor) -> Sequence[np.ndarray]:
    return list(pictures.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
