"""T_t of Section 3: any transform of a batch that knows how far a run is."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from upchirp.data.device.sending import to_device
from upchirp.randomness import Stream, philox


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a run is, and which rows of the step's batch these are.

    >>> whole = Moment(progress=0.5, step=7, bandwidth=96, rows=range(8), seed=0)
    >>> part = Moment(progress=0.5, step=7, bandwidth=96, rows=range(4, 8), seed=0)
    >>> torch.equal(whole.uniform(3)[4:], part.uniform(3))
    True
    """

    progress: float
    """Share of the run done before the step, in [0, 1)."""
    step: int
    """Index of the optimizer step."""
    bandwidth: int
    """Side in pixels of the low-frequency input."""
    rows: range
    """Which rows of the step's global batch are shown."""
    seed: int
    """Seed of the run."""

    def uniform(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """Numbers from 0 to below 1 for each row, float32, (rows, count).

        They follow from (seed, step, row), so neither ranks nor micro-batches nor interruptions change them.
        """
        rng = np.random.Generator(philox(Stream.TRANSFORM, self.seed, self.step))
        numbers = rng.random((self.rows.stop, count))[self.rows.start :]
        return to_device(numbers.astype(np.float32), torch.device(device))


class Transform(Protocol):
    """Changes what the model is shown, at each step: a function, or an `nn.Module` whose parameters learn with it."""

    def __call__(self, images: Tensor, moment: Moment, /) -> Tensor:
        """The images to show.

        Args:
            images: normalised, erased and mixed, float32, (N, 3, B, B).
            moment: how far the run is, and the source of whatever is drawn.
        """
