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
    sums = torch.zeros(len(views), len(task.figures), dtype=torch.float32, device=device)
    seen: list[torch.Tensor] = []
    guessed: list[list[torch.Tensor]] = [[] for _ in views]
    scored: list[list[torch.Tensor]] = [[] for _ in views]
    count, left = 0, data.batches
    try:
        for view in views:
            view.model.eval()
        for images, labels, indices in data:
            inputs = normalize(images.to(device, non_blocking=True), mean, std, scale_of(images))
            targets = Targets.of(labels.to(device, non_blocking=True))
            seen.append(torch.stack([indices.to(torch.int32), labels.to(torch.int32)]))
            for view, total, guesses, scores in zip(views, sums, guessed, scored, strict=True):
                whole = inputs if view.filtered is None else view.filtered(inputs)
                own = whole if view.bandwidth >= data.size else reduced(whole, view.bandwidth, view.operator)
                shown, asked = task.ask(own, targets, indices.numpy().astype(np.uint64))
                with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                    outputs = view.model(shown)
                total += task.measure(outputs, asked)
                # Left on the device, which nobody waits for here.
                if (guess := task.guesses(outputs)) is not None:
                    guesses.append(guess.to(torch.int32))
                if isinstance(task, Ranked):
                    scores.append(task.scores(outputs))
            count += len(labels)
            left -= 1
        for view in [*views] * left if in_step else []:
            view.model(torch.zeros(1, len(mean), view.bandwidth, view.bandwidth, device=device))
        data.share_corrupt()
    finally:
        for module, training in modes:
            module.training = training
    (count,) = data.ranks.add(torch.tensor([count])).tolist()
    means = (data.ranks.add(sums) / max(count, 1)).tolist()
    predictions: Sequence[Predictions | None] = [None] * len(views)
    ranked: Sequence[LabelScores | None] = [None] * len(views)
    if any(data.ranks.gather(any(guessed))):
        rows, known, answers = _gathered(seen, guessed, data.ranks)
        predictions = [Predictions(indices=rows, labels=known, guesses=of_view) for of_view in answers]
    if isinstance(task, Ranked) and count:
        rows, known, answers = _gathered(seen, scored, data.ranks)
        ranked = [task.ranked(rows, known, of_view) for of_view in answers]
    return [
        Evaluation(
            figures={
                **(scores.figures if scores is not None else {}),
                **{name: task.figures[name] * value for name, value in zip(task.figures, own, strict=True)},
            },
            images=count,
            best=task.best,
            predictions=guesses,
            scores=scores,
        )
        for own, guesses, scores in zip(means, predictions, ranked, strict=True)
    ]


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
