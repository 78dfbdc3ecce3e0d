"""From a curriculum and a budget to a plan (Section 5.1)."""

import math
from collections.abc import Mapping
from dataclasses import replace

from upchirp.curriculum.arguments import as_number, as_whole
from upchirp.curriculum.cost import Cost, name_of, pixels
from upchirp.curriculum.curriculum import Curriculum
from upchirp.curriculum.early_batch import CAP, EarlyBatch, batch_sizes, ceiling
from upchirp.curriculum.plans import Plan
from upchirp.curriculum.schedule import LearningRate
from upchirp.curriculum.stage import Stage
from upchirp.curriculum.warmup import WARMUP_PASSES, warmup_share
from upchirp.errors import InputError

_PAPERS_RATE, _PAPERS_BATCH = 4e-3, 4096
"""Table 24's learning rate, and the batch that it belongs to."""


def plan(
    curriculum: Curriculum,
    *,
    epochs: float | None = None,
    total_cost: float | None = None,
    dataset_size: int = 1_281_167,
    batch_size: int = 4096,
    learning_rate: float | None = None,
    schedule: LearningRate | None = None,
    cost: Cost = pixels,
    warmup_passes: float | None = None,
    early_batch: EarlyBatch | None = None,
    max_batch_size: int | None = None,
    lr_cap: float | None = None,
) -> Plan:
    """Turn a curriculum and a budget into stages with exact step counts (Section 5.1).

    Each boundary of the curriculum is hit as nearly as whole steps allow, and what one stage spends too much or too
    little the next one makes up, so the total meets the budget within one step.

    Args:
        curriculum: what to show when.
        epochs: the budget: equivalent epochs, or real passes if the curriculum's axis is `samples`.
        total_cost: the budget in units of `cost` instead, for instance seconds with a measured table.
        dataset_size: images in one pass; ImageNet-1K's by default.
        batch_size: samples in one optimizer step, at the final size.
        learning_rate: the ceiling that warm-up reaches and the rate falls from, at the final size; by default Table
            24's 4e-3 for a batch of 4096, and for others in proportion to the root of the batch.
        schedule: shape of the learning rate over progress; by default Table 24's.
        warmup_passes: how long the learning rate rises, in passes over the data from the start, in place of the
            schedule's share; by default Table 24's 20 unless a schedule is given. A short run warms up for a fifth of
            itself at most, a bound of ours.
        cost: cost of one sample at a bandwidth.
        early_batch: larger batches below the final size (Section 5.3): `auto` for steps that all cost about the same,
            or one batch size for each bandwidth below the final size, smallest bandwidth first.
        max_batch_size: the largest batch that `auto` takes; by default the cost alone decides.
        lr_cap: the highest learning rate that a larger batch may raise the ceiling to, LR_max of Equation 2; by default
            twice `learning_rate`. The paper names no value: that one is ours.

    >>> from upchirp.curriculum import efficienttrain_plus_plus
    >>> [stage.steps for stage in plan(efficienttrain_plus_plus(), epochs=200).stages]
    [68118, 49045, 25023]
    >>> plan(efficienttrain_plus_plus(), epochs=1, dataset_size=10_000, batch_size=64).stages[-1].learning_rate
    0.0005
    >>> early = plan(efficienttrain_plus_plus(), epochs=200, early_batch="auto")
    >>> [(stage.steps, stage.batch_size, round(stage.learning_rate, 5)) for stage in early.stages]
    [(12385, 22528, 0.008), (24522, 8192, 0.00566), (25023, 4096, 0.004)]

    Raises:
        InputError: no budget or two, sizes below 1, a budget too small for one step in each stage, early batches that
            do not fit the curriculum, or a cap below the learning rate.
    """
    _check_curriculum(curriculum)
    if (epochs is None) == (total_cost is None):
        raise InputError("give the budget either as epochs or as a total cost")
    dataset_size, batch_size = _size("dataset size", dataset_size), _size("batch size", batch_size)
    if warmup_passes is not None and not 0 <= warmup_passes < float("inf"):
        raise InputError(f"warm-up passes are {warmup_passes}: give 0 or more passes over the data")
    if learning_rate is None:
        learning_rate = _PAPERS_RATE * math.sqrt(batch_size / _PAPERS_BATCH)
    amounts = {"epochs": epochs, "total cost": total_cost, "learning rate": learning_rate, "lr cap": lr_cap}
    for name, amount in amounts.items():
        if amount is not None and not 0 < as_number(name, amount) < float("inf"):
            raise InputError(f"{name} is {amount}: it must be a positive number")
    if lr_cap is not None and lr_cap < learning_rate:
        raise InputError(f"lr cap {lr_cap} is below the learning rate {learning_rate}: raise it, or leave it out")

    final = cost(curriculum.final_size)
    relative = {bandwidth: cost(bandwidth) / final for bandwidth in curriculum.bandwidths}
    sizes = batch_sizes(curriculum, relative, batch_size=batch_size, early=early_batch, max_batch_size=max_batch_size)
    cap = lr_cap or CAP * learning_rate
    rates = {
        side: ceiling(size, final_batch=batch_size, learning_rate=learning_rate, cap=cap)
        for side, size in sizes.items()
    }
    budget = _budget(curriculum, epochs, total_cost, dataset_size, final, relative)
    stages = _stages(curriculum, budget, relative, sizes, rates, batch_size)
    if warmup_passes is None and schedule is None:
        warmup_passes = WARMUP_PASSES
    schedule = schedule or LearningRate()
    if warmup_passes is not None:
        schedule = replace(schedule, warmup=warmup_share(stages, warmup_passes * dataset_size))
    return Plan(
        curriculum=curriculum.name,
        axis=curriculum.axis,
        cost=name_of(cost),
        dataset_size=dataset_size,
        final_size=curriculum.final_size,
        stages=stages,
        schedule=schedule,
    )


