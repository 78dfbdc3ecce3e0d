"""What a training is measured by before it begins: plans, what is loaded for them, and batches that need no loading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import nn

from upchirp.curriculum import Curriculum, Plan, Step, plan
from upchirp.data import RGB, Batch, Channels, Source
from upchirp.data.arrival import AHEAD
from upchirp.data.settings import image_side
from upchirp.data.workers.chunks import ChunkSize
from upchirp.training.engine.trainer import PROBE_RATE, Trainer


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A training that is tried on this machine; a copy of its model trains, so the run itself starts untouched."""

    trainer: Trainer
    curriculum: Curriculum
    """Gives the bandwidths, the magnitude and the final size."""
    model: nn.Module
    """Made for the final size, on the device."""
    source: Source

    def loaded_side(self, bandwidth: int) -> int:
        """The side of the images that are loaded for a bandwidth, pixels."""
        phase = self.curriculum.phase_at(bandwidth)
        return image_side(phase, self.trainer.loading.low_frequency, self.curriculum.final_size)

    def loaded_ahead(self, batches: Sequence[tuple[int, int]]) -> int:
        """How many batches may be ready before their turn, of batches that are given by the images' side and number."""
        loading = self.trainer.loading
        size = ChunkSize(loading.way, self.trainer.augmentation.channels)
        ahead = size.batches_ahead(loading.processes, batches)
        return ahead + AHEAD + 1 if self.trainer.device.type == "cuda" else ahead


def probe_plan(curriculum: Curriculum, sizes: Mapping[int, int], steps: int, dataset_size: int) -> Plan:
    """A plan of so many steps at each bandwidth of a curriculum.

    `sizes` are the images in a step by bandwidth, no fewer at a smaller one.

    >>> from upchirp.curriculum import efficienttrain_plus_plus
    >>> probe = probe_plan(efficienttrain_plus_plus(), {96: 2048, 160: 512, 224: 512}, 9, 6500)
    >>> [(stage.bandwidth, stage.batch_size, stage.steps) for stage in probe.stages]
    [(96, 2048, 9), (160, 512, 9), (224, 512, 9)]
    """
    images = steps * sum(sizes.values())
    ends = [steps * images_until / images for images_until in accumulate(sizes.values())]
    phases = tuple(
        replace(curriculum.phase_at(side), end=end) for side, end in zip(sizes, [*ends[:-1], 1.0], strict=True)
    )
    return plan(
        Curriculum(name="probe", axis="samples", phases=phases, magnitude=curriculum.magnitude),
        epochs=images / dataset_size,
        dataset_size=dataset_size,
        batch_size=sizes[curriculum.final_size],
        early_batch=[size for side, size in sizes.items() if side < curriculum.final_size],
        learning_rate=PROBE_RATE,
    )


def grey_batch(
    step: Step, rows: range, side: int, channels: Channels = RGB, device: torch.device | str = "cpu"
) -> Batch:
    """Grey images of side `side` for some rows of a step, as the loader gives them; the last of the step.

    What training takes does not depend on what images show.
    """
    shape, dtype = (len(rows), side, side, channels.count), getattr(torch, channels.type)
    images = torch.full(shape, 128, dtype=dtype, device=device).permute(0, 3, 1, 2)
    labels = torch.zeros(len(rows), dtype=torch.int64, device=device)
    return Batch(images, labels, step, rows, torch.arange(len(rows)))
