"""Means over the steps of a training since its last log line."""

import torch

from upchirp.curriculum import Step
from upchirp.training.engine.step import StepResult
from upchirp.training.events import Logged
from upchirp.training.parallel.ranks import Ranks


class Window:
    """Means over the steps since the last log line, with the losses left on the device and on their ranks.

    It begins at a training time of the run in seconds, `begun`; all ranks count the same steps.
    """

    def __init__(self, device: torch.device, ranks: Ranks, begun: float) -> None:
        self.loss = torch.zeros((), device=device)
        self.steps = 0
        self.images = 0
        self.wait_seconds = 0.0
        self.prepared = 0
        self.sent_bytes = 0
        self._begun = begun
        self._ranks = ranks
        self._own: list[torch.Tensor] = []

    def add(self, result: StepResult) -> None:
        """Count a step."""
        self._own.append(result.summed_loss)
        self.steps += 1
        self.images += result.step.batch_size
        self.wait_seconds += result.wait_seconds
        self.prepared += result.prepared
        self.sent_bytes += result.sent_bytes

    def over_ranks(self) -> None:
        """Take what was counted on all ranks, which call it together."""
        waits, prepared, sent = zip(
            *self._ranks.gather((self.wait_seconds, self.prepared, self.sent_bytes)), strict=True
        )
        self.wait_seconds = sum(waits) / len(waits)
        self.prepared, self.sent_bytes = sum(prepared), sum(sent)

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
        """The event that closes the window at a training time."""
        seconds = max(train_seconds - self._begun, 1e-9)
        return Logged(
            step=step,
            loss=self.mean_loss(),
            images_per_second=self.images / seconds,
            wait_share=min(1.0, self.wait_seconds / seconds),
            train_seconds=train_seconds,
            prepared_per_second=self.prepared / seconds,
            megabytes_per_second=self.sent_bytes / 1e6 / seconds,
        )
