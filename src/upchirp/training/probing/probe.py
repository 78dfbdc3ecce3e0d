"""Plans to measure by, and what is loaded for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from upchirp.curriculum import Curriculum, Plan, plan
from upchirp.data.arrival import AHEAD
from upchirp.data.chunks import batches_ahead
from upchirp.data.settings import image_side
from upchirp.training.engine.trainer import PROBE_RATE, Trainer


def probe_plan(curriculum: Curriculum, sizes: Mapping[int, int], steps: int, dataset_size: int) -> Plan:
    """A plan of so many steps at each bandwidth of a curriculum.

    Args:
        curriculum: the bandwidths and the magnitude.
        sizes: images in a step, by bandwidth; no fewer at a smaller one.
        steps: at each bandwidth.
        dataset_size: training images.

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


def loaded_side(trainer: Trainer, curriculum: Curriculum, bandwidth: int) -> int:
    """The side of the images that are loaded for a bandwidth, pixels."""
    return image_side(curriculum.phase_at(bandwidth), trainer.loading.low_frequency, curriculum.final_size)


def loaded_ahead(trainer: Trainer, batches: Sequence[tuple[int, int]]) -> int:
    """How many batches may be ready before their turn, of batches that are given by the images' side and number."""
    ahead = batches_ahead(trainer.loading.processes, batches, trainer.loading.way, trainer.augmentation.channels)
    return ahead + AHEAD + 1 if trainer.device.type == "cuda" else ahead
