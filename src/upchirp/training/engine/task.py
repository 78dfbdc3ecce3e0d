"""What a batch is for a model: what it is shown, what is asked of it, and how well it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from upchirp.data import Targets, mixed_cross_entropy
from upchirp.models import check_outputs


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

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look at a model before it is trained.

        Raises:
            InputError: it does not fit the task.
        """

    def ask(self, inputs: Tensor, targets: Targets) -> tuple[Tensor, Any]:
        """What the model is shown of inputs (N, 3, B, B), and what its outputs are compared with.

        In an evaluation the images are whole and unmixed.
        """

    def loss(self, outputs: Any, asked: Any) -> Tensor:
        """The loss of each image, float32, (N,)."""

    def measure(self, outputs: Any, asked: Any) -> Tensor:
        """Sums of the figures over the images, float32, (figures,)."""

    def guesses(self, outputs: Any) -> Tensor | None:
        """The class that each image is taken for, (N,), to be compared with its label; None if the task has no such."""


@dataclass(frozen=True)
class Classification:
    """One label for each image, mixed and smoothed as the recipe says.

    >>> task = Classification()
    >>> task.measure(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), Targets.of(torch.tensor([0, 1])))[0]
    tensor(1.)
    """

    labelled = True
    figures = {"top1": 100.0, "top5": 100.0, "loss": 1.0}  # noqa: RUF012  a constant
    best = "top1"

    def outputs(self, classes: int) -> int | None:
        """One for each class."""
        return classes or None

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look whether it maps images to (N, classes)."""
        check_outputs(model, size, classes or None)

    def ask(self, inputs: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """The images, and their labels."""
        return inputs, targets

    def loss(self, outputs: Tensor, asked: Targets) -> Tensor:
        """Cross entropy against mixed, smoothed targets."""
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
