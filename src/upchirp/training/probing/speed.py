"""The needs of a training on this machine: time by a few real steps at each bandwidth, and memory."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean

import torch
from torch import nn

from upchirp.curriculum import CostTable, Curriculum, Plan, plan
from upchirp.data import Source
from upchirp.data.arrival import AHEAD
from upchirp.data.chunks import batches_ahead
from upchirp.data.settings import image_side
from upchirp.training.engine.trainer import PROBE_RATE, Trainer
from upchirp.training.events import Report
from upchirp.training.probing.planning import with_replay
from upchirp.training.recipes.groups import Replaying

_CALIBRATION_STEPS = 6
_MEASURING = "measuring the speed at each bandwidth"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a plan takes on the machine that measured it."""

    seconds: float
    """Training time, without evaluations."""
    images_per_second: dict[int, float]
    """By bandwidth, loading included."""
    memory_gib: float
    """Most memory that was held at once: of the device, and on a CPU of the training process."""


def measure_needs(plan: Plan, table: CostTable, device: torch.device) -> Needs:
    """Time and memory of a plan, after its speeds were measured in this process.

    Args:
        plan: what is to be trained.
        table: seconds of one image at each of its bandwidths, as `measure_seconds` gives them.
        device: where they were measured.
    """
    if device.type == "cuda":
        held = torch.cuda.max_memory_allocated(device)
    else:
        # Linux counts KiB, macOS bytes.
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Needs(
        seconds=sum(stage.samples * table(stage.bandwidth) for stage in plan.stages),
        images_per_second={side: 1 / table(side) for side in plan.bandwidths},
        memory_gib=held / 2**30,
    )


def measure_seconds(
    trainer: Trainer,
    curriculum: Curriculum,
    model: nn.Module,
    source: Source,
    micro_batch: Mapping[int, int],
    replays: int | Mapping[int, int] = 0,
    *,
    replaying: Replaying | None = None,
    report: Report = lambda what, done, total: None,
) -> CostTable:
    """Seconds of training for one image at each bandwidth, loading included: the mean of a few real steps.

    A copy of the model is trained, so the run itself starts untouched. What the workers had prepared before a
    bandwidth began is left out, so a machine that waits for data shows it. With replay a fresh batch lasts for
    several steps, and as many more are measured. All ranks train, and each gets its own clock's times.

    Args:
        trainer: how to train and load.
        curriculum: its bandwidths are measured.
        model: made for the final size, on the device.
        source: the training images.
        micro_batch: images that a rank computes at once, by bandwidth; no fewer at a smaller one.
        replays: further uses of each image, of all bandwidths or by bandwidth.
        replaying: how images are replayed.
        report: called with what is done, the steps done, and all steps.
    """
    sizes = {side: micro_batch[side] * trainer.parallel.ranks.size for side in curriculum.sizes}
    cycle = 1 + (replays if isinstance(replays, int) else max(replays.values(), default=0))
    low_frequency, final_size = trainer.loading.low_frequency, curriculum.final_size
    sides = {side: image_side(curriculum.phase_at(side), low_frequency, final_size) for side in sizes}
    batches = [(sides[side], micro_batch[side]) for side in sizes]
    ahead = batches_ahead(trainer.loading.processes, batches, trainer.loading.way, trainer.augmentation.channels)
    if trainer.device.type == "cuda":
        ahead += AHEAD + 1
    warmup = (ahead + 1) * cycle
    count = warmup + _CALIBRATION_STEPS * cycle
    probe = with_replay(calibration(curriculum, sizes, count, len(source)), replaying or Replaying(), replays)
    state = trainer.probe_state(model, bandwidth=curriculum.final_size)
    times: dict[int, list[float]] = {side: [] for side in sizes}
    before = time.perf_counter()
    report(_MEASURING, 0, probe.total_steps)
    for result in trainer.run(state, probe, source):
        result.loss.item()  # waits for the device
        now = time.perf_counter()
        times[result.step.bandwidth].append(now - before)
        before = now
        report(_MEASURING, result.step.index + 1, probe.total_steps)
    return CostTable("seconds", {side: fmean(spent[warmup:]) / sizes[side] for side, spent in times.items()})


def calibration(curriculum: Curriculum, sizes: Mapping[int, int], steps: int, dataset_size: int) -> Plan:
    """A plan of so many steps at each bandwidth of a curriculum.

    Args:
        curriculum: the bandwidths and the magnitude.
        sizes: images in a step, by bandwidth; no fewer at a smaller one.
        steps: at each bandwidth.
        dataset_size: training images.

    >>> from upchirp.curriculum import efficienttrain_plus_plus
    >>> probe = calibration(efficienttrain_plus_plus(), {96: 2048, 160: 512, 224: 512}, 9, 6500)
    >>> [(stage.bandwidth, stage.batch_size, stage.steps) for stage in probe.stages]
    [(96, 2048, 9), (160, 512, 9), (224, 512, 9)]
    """
    images = steps * sum(sizes.values())
    ends = [steps * images_until / images for images_until in accumulate(sizes.values())]
    phases = tuple(
        replace(curriculum.phase_at(side), end=end) for side, end in zip(sizes, [*ends[:-1], 1.0], strict=True)
    )
    return plan(
        Curriculum(name="calibration", axis="samples", phases=phases, magnitude=curriculum.magnitude),
        epochs=images / dataset_size,
        dataset_size=dataset_size,
        batch_size=sizes[curriculum.final_size],
        early_batch=[size for side, size in sizes.items() if side < curriculum.final_size],
        learning_rate=PROBE_RATE,
    )
