"""Several labels for an image: each class is told by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

from upchirp.data import LabelSets, Targets, multi_hot
from upchirp.models import check_outputs
from upchirp.training.engine.label_scores import LabelScores


@dataclass(frozen=True, eq=False)
class MultiLabel:
    """Whether an image shows each class: any number of labels, mixed and smoothed as the recipe says.

    An image's label is the number of a set of classes. The loss of an image is the mean over the classes of the binary
    cross entropies, as timm and DeiT III average them; with one class in each set it is that of
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

    labelled = True
    figures = {"loss": 1.0}  # noqa: RUF012  a constant
    best = "mAP"

    def outputs(self, classes: int) -> int | None:
        """One for each class."""
        return classes or None

    def around(self, model: nn.Module, *, fresh: bool) -> nn.Module:
        """The model itself."""
        return model

    def exported(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """All of it."""
        return model, dict(tensors)

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look whether it maps images to (N, classes): each output is asked for, so there are no others."""
        check_outputs(model, size, self.sets.classes, self.channels, exactly=True)

    def ask(self, inputs: Tensor, targets: Targets, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Targets]:
        """The images, and the numbers of their sets."""
        return inputs, targets

    def loss(self, outputs: Tensor, asked: Targets) -> Tensor:
        """Binary cross entropy of each class, their mean; mixed images are asked for shares of both."""
        shares = multi_hot(asked, self.sets)
        return functional.binary_cross_entropy_with_logits(outputs.float(), shares, reduction="none").mean(dim=1)

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

    def pictures(
        self,
        model: nn.Module,
        inputs: Tensor,
        seeds: npt.NDArray[np.uint64],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> Mapping[str, Tensor]:
        """None: classes are told in words."""
        return {}
