"""The replay buffer: images that were prepared once and are trained on several times (Section 5.3).

The paper samples mini-batches from the buffer. Here every replayed row draws for itself, uniformly among the last
fresh images that the same row had in this stage. So a replayed batch mixes images of many fresh batches, and an image
comes back with other partners for mixing, and erased elsewhere: both are drawn at each step, on the device. As the row
stays the same, each rank and each micro-batch has its images at hand, and their number changes nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from upchirp.curriculum import Step
from upchirp.data.device.sending import to_device
from upchirp.data.draws import replay_draws


def shown(step: Step, rows: range, *, window: int, seed: int) -> list[int]:
    """Which fresh image each row shows: its number among those of the same row in this stage, from 0.

    A fresh row shows the next one, a replayed row any of the last `window` ones: a pure function of
    (plan, seed, step, row).

    >>> from upchirp.curriculum import constant, plan
    >>> run = plan(constant(32), epochs=1, dataset_size=400, batch_size=4).with_replay(1, final=True)
    >>> shown(run.step(40), range(4), window=8, seed=0)
    [20, 20, 20, 20]
    >>> all(13 <= number <= 20 for number in shown(run.step(41), range(4), window=8, seed=0))
    True
    """
    fresh = step.fresh_rows(rows)
    draws = replay_draws(seed, step.first_sample + rows.start, len(rows)).tolist()
    counts = [step.replay.fresh_of_row(step.offset, row) for row in rows]
    return [
        count if row in fresh else count - 1 - draw % min(window, count)
        for row, count, draw in zip(rows, counts, draws, strict=True)
    ]


class Samples(NamedTuple):
    """What some rows of a batch show."""

    images: Tensor
    """(rows, channels, S, S), as the loader gives them, on the host or a device."""
    labels: Tensor
    """int64, (rows,), where the images are."""
    indices: Tensor
    """Which images of the data set were asked for: int64, (rows,), on the host."""
    weights: Tensor
    """Factors of their losses: float32, (rows,), on the host."""


class ReplayBuffer:
    """The last fresh images of the rows that one process takes, in one stage: a ring for each row.

    They are kept where they come from: images on a device stay there.

    Args:
        rows: the rows of the global batch.
        window: how many images of each row may be drawn.
        most: fresh images of one row in the whole stage; memory for more is not taken.
        seed: seed of the run.
        pin_memory: give batches that are on the host in page-locked memory, if there is a CUDA device.
    """

    def __init__(self, rows: range, window: int, *, most: int, seed: int, pin_memory: bool = False) -> None:
        self._rows = rows
        self._window = window
        self._ring = min(window, most)
        self._seed = seed
        self._pinned = pin_memory and torch.cuda.is_available()
        self._side = 0
        self._images = torch.empty(0, 0, dtype=torch.uint8)
        self._labels = self._indices = torch.empty(0, dtype=torch.int64)
        self._weights = torch.empty(0)

    @property
    def nbytes(self) -> int:
        """Memory of the images, bytes."""
        return self._images.nbytes

    def add(self, step: Step, fresh: range, samples: Samples) -> None:
        """Keep fresh images, each in place of the oldest of its row.

        Args:
            step: the step that they are fresh in.
            fresh: their rows.
            samples: what those rows show.
        """
        images = samples.images
        if not self.nbytes:
            places = len(self._rows) * self._ring
            self._side = images.shape[-1]
            self._images = torch.empty(places, images[0].numel(), dtype=images.dtype, device=images.device)
            self._labels = torch.empty(places, dtype=torch.int64, device=images.device)
            self._indices = torch.empty(places, dtype=torch.int64)
            self._weights = torch.empty(places)
        numbers = [step.replay.fresh_of_row(step.offset, row) for row in fresh]
        places_of = self._places(fresh, numbers)
        on_device = to_device(places_of.numpy(), images.device)
        self._images.index_copy_(0, on_device, images.permute(0, 2, 3, 1).reshape(len(images), -1))
        self._labels.index_copy_(0, on_device, samples.labels)
        self._indices[places_of] = samples.indices
        self._weights[places_of] = samples.weights

    def take(self, step: Step, rows: range) -> Samples:
        """What rows of a step show, once its fresh images are added: copies, free to be changed, channels last."""
        places = self._places(rows, shown(step, rows, window=self._window, seed=self._seed))
        device = self._images.device
        memory: dict[str, Any] = {"device": device, "pin_memory": self._pinned and device.type == "cpu"}
        images = torch.empty(len(rows), self._images.shape[1], dtype=self._images.dtype, **memory)
        labels = torch.empty(len(rows), dtype=torch.int64, **memory)
        on_device = to_device(places.numpy(), device)
        torch.index_select(self._images, 0, on_device, out=images)
        torch.index_select(self._labels, 0, on_device, out=labels)
        images = images.view(len(rows), self._side, self._side, -1).permute(0, 3, 1, 2)
        return Samples(images, labels, self._indices[places], self._weights[places])

    def _places(self, rows: range, numbers: Sequence[int]) -> Tensor:
        """Where in the ring the images are."""
        share, first = len(self._rows), self._rows.start
        return torch.tensor(
            [number % self._ring * share + row - first for row, number in zip(rows, numbers, strict=True)]
        )
