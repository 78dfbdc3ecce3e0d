"""Tasks: what a model is shown of a batch, what is asked of it, and how well it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from upchirp.data import Augmentation, Targets, mixed_cross_entropy
from upchirp.models import check_outputs
from upchirp.training.engine.label_scores import LabelScores
from upchirp.training.recipes.recipe import Loss


class Task(Protocol):
    """What a model is trained to do; `Classification` by the data's labels is the first, a class of one's own another.

    The engine knows nothing else of outputs and losses, so that masked images, several labels, a teacher's outputs or
    another loss are a class with these few methods. It is given to processes of a search, so it can be pickled.
    """

    @property
    def labelled(self) -> bool:
        """Whether it needs the labels of the images; if not, they are neither read nor checked, and all of them 0."""

    @property
    def figures(self) -> Mapping[str, float]:
        """What an evaluation measures: each figure's name with what its mean over the images is multiplied by.

        One of them is `loss`.
        """

    @property
    def best(self) -> str:
        """The figure that tells which weights are best: the higher, the better. A search calls it accuracy."""

    def outputs(self, classes: int) -> int | None:
        """How many outputs a model needs that is made by name, for data of so many classes; None if it cannot be."""

    def around(self, model: nn.Module, *, fresh: bool) -> nn.Module:
        """What is trained, around the model that is given or made by name; often that itself.

        Args:
            model: with the weights that it starts from.
            fresh: whether these are new, so that the task may draw others.

        Raises:
            InputError: the task takes no such model.
        """

    def exported(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """What is kept of a trained model: a module that goes by a name of timm's, and its tensors by its names.

        Args:
            model: that `around` gave, at its final size.
            tensors: of its state, whole and on the host.
        """

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look at a model before it is trained.

        Raises:
            InputError: it does not fit the task.
        """

    def ask(self, inputs: Tensor, targets: Targets, seeds: npt.NDArray[np.uint64]) -> tuple[Any, Any]:
        """What the model is shown of inputs (N, 3, B, B), and what its outputs are compared with.

        In an evaluation the images are whole and unmixed.

        Args:
            inputs: normalised images.
            targets: their labels.
            seeds: one for each image, (N,), for whatever is drawn: it follows from the run's seed, the step and the
                row of the batch, and in an evaluation from the image, not from ranks or interruptions.
        """

    def loss(self, outputs: Any, asked: Any) -> Tensor:
        """The loss of each image, float32, (N,)."""

    def measure(self, outputs: Any, asked: Any) -> Tensor:
        """Sums of the figures over the images, float32, (figures,)."""

    def guesses(self, outputs: Any) -> Tensor | None:
        """The class that each image is taken for, (N,), to be compared with its label; None if the task has no such."""

    def pictures(
        self, model: nn.Module, inputs: Tensor, seeds: npt.NDArray[np.uint64], seen: Augmentation
    ) -> Mapping[str, Tensor]:
        """Pictures for the report of what is asked and answered: by what they show, (N, 3, B, B), from 0 to 1.

        Args:
            model: in evaluation mode, at the images' side.
            inputs: a few normalised images, (N, 3, B, B).
            seeds: one for each, as in `ask`.
            seen: by what they were normalised.
        """


@runtime_checkable
class Ranked(Task, Protocol):
    """A task some of whose figures are no means over images, but rank all of them; `best` may be one of these."""

    def scores(self, outputs: Any) -> Tensor:
        """What is kept of the outputs for each image, float32, (N, classes)."""

    def ranked(
        self, indices: npt.NDArray[np.int32], labels: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]
    ) -> LabelScores:
        """How well all images, on all ranks, are ranked.

        Args:
            indices: of the images in the data set, (N,).
            labels: of the images, (N,).
            scores: that were kept of them, (N, classes).
        """


class OfLabels:
    """What tasks have in common whose answer is in the labels: the model itself is trained, and shown the images."""

    labelled = True

    def outputs(self, classes: int) -> int | None:
        """One for each class."""
        return classes or None

    def around(self, model: nn.Module, *, fresh: bool) -> nn.Module:
        """The model itself."""
        return model

    def exported(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """All of it."""
        return model, dict(tensors)

    def ask(self, inputs: Tensor, targets: Targets, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Targets]:
        """The images, and their labels."""
        return inputs, targets

    def pictures(
        self, model: nn.Module, inputs: Tensor, seeds: npt.NDArray[np.uint64], seen: Augmentation
    ) -> Mapping[str, Tensor]:
        """None: classes are told in words."""
        return {}


def binary_cross_entropy(outputs: Tensor, shares: Tensor) -> Tensor:
    """The mean over the classes of their binary cross entropies, as timm and DeiT III average them, (N,).

    Logits and the shares that are asked for, 0 to 1, are (N, classes).
    """
    return functional.binary_cross_entropy_with_logits(outputs.float(), shares, reduction="none").mean(dim=1)


@dataclass(frozen=True)
class Classification(OfLabels):
    """One label for each image, mixed and smoothed as the recipe says.

    >>> task = Classification()
    >>> task.measure(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), Targets.of(torch.tensor([0, 1])))[0]
    tensor(1.)
    """

    labelling: Loss = "cross_entropy"
    """What outputs and labels are compared by in training; `bce` takes each class by itself, as DeiT III does."""
    channels: int = 3
    """Of the images."""

    figures = {"top1": 100.0, "top5": 100.0, "loss": 1.0}  # noqa: RUF012  a constant
    best = "top1"

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look whether it maps images to (N, classes)."""
        check_outputs(model, size, classes or None, self.channels)

    def loss(self, outputs: Tensor, asked: Targets) -> Tensor:
        """Cross entropy against mixed, smoothed targets; for `bce` the mean over the classes of binary ones."""
        if self.labelling == "bce":
            return binary_cross_entropy(outputs, asked.dense(outputs.shape[1]))
        return mixed_cross_entropy(outputs, asked, reduction="none")

    def measure(self, outputs: Tensor, asked: Targets) -> Tensor:
        """How many labels are the first guess, how many are among the first five, and the cross entropy."""
        logits = outputs.float()
        guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = guesses == asked.labels[:, None]
        loss = functional.cross_entropy(logits, asked.labels, reduction="sum")
        return torch.stack([hits[:, 0].sum().float(), hits.any(dim=1).sum().float(), loss])

    def guesses(self, outputs: Tensor) -> Tensor | None:
        """The class with the highest score."""
        return outputs.argmax(dim=1)
