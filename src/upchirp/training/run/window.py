"""What is averaged over some steps: between two log lines, or until it says something."""

import torch

from upchirp.curriculum import Step
from upchirp.training.engine.trainer import StepResult
from upchirp.training.events import Logged
from upchirp.training.parallel.ranks import Ranks

_STEADY_STEPS = 10
"""Steps after which the share of time spent waiting says something."""


class Window:
    """Means over the steps since the last log line, with the losses left on the device and on their ranks.

    Args:
        device: where the losses are.
        ranks: who trains; all of them count the same steps.
    """

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        self.loss = torch.zeros((), device=device)
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.wait_seconds = 0.0
        self._ranks = ranks
        self._own: list[torch.Tensor] = []

    def add(self, result: StepResult) -> None:
        """Count a step."""
        self._own.append(result.summed_loss)
        self.steps += 1
        self.images += result.step.batch_size
        self.wait_seconds += result.wait_seconds

    def is_finite(self) -> bool:
        """Whether this rank's losses are finite; waits for the device, and for no other rank."""
        return bool(torch.isfinite(self.loss + sum(own[0] for own in self._own)))

    def mean_loss(self) -> float:
        """Mean loss of the steps over all ranks, which call it together; waits for the device."""
        if self._own:
            summed, weights = self._ranks.add(torch.stack(self._own)).unbind(1)
            for loss in summed / weights:
                self.loss = self.loss + loss
            self._own.clear()
        return self.loss.item() / max(self.steps, 1)

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


class SteadyWait:
    """Share of the time spent waiting for data, over enough steps of one stage, however often a log line is due.

    >>> wait = SteadyWait()
    >>> for seconds in (60.0, *[1.0] * 9):
    ...     wait.seconds += seconds
    ...     wait.add(stage=0, wait_seconds=seconds / 4)
    >>> wait.take_share(), wait.take_share()
    (0.25, 0.0)
    """

    def __init__(self) -> None:
        self.stage = -1
        self.steps = 0
        self.seconds = 0.0
        self.wait_seconds = 0.0

    def add(self, stage: int, wait_seconds: float) -> None:
        """Count a step whose time is in `seconds` already."""
        if stage != self.stage:
            # Without the time of a stage's first step, in which workers may have started.
            self.stage = stage
            self._restart()
        else:
            self.wait_seconds += wait_seconds
        self.steps += 1

    def take_share(self) -> float:
        """The share, after which counting begins anew; 0 while there are too few steps."""
        if self.steps < _STEADY_STEPS:
            return 0.0
        share = self.wait_seconds / max(self.seconds, 1e-9)
        self._restart()
        return share

    def _restart(self) -> None:
        self.steps = 0
        self.seconds = self.wait_seconds = 0.0
