"""Batches: the images of some rows of a step, as the loader gives them."""

from dataclasses import dataclass, replace

import torch

from upchirp.curriculum import Step
from upchirp.data.device.mixing import Targets
from upchirp.data.device.sending import to_device
from upchirp.data.device.transform import BatchTransform
from upchirp.data.selection import PassSummary
from upchirp.data.workers.requested import Corrupt


@dataclass(frozen=True)
class Batch:
    """A micro-batch: the images of some rows of a step's global batch."""

    images: torch.Tensor
    """(rows, channels, S, S), uint8 unless values keep their units, channels last in memory, on the loader's device; S
    is the bandwidth, or the final size where the device reduces them."""
    labels: torch.Tensor
    """int64, (rows,), on the loader's device."""
    step: Step
    """The step that the batch belongs to."""
    rows: range
    """Which rows of the step's global batch these are."""
    indices: torch.Tensor
    """Which images of the data set were asked for: int64, (rows,)."""
    weights: torch.Tensor | None = None
    """Factors of the rows' losses: float32, (rows,); none if all are 1, as without selection."""
    completes_step: bool = True
    """Whether these are the last rows of this rank's share of the step."""
    corrupt: tuple[Corrupt, ...] = ()
    """Fresh images that were replaced because they could not be read."""
    passes: tuple[PassSummary, ...] = ()
    """Selected passes over the data that begin in the step; given with its first rows."""
    prepared: int = 0
    """How many of the images were newly prepared for it; the others were in the replay buffer."""
    sent_bytes: int = 0
    """Bytes that the loader gave to its device for them."""

    def weigh(self, losses: torch.Tensor) -> torch.Tensor:
        """The rows' losses (rows,) times their weights."""
        return losses if self.weights is None else losses * to_device(self.weights.numpy(), losses.device)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The batch with images and labels on a device; what moves batches for a loop (Lightning, Accelerate) calls it.

        The other tensors stay on the host, which keeps the books of selection.
        """
        images = self.images.to(device, non_blocking=non_blocking)
        return replace(self, images=images, labels=self.labels.to(device, non_blocking=non_blocking))

    def prepare(self, transform: BatchTransform, device: torch.device | str = "cpu") -> tuple[torch.Tensor, Targets]:
        """Model inputs and mixed targets, on a device.

        Args:
            transform: the loader's, `loader.transform`.
            device: where to compute.

        Returns:
            Images (rows, channels, B, B), float32 unless the transform has another dtype, and the targets of
            the rows: `mixed_cross_entropy` takes them, and `targets.dense(classes)` is (rows, classes).
        """
        return transform(
            self.images.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            bandwidth=self.step.bandwidth,
            operator=self.step.operator,
            radius=self.step.radius,
            progress=self.step.progress,
            own=self.step.transform,
            step=self.step.index,
            batch_size=self.step.batch_size,
            first_row=self.rows.start,
        )

    @property
    def bandwidth(self) -> int:
        """Side in pixels of the low-frequency input."""
        return self.step.bandwidth

    @property
    def learning_rate(self) -> float:
        """Learning rate of the step."""
        return self.step.learning_rate

    @property
    def progress(self) -> float:
        """Share of the run done before the step, in [0, 1)."""
        return self.step.progress
