"""Distillation: a student learns its task, and to answer as a trained teacher does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from upchirp.data import Augmentation, Targets
from upchirp.training.engine.task import Task


class Lesson(NamedTuple):
    """What a student's outputs are compared with."""

    asked: Any
    """What the task itself asks."""
    images: Tensor
    """What the student is shown, and the teacher with it, (N, 3, B, B)."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model, at its own size and with its own normalisation; it does not learn.

    >>> teacher = Teacher(nn.Flatten(), 4, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> teacher.answers(torch.zeros(1, 3, 2, 2), mean=(0.75,) * 3, std=(0.25,) * 3).mean()
    tensor(0.5000)
    """

    model: nn.Module
    """In evaluation mode, where the images are."""
    size: int
    """Input side that it takes, pixels."""
    mean: tuple[float, ...]
    """Of the values of each channel, by which its images are normalised."""
    std: tuple[float, ...]
    """Standard deviation of the same."""
    autocast: torch.dtype | None = None
    """Number format of mixed precision; none computes in float32."""

    @torch.no_grad()
    def answers(self, images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Its outputs for images that are normalised by a mean and a standard deviation, at any side, float32."""
        if tuple(mean) != self.mean or tuple(std) != self.std:
            own_mean, own_std, given_mean, given_std = (
                images.new_tensor(values)[:, None, None] for values in (self.mean, self.std, mean, std)
            )
            images = (images * given_std + given_mean - own_mean) / own_std
        if images.shape[-1] != self.size:
            images = functional.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        enabled = self.autocast is not None
        with torch.autocast(images.device.type, self.autocast or torch.bfloat16, enabled=enabled):
            outputs: Tensor = self.model(images)
        return outputs.float()


@dataclass(frozen=True, eq=False)
class Distillation:
    """A task, and beside it the answers of a teacher to the very images that the student sees (Hinton et al., 2015).

    With a the share and T the temperature the loss of an image is (1 - a) l + a T^2 KL(softmax(t / T) ||
    softmax(s / T)), where l is the task's own loss, and s and t are the outputs of student and teacher. The teacher is
    shown what the student is, mixed and cropped and at the bandwidth, and takes it at its own size: it judges what
    there is to see, not what was cut away (Beyer et al., 2022). It is asked in training only, and is in no checkpoint.
    """

    task: Task
    """What the student is trained to do; its outputs are logits, (N, classes)."""
    teacher: Teacher
    mean: tuple[float, ...]
    """Of the values of each channel, by which the student's images are normalised."""
    std: tuple[float, ...]
    """Standard deviation of the same."""
    temperature: float = 4.0
    """T, by which both outputs are divided."""
    share: float = 0.5
    """a, the weight of the teacher's answers."""

    @property
    def labelled(self) -> bool:
        return self.task.labelled

    @property
    def figures(self) -> Mapping[str, float]:
        return self.task.figures

    @property
    def best(self) -> str:
        return self.task.best

    def outputs(self, classes: int) -> int | None:
        return self.task.outputs(classes)

    def around(self, model: nn.Module, *, fresh: bool) -> nn.Module:
        return self.task.around(model, fresh=fresh)

    def exported(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        return self.task.exported(model, tensors)

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        self.task.check(model, size, classes)

    def ask(self, inputs: Tensor, targets: Targets, seeds: npt.NDArray[np.uint64]) -> tuple[Any, Lesson]:
        """What the task asks, and the images for the teacher."""
        shown, asked = self.task.ask(inputs, targets, seeds)
        return shown, Lesson(asked, inputs)

    def loss(self, outputs: Tensor, asked: Lesson) -> Tensor:
        """The task's loss and the teacher's, for each image."""
        answers = self.teacher.answers(asked.images, mean=self.mean, std=self.std)
        own = functional.log_softmax(outputs.float() / self.temperature, dim=1)
        theirs = functional.log_softmax(answers / self.temperature, dim=1)
        apart = functional.kl_div(own, theirs, reduction="none", log_target=True).sum(dim=1) * self.temperature**2
        return torch.lerp(self.task.loss(outputs, asked.asked), apart, self.share)

    def measure(self, outputs: Any, asked: Lesson) -> Tensor:
        """The task's figures; the teacher is not asked."""
        return self.task.measure(outputs, asked.asked)

    def guesses(self, outputs: Any) -> Tensor | None:
        return self.task.guesses(outputs)

    def pictures(
        self, model: nn.Module, inputs: Tensor, seeds: npt.NDArray[np.uint64], seen: Augmentation
    ) -> Mapping[str, Tensor]:
        return self.task.pictures(model, inputs, seeds, seen)
