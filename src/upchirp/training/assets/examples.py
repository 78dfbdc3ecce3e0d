"""Images as the model sees them in each stage, for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from upchirp.curriculum import Plan, Stage
from upchirp.data import DECODE_ERRORS, Augmentation, BatchTransform, Source, TrainTransform
from upchirp.data.draws import sample_seeds
from upchirp.data.requests import Request
from upchirp.models import at_size
from upchirp.reports.examples import ExampleRow, Examples
from upchirp.training.engine.trainer import Trainer
from upchirp.training.recipes.run_groups import Loading

_IMAGES, _STAGES = 8, 8


def examples_of(label: str, plan: Plan, source: Source, augmentation: Augmentation, loading: Loading) -> Examples:
    """The same few images through every stage of a plan, as they enter the model: erased and mixed ones too."""
    images = _Images(plan, source, augmentation, loading)
    rows = []
    for stage in _shown(plan):
        inputs = images.inputs(stage)
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
    """What the task shows of the same images, in every stage of a plan, asked of the model as it is now."""
    augmentation = trainer.augmentation
    images = _Images(plan, source, augmentation, trainer.loading)
    rows: list[tuple[str, ExampleRow]] = []
    for stage in _shown(plan):
        inputs = images.inputs(stage)
        if inputs is None:
            continue
        with at_size(model, stage.bandwidth) as fitted, torch.no_grad():
            training = fitted.training
            seeds = images.seeds[: len(inputs)]
            pictures = trainer.task.pictures(fitted.eval(), inputs.to(trainer.device), seeds, augmentation)
            fitted.train(training)
        if pictures:
            rows.append(("the images", _row(stage, pixels_of(inputs, augmentation))))
        rows += [(name, _row(stage, _bytes(picture))) for name, picture in pictures.items()]
    return rows


@dataclass(frozen=True)
class _Images:
    """A few images of a run, evenly spaced, as they enter the model."""

    plan: Plan
    source: Source
    augmentation: Augmentation
    loading: Loading

    @property
    def seeds(self) -> npt.NDArray[np.uint64]:
        """One for each of them."""
        return sample_seeds(self.loading.seed, 0, min(_IMAGES, len(self.source)))

    def inputs(self, stage: Stage) -> torch.Tensor | None:
        """They as they are in a stage, (N, channels, B, B); None if none can be read."""
        mode, low_frequency = self.loading.mode, self.loading.low_frequency
        load = TrainTransform(self.augmentation, self.plan.final_size, mode=mode, low_frequency=low_frequency)
        enter = BatchTransform(self.augmentation, seed=self.loading.seed, low_frequency=low_frequency)
        middle = sum(stage.magnitude or (0.0, 0.0)) / 2
        loaded, labels = [], []
        for place, seed in enumerate(self.seeds.tolist()):
            index = place * len(self.source) // _IMAGES
            try:
                image, label = self.source.load(index)
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


def _row(stage: Stage, images: Sequence[np.ndarray]) -> ExampleRow:
    return ExampleRow(
        bandwidth=stage.bandwidth, progress=stage.progress, magnitude=stage.magnitude, images=tuple(images)
    )


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
