"""What a training needs on this machine: time by a few real steps at each bandwidth, and memory."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import nn

from upchirp.curriculum import CostTable, Curriculum, Phase, Plan, plan
from upchirp.data import Source
from upchirp.training.engine.trainer import TRIAL_RATE, Trainer
from upchirp.training.events import Report
from upchirp.training.probing.planning import with_replay
from upchirp.training.recipes.groups import Replaying

_CALIBRATION_STEPS = 6
_MEASURING = "measuring the speed at each bandwidth"
_PREFETCHED = 2
"""Batches that torch's DataLoader prepares ahead for each worker."""


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
    micro_batch: int,
    replays: int | Mapping[int, int] = 0,
    *,
    replaying: Replaying | None = None,
    report: Report = lambda what, done, total: None,
) -> CostTable:
    """Seconds of training for one image at each bandwidth, loading included: the mean of a few real steps.

    A copy of the model is trained, so the run itself starts untouched. What the workers had prepared before a
    bandwidth began is left out, so a machine that waits for data shows it. With replay a fresh batch lasts for
    several steps, and as many more are measured. All ranks train, and each gets its own clock's times.
    """
    batch_size = micro_batch * trainer.parallel.ranks.size
    cycle = 1 + (replays if isinstance(replays, int) else max(replays.values(), default=0))
    warmup = (_PREFETCHED * trainer.loading.processes + 1) * cycle
    count = warmup + _CALIBRATION_STEPS * cycle
    bandwidths = curriculum.bandwidths
    phases = tuple(Phase(end=(k + 1) / len(bandwidths), bandwidth=side) for k, side in enumerate(bandwidths))
    trial = plan(
        Curriculum(name="calibration", axis="samples", phases=phases, magnitude=curriculum.magnitude),
        total_cost=None,
        epochs=len(bandwidths) * count * batch_size / len(source),
        dataset_size=len(source),
        batch_size=batch_size,
        learning_rate=TRIAL_RATE,
    )
    trial = with_replay(trial, replaying or Replaying(), replays)
    state = trainer.trial_state(model, bandwidth=curriculum.final_size)
    times: dict[int, list[float]] = {side: [] for side in bandwidths}
    before = time.perf_counter()
    report(_MEASURING, 0, trial.total_steps)
    for result in trainer.run(state, trial, source):
        result.loss.item()  # waits for the device
        now = time.perf_counter()
        times[result.step.bandwidth].append(now - before)
        before = now
        report(_MEASURING, result.step.index + 1, trial.total_steps)
    return CostTable("seconds", {side: fmean(spent[warmup:]) / batch_size for side, spent in times.items()})
