"""The needs of a training on this machine: time by a few real steps at each bandwidth, and memory."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch

from upchirp.curriculum import CostTable, Plan
from upchirp.training.events import Report, unreported
from upchirp.training.probing.planning import with_replay
from upchirp.training.probing.probe import Bench, probe_plan
from upchirp.training.recipes.groups import Replaying

SECONDS = 60.0
"""How long the speeds are measured by default, all bandwidths together, unless two steps at each take longer."""
SHARE = 0.1
"""Of a time budget, what is spent at most on measuring what fits into it, with the same exception."""
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
    """Time and memory of a plan, after its speeds were measured in this process."""
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
    bench: Bench,
    micro_batch: Mapping[int, int],
    replays: int | Mapping[int, int] = 0,
    *,
    replaying: Replaying | None = None,
    seconds: float = SECONDS,
    report: Report = unreported,
) -> CostTable:
    """Seconds of training for one image at each bandwidth, loading included: the mean of a few real steps.

    What the workers had prepared before a bandwidth began is left out, so a machine that waits for data shows it. With
    replay a fresh batch lasts for several steps, and as many more are measured. All ranks train, and each gets its own
    clock's times.

    Args:
        bench: the training.
        micro_batch: images that a rank computes at once, by bandwidth; no fewer at a smaller one.
        replays: further uses of each image, of all bandwidths or by bandwidth.
        replaying: how images are replayed.
        seconds: how long to measure at most, all bandwidths together, unless two steps at each take longer: a slow
            network on a CPU is left after fewer steps, which are long enough to tell its speed.
        report: called with what is done, the steps done, and all steps.
    """
    trainer, curriculum = bench.trainer, bench.curriculum
    sizes = {side: micro_batch[side] * trainer.parallel.ranks.size for side in curriculum.sizes}
    cycle = 1 + (replays if isinstance(replays, int) else max(replays.values(), default=0))
    ahead = bench.loaded_ahead([(bench.loaded_side(side), micro_batch[side]) for side in sizes])
    warmup = (ahead + 1) * cycle
    count = warmup + _CALIBRATION_STEPS * cycle
    probe = with_replay(probe_plan(curriculum, sizes, count, len(bench.source)), replaying or Replaying(), replays)
    state = trainer.probe_state(bench.model, bandwidth=curriculum.final_size)
    times: dict[int, list[float]] = {side: [] for side in sizes}
    report(_MEASURING, 0, probe.total_steps)
    while state.step < probe.total_steps:
        before = time.perf_counter()
        for result in trainer.run(state, probe, bench.source):
            result.loss.item()  # waits for the device
            now = time.perf_counter()
            spent = times[result.step.bandwidth]
            spent.append(now - before)
            before = now
            report(_MEASURING, state.step, probe.total_steps)
            # The first step waits for workers and compiles.
            late = len(spent) % cycle == 0 and len(spent) >= 2 * cycle and sum(spent[1:]) > seconds / len(sizes)
            (on_any_rank,) = trainer.parallel.ranks.largest(late)
            if on_any_rank and state.step % count:
                state.step += -state.step % count  # on to the next bandwidth
                break
    counted = {side: spent[min(warmup, len(spent) - cycle) :] for side, spent in times.items()}
    return CostTable("seconds", {side: fmean(spent) / sizes[side] for side, spent in counted.items()})
