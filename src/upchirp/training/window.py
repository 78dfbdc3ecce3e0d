"""What is averaged between two log lines."""

import torch

from upchirp.curriculum import Step
from upchirp.training.engine import StepResult
from upchirp.training.events import Logged

_STEADY_STEPS = 10
"""Steps after which the share of time spent waiting says something."""


class Window:
    """Means over the steps since the last log line, with the loss left on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.wait_seconds = 0.0
        self.first_seconds = 0.0
        self.first_wait_seconds = 0.0

    def add(self, result: StepResult, seconds: float) -> None:
        """Count a step that took so many seconds."""
        if self.steps == 0:
            self.first_seconds, self.first_wait_seconds = seconds, result.wait_seconds
        self.loss = self.loss + result.loss
        self.steps += 1
        self.images += result.step.batch_size
        self.wait_seconds += result.wait_seconds

    def mean_loss(self) -> float:
        """Mean loss of the steps; waits for the device."""
        return self.loss.item() / max(self.steps, 1)

    def steady_wait_share(self) -> float:
        """Share of the time spent waiting for data, without the first step, in which workers may have started."""
        if self.steps < _STEADY_STEPS:
            return 0.0
        return (self.wait_seconds - self.first_wait_seconds) / max(self.seconds - self.first_seconds, 1e-9)

    def summary(self, step: Step, train_seconds: float) -> Logged:
        """The event that closes the window."""
        seconds = max(self.seconds, 1e-9)
        return Logged(
            step=step,
            loss=self.mean_loss(),
            images_per_second=self.images / seconds,
            wait_share=min(1.0, self.wait_seconds / seconds),
            train_seconds=train_seconds,
        )
