"""Evaluation at the final size, and during early stages at the current bandwidth (Figure 8)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from upchirp.curriculum import Operator
from upchirp.data import Targets, normalize, scale_of
from upchirp.data.device.reducing import reduced
from upchirp.reports.words import figure_text
from upchirp.training.engine.label_scores import LabelScores
from upchirp.training.engine.task import Classification, Ranked, Task
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.predictions import Predictions
from upchirp.training.parallel.ranks import Ranks


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
    scores: LabelScores | None = field(default=None, repr=False, compare=False)
    """The scores of all classes for each image, if the task ranks images by them."""

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
        return ", ".join(figure_text(name, value) for name, value in self.figures.items())


class View(NamedTuple):
    """A model and the input side it is evaluated at."""

    name: Literal["model", "ema"]
    """Which weights these are."""
    model: nn.Module
    """Takes inputs of side `bandwidth`."""
    bandwidth: int
    """Pixels; below the set's own size the images are reduced, as in Figure 8."""
    operator: Operator = "lanczos"
    """What reduces them: what the model was shown in training, so that content is where it was there."""
    filtered: Callable[[torch.Tensor], torch.Tensor] | None = None
    """What is done to normalised inputs first, (N, 3, S, S) to the same; by default nothing."""

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images of the set's side as the model is to take them, (N, 3, B, B)."""
        whole = images if self.filtered is None else self.filtered(images)
        return whole if self.bandwidth >= images.shape[-1] else reduced(whole, self.bandwidth, self.operator)


@torch.no_grad()
def evaluate(
    views: Sequence[View],
    data: EvaluationSet,
    *,
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
    mean, std = data.augmentation.mean, data.augmentation.std
    modes = [(module, module.training) for view in views for module in view.model.modules()]
    answers = [_Answers(torch.zeros(len(task.figures), dtype=torch.float32, device=device)) for _ in views]
    seen: list[torch.Tensor] = []
    try:
        for view in views:
            view.model.eval()
        for images, labels, indices in data:
            inputs = normalize(images.to(device, non_blocking=True), mean, std, scale_of(images))
            targets = Targets.of(labels.to(device, non_blocking=True))
            seen.append(torch.stack([indices.to(torch.int32), labels.to(torch.int32)]))
            for view, answered in zip(views, answers, strict=True):
                shown, asked = task.ask(view.inputs(inputs), targets, indices.numpy().astype(np.uint64))
                with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                    outputs = view.model(shown)
                answered.add(task, outputs, asked)
        for view in [*views] * (data.batches - len(seen)) if in_step else []:
            view.model(torch.zeros(1, len(mean), view.bandwidth, view.bandwidth, device=device))
        data.share_corrupt()
    finally:
        for module, training in modes:
            module.training = training
    (count,) = data.ranks.add(torch.tensor([sum(images.shape[1] for images in seen)])).tolist()
    means = (data.ranks.add(torch.stack([each.sums for each in answers])) / max(count, 1)).tolist()
    predictions: Sequence[Predictions | None] = [None] * len(views)
    ranked: Sequence[LabelScores | None] = [None] * len(views)
    if any(data.ranks.gather(any(each.guesses for each in answers))):
        rows, known, guesses = _gathered(seen, [each.guesses for each in answers], data.ranks)
        predictions = [Predictions(indices=rows, labels=known, guesses=of_view) for of_view in guesses]
    if isinstance(task, Ranked) and count:
        rows, known, scores = _gathered(seen, [each.scores for each in answers], data.ranks)
        ranked = [task.ranked(rows, known, of_view) for of_view in scores]
    return [
        Evaluation(
            figures={
                **(of_all.figures if of_all is not None else {}),
                **{name: task.figures[name] * value for name, value in zip(task.figures, own, strict=True)},
            },
            images=count,
            best=task.best,
            predictions=predicted,
            scores=of_all,
        )
        for own, predicted, of_all in zip(means, predictions, ranked, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a view answered for this rank's images, left on the device, which nobody waits for on the way."""

    sums: torch.Tensor
    """Of the task's figures, (figures,)."""
    guesses: list[torch.Tensor] = field(default_factory=list)
    scores: list[torch.Tensor] = field(default_factory=list)

    def add(self, task: Task, outputs: Any, asked: Any) -> None:
        """Count a batch."""
        self.sums.add_(task.measure(outputs, asked))
        if (guess := task.guesses(outputs)) is not None:
            self.guesses.append(guess.to(torch.int32))
        if isinstance(task, Ranked):
            self.scores.append(task.scores(outputs))


def _gathered(
    seen: Sequence[torch.Tensor], of_views: Sequence[Sequence[torch.Tensor]], ranks: Ranks
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], list[npt.NDArray[Any]]]:
    """The images of all ranks in the data set's order: indices, labels, and what each view answered."""
    own = None
    if seen:  # a rank may have none
        own = torch.cat(list(seen), dim=1).numpy(), [torch.cat(list(of_view)).cpu().numpy() for of_view in of_views]
    parts = [part for part in ranks.gather(own) if part is not None]
    indices, labels = np.concatenate([rows for rows, _ in parts], axis=1)
    order = np.argsort(indices, kind="stable")
    views = [np.concatenate([answers[view] for _, answers in parts])[order] for view in range(len(of_views))]
    return indices[order], labels[order], views
