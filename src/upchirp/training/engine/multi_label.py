"""Several labels for an image: each class is told by itself."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from upchirp.data import LabelSets, Targets, multi_hot
from upchirp.models import check_outputs
from upchirp.training.engine.label_scores import LabelScores
from upchirp.training.engine.task import OfLabels, binary_cross_entropy


@dataclass(frozen=True, eq=False)
class MultiLabel(OfLabels):
    """Whether an image shows each class: any number of labels, mixed and smoothed as the recipe says.

    An image's label is the number of a set of classes. With one class in each set the loss is that of
    `Classification("bce")`.

    >>> import torch
    >>> task = MultiLabel(LabelSets.of([(0, 1), ()], classes=2))
    >>> task.loss(torch.tensor([[9.0, 9.0], [9.0, -9.0]]), Targets.of(torch.tensor([0, 1]))).round(decimals=2)
    tensor([0.0000, 4.5000])
    """

    sets: LabelSets
    """What the labels of training and validation images stand for."""
    channels: int = 3
    """Of the images."""

    figures = {"loss": 1.0}  # noqa: RUF012  a constant
    best = "mAP"

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look whether it maps images to (N, classes): each output is asked for, so there are no others."""
        check_outputs(model, size, self.sets.classes, self.channels, exactly=True)

    def loss(self, outputs: Tensor, asked: Targets) -> Tensor:
        """Binary cross entropy of each class, their mean; mixed images are asked for shares of both."""
        return binary_cross_entropy(outputs, multi_hot(asked, self.sets))

    def measure(self, outputs: Tensor, asked: Targets) -> Tensor:
        """The loss; what classes are taken for is ranked over all images, see `scores`."""
        return self.loss(outputs, asked).sum()[None]

    def guesses(self, outputs: Tensor) -> Tensor | None:
        """None: an image has no class that it is taken for."""
        return None

    def scores(self, outputs: Tensor) -> Tensor:
        """The outputs themselves, float32, (N, classes)."""
        return outputs.float()

    def ranked(
        self, indices: npt.NDArray[np.int32], labels: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]
    ) -> LabelScores:
        """Average precision, and F1 at 0.5."""
        return LabelScores(indices=indices, truth=self.sets.rows[labels], scores=scores)
