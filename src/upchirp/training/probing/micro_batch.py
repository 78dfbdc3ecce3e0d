"""Micro-batches: how many images of a step are computed at once. They change memory and rounding, never the plan."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from upchirp.curriculum import Plan, Stage
from upchirp.data import Augmentation, mix_group
from upchirp.data.settings import image_side
from upchirp.errors import InputError
from upchirp.training.engine.memory import MicroBatches, OutOfMemory, free_memory, ran_out
from upchirp.training.engine.trainer import Trainer
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.probing.probe import Bench, grey_batch
from upchirp.training.recipes.groups import Planning

_USUAL, _LEAST = 512, 32
PROBE_BATCH = 64
"""Images at once whose speed is measured on a CPU, and while the batch is still to be chosen."""
_SPARE = 10
"""For so many images that are chosen one more must fit: later steps find memory in pieces."""

Fits = Callable[[Stage, int], bool]
"""Whether so many images of a stage can be trained on at once."""


def choose_micro_batch(planning: Planning, batch_size: int, ranks: int = 1, *, shrunk: float = 1.0) -> int:
    """The asked-for micro-batch, or the largest divisor of a rank's share up to a size that most devices hold.

    That size is 512 images at the final size and as many pixels at smaller ones: a GPU needs so many small images to be
    busy, and holds them in the same memory.

    The batch is that of all ranks; `shrunk` says how many times the images' side fits into the final one.

    >>> [choose_micro_batch(Planning(), 4096, shrunk=224 / side) for side in (224, 160, 96)]
    [512, 512, 2048]
    >>> choose_micro_batch(Planning(), 4096, ranks=64)
    64

    Raises:
        InputError: a batch that the ranks cannot share, an asked-for size that does not fit a rank's share, or a share
            without a divisor of use.
    """
    group = mix_group(planning.augmentation, batch_size)
    share, rest = divmod(batch_size, ranks)
    if rest or share % group:
        unit = ranks * group
        mixed = f", in groups of {group} that are mixed together" if group > 1 else ""
        raise InputError(
            f"batch size {batch_size} cannot be shared by {ranks} ranks{mixed}: "
            f"take {max(1, round(batch_size / unit)) * unit}, or another number of ranks"
        )
    of = f"batch size {batch_size}" if ranks == 1 else f"a rank's {share} of batch size {batch_size}"
    if isinstance(planning.micro_batch, int):
        if share % planning.micro_batch or planning.micro_batch % group:
            which = f" that is a multiple of {group}" if group > 1 else ""
            raise InputError(
                f"micro-batch {planning.micro_batch} does not fit {of}: "
                f"choose a divisor of {'it' if ranks == 1 else share}{which}"
            )
        return planning.micro_batch
    most = int(_USUAL * max(1.0, shrunk**2))
    size = next((size for size in reversed(_divisors(share, group)) if size <= most), share)
    if size < min(_LEAST, share):
        better = max(1, round(share / 64)) * 64 * ranks
        raise InputError(
            f"{of} has no divisor from {_LEAST} to {most} to compute it in parts: take {better}, or give `micro_batch`"
        )
    return size


def micro_batches(planning: Planning, plan: Plan, ranks: int = 1) -> dict[int, int]:
    """The micro-batch of each bandwidth of a plan on every rank, before anything is tried on a device.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> micro_batches(Planning(), plan(efficienttrain_plus_plus(), epochs=9, batch_size=768, early_batch="auto"))
    {96: 2112, 160: 768, 224: 384}

    Raises:
        InputError: as `choose_micro_batch` does, for any stage.
    """
    return {
        stage.bandwidth: choose_micro_batch(planning, stage.batch_size, ranks, shrunk=plan.final_size / stage.bandwidth)
        for stage in plan.stages
    }


def tried_at_once(planning: Planning, bench: Bench) -> dict[int, int]:
    """How many images are computed at once, by bandwidth, to measure a device's speed."""
    curriculum, ranks = bench.curriculum, bench.trainer.parallel.ranks.size
    usual = {
        side: choose_micro_batch(planning, planning.batch_size, ranks, shrunk=curriculum.final_size / side)
        for side in curriculum.sizes
    }
    # A CPU is as fast with few images at once, and a probe of many takes minutes there.
    few = bench.trainer.device.type == "cpu"
    return {side: min(size, PROBE_BATCH) for side, size in usual.items()} if few else usual


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest of some rising sizes that fits, by bisection; none if not even the first does.

    >>> largest_that_fits([8, 16, 32, 64, 128], lambda size: size <= 50)
    32
    """
    end = bisect_left(sizes, True, key=lambda size: not fits(size))
    return sizes[end - 1] if end else None


def find_micro_batches(
    augmentation: Augmentation, plan: Plan, fits: Fits, *, ranks: Ranks | None = None
) -> dict[int, int]:
    """`micro_batch='auto'`: for each bandwidth the largest micro-batch that fits in memory, with a margin.

    Chosen among the divisors of a rank's share of the batch that keep mixing groups whole, so that all parts of a step
    are of one size.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> run = plan(efficienttrain_plus_plus(), epochs=9, batch_size=1024)
    >>> find_micro_batches(Augmentation(), run, lambda stage, images: images * stage.bandwidth**2 < 10_000_000)
    {96: 512, 160: 256, 224: 128}

    Raises:
        InputError: not even the smallest fits.
    """
    ranks = ranks or Ranks()
    found: dict[int, int] = {}
    for stage in plan.stages:
        if stage.bandwidth in found:
            continue
        group = mix_group(augmentation, stage.batch_size)
        sizes = _divisors(stage.batch_size // ranks.size, group)
        (too_many,) = ranks.largest(-(largest_that_fits(sizes, partial(_fits_with_margin, fits, stage, group)) or 0))
        if not (size := -too_many):
            raise InputError(
                f"not even {min(sizes, default=group)} images of {stage.bandwidth} px fit in memory with the "
                "optimizer's state: take a smaller model or final size"
            )
        found[stage.bandwidth] = size
    return found


def can_try(device: torch.device) -> bool:
    """Whether memory that runs out on the device is told, and harms nothing else."""
    return device.type == "cuda"


def fits_on(trainer: Trainer, plan: Plan, model: nn.Module) -> Fits:
    """Tries two whole steps of training on a device with a copy of the model; the second has the optimizer's state."""
    trainer = replace(trainer.alone(), computation=replace(trainer.computation, compile=False))

    def train_on(stage: Stage, images: int) -> bool:
        begin = sum(each.steps for each in plan.stages[: plan.stages.index(stage)])
        step = replace(plan.step(begin), batch_size=images)
        side = image_side(stage, trainer.loading.low_frequency, plan.final_size)
        try:
            state = trainer.probe_state(model, bandwidth=plan.final_size)
            batches = [grey_batch(step, range(images), side, trainer.augmentation.channels)] * 2
            for result in trainer.run(state, plan, batches, micro_batches=MicroBatches(least=images)):
                result.loss.item()
        except OutOfMemory:
            return False
        except RuntimeError as error:
            if not ran_out(error):
                raise
            return False
        return True

    def fits(stage: Stage, images: int) -> bool:
        try:
            return train_on(stage, images)
        finally:
            # Only now nothing refers to the copy of the model any more.
            free_memory(trainer.device)

    return fits


def _divisors(share: int, group: int) -> list[int]:
    """Divisors of a share that are multiples of a group, rising; the group divides the share."""
    return [size for size in range(group, share + 1, group) if share % size == 0]


def _fits_with_margin(fits: Fits, stage: Stage, group: int, size: int) -> bool:
    return fits(stage, -(-size * (_SPARE + 1) // (_SPARE * group)) * group)