def _stages(
    curriculum: Curriculum,
    budget: float,
    relative: Mapping[int, float],
    sizes: Mapping[int, int],
    rates: Mapping[int, float],
    batch_size: int,
) -> tuple[Stage, ...]:
    """The phases in whole steps; a budget in the unit of the axis, and costs, batches and learning rates by bandwidth.

    Raises:
        InputError: a phase for which the budget has no step.
    """
    unit = relative if curriculum.axis == "compute" else dict.fromkeys(relative, 1.0)
    stages: list[Stage] = []
    start = spent = 0.0
    for phase in curriculum.phases:
        side, end = phase.bandwidth, phase.end
        per_step = unit[side] * sizes[side]
        steps = round((end * budget - spent) / per_step)
        if steps < 1:
            early = "early " if sizes[side] > batch_size else ""
            raise InputError(
                f"the budget is too small for one step of batch size {sizes[side]} at bandwidth {side} "
                f"(progress {start:g} to {end:g}): raise the budget or lower the {early}batch size"
            )
        spent += steps * per_step
        stages.append(
            Stage(
                bandwidth=side,
                progress=(start, end),
                magnitude=phase.magnitudes or (curriculum.magnitude_at(start), curriculum.magnitude_at(end)),
                steps=steps,
                batch_size=sizes[side],
                learning_rate=rates[side],
                cost_per_sample=relative[side],
                radius=phase.radius,
                operator=phase.operator,
                transform=phase.transform or curriculum.transform,
            )
        )
        start = end
    return tuple(stages)


def _budget(
    curriculum: Curriculum,
    epochs: float | None,
    total_cost: float | None,
    dataset_size: int,
    final: float,
    relative: Mapping[int, float],
) -> float:
    """The budget in the unit of the curriculum's axis: samples, or samples at the final size."""
    if epochs is not None:
        return epochs * dataset_size
    assert total_cost is not None
    if curriculum.axis == "compute":
        return total_cost / final
    return total_cost / (final * mean_cost(curriculum, relative))


def mean_cost(curriculum: Curriculum, relative: Mapping[int, float] | None = None) -> float:
    """The mean over progress of what an image costs, relative to the final size; on the axis `samples` the run's.

    Args:
        curriculum: the phases.
        relative: cost of an image by bandwidth, relative to the final size; by default that of pixels.

    >>> from upchirp.curriculum import efficienttrain
    >>> round(300 * mean_cost(efficienttrain()), 1)
    195.9
    """
    relative = relative or {side: pixels(side) / pixels(curriculum.final_size) for side in curriculum.bandwidths}
    starts = [0.0, *(phase.end for phase in curriculum.phases)]
    return sum(
        (phase.end - start) * relative[phase.bandwidth] for phase, start in zip(curriculum.phases, starts, strict=False)
    )


def _check_curriculum(given: object) -> None:
    """Refuse what is none, of which a name says how one is made."""
    if isinstance(given, Curriculum):
        return
    if isinstance(given, str):
        raise InputError(f"the curriculum is a name: make it by `upchirp.preset({given!r}, final_size)`")
    told = repr(given) if isinstance(given, int | float) else f"a {type(given).__name__}"
    raise InputError(f"the curriculum is {told}: give one, such as `upchirp.efficienttrain_plus_plus(224)`")


def _size(name: str, given: int) -> int:
    size = as_whole(name, given)
    if size < 1:
        raise InputError(f"{name} is {size}: it must be 1 or more")
    return size
