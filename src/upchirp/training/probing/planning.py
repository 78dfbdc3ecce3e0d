"""From a configuration and a model to a plan, priced before anything is trained."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import nn

from upchirp.curriculum import (
    Cost,
    CostTable,
    Curriculum,
    Plan,
    Selection,
    expected_savings,
    load_curriculum,
    pixels,
    plan,
)
from upchirp.curriculum.replay import GIB
from upchirp.errors import InputError
from upchirp.machine import free_memory
from upchirp.models import (
    check_sizes,
    count_flops,
    count_parameters,
    flops_table,
    size_multiple,
)
from upchirp.training.probing.peers import timm_progressive
from upchirp.training.recipes.checks import parse_duration
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.defaults import Settled, choose_batch_size, choose_recipe, follows_length
from upchirp.training.recipes.groups import Planning, Replaying

DEFAULT_GIB = 4.0
"""Memory of a replay buffer in a plan that is made for no machine."""


def curriculum_for(model: nn.Module, given: str | Mapping[str, Any], final_size: int) -> Curriculum:
    """The named curriculum, or a file's or what one holds, in sizes that the model takes.

    Raises:
        InputError: an unknown curriculum, or sizes that the model cannot take.
    """
    multiple = size_multiple(model)
    if given == "timm_progressive":
        curriculum = timm_progressive(final_size, multiple=multiple)
    else:
        curriculum = load_curriculum(given, final_size, multiple=multiple)
    check_sizes(model, curriculum.sizes)
    return curriculum


def make_plan(
    planning: Planning,
    curriculum: Curriculum,
    dataset_size: int,
    *,
    model: nn.Module,
    seconds: CostTable | None = None,
    flops: CostTable | None = None,
    replays: int | Mapping[int, int] | None = None,
    gib: float = DEFAULT_GIB,
) -> Plan:
    """The plan of a run, whose stages have no magnitude where there is no RandAugment.

    Args:
        planning: what decides it.
        curriculum: in sizes that the model takes.
        dataset_size: training images.
        model: its multiply-adds are counted if they are the cost.
        seconds: the measured cost table that a time budget is planned with.
        flops: the cost table that was counted before.
        replays: replayed batches for each fresh one, or of each bandwidth; by default as asked for, and none yet where
            `choose_replay` is to find them on the machine.
        gib: bound of the replay buffer where the settings give none.

    Raises:
        InputError: a budget too small for one step in each stage.
    """
    optimization = planning.optimization
    budget: dict[str, float] = {"epochs": planning.epochs}
    cost: Cost = pixels
    if planning.time_budget is not None:
        if seconds is None:
            raise InputError("a time budget needs the machine's speed: it works in `upchirp train` only")
        cost = seconds
        budget = {"total_cost": parse_duration(planning.time_budget)}
    elif planning.cost == "flops":
        cost = flops or CostTable("flops", flops_table(model, curriculum.sizes))
    made = plan(
        curriculum,
        dataset_size=dataset_size,
        batch_size=planning.batch_size,
        learning_rate=optimization.learning_rate(planning.batch_size),
        schedule=optimization.schedule(),
        warmup_passes=optimization.warmup_passes if optimization.warmup is None else None,
        cost=cost,
        early_batch=planning.early_batch,
        max_batch_size=planning.max_batch_size,
        lr_cap=optimization.lr_cap,
        **budget,
    )
    if not planning.augmentation.randaug_layers:
        made = replace(made, stages=tuple(replace(stage, magnitude=None) for stage in made.stages))
    given = replays_of(planning, curriculum) if replays is None else replays
    return made if given == "auto" else with_replay(made, planning, given, gib=gib)


def planned_samples(
    planning: Planning, curriculum: Curriculum, images: int, *, model: nn.Module, seconds: CostTable | None = None
) -> int:
    """Images that a run trains on, each time counted, before its batch size is chosen."""
    smallest = replace(planning, batch_size=1, early_batch=None, max_batch_size=None, replay=0, replay_stages=None)
    return make_plan(smallest, curriculum, images, model=model, seconds=seconds).total_samples


def settle(config: TrainConfig, images: int, model: nn.Module) -> Settled:
    """All open settings of a training whose budget is in epochs, chosen by the number of training images.

    Args:
        config: the settings.
        images: to train on.
        model: what is trained; it may be without values.
    """
    settled = choose_recipe(config, images)
    if follows_length(settled.config):
        curriculum = curriculum_for(model, settled.config.curriculum, config.final_size)
        samples = planned_samples(settled.config, curriculum, images, model=model)
        settled = choose_batch_size(settled, samples, model)
    # Nothing is left to choose, whatever is replaced in it later.
    return replace(settled, config=replace(settled.config, given=None))


def replays_of(replaying: Replaying, curriculum: Curriculum) -> int | Mapping[int, int] | Literal["auto"]:
    """How many replayed batches are asked for, of all bandwidths or of each.

    Raises:
        InputError: not one number for each bandwidth below the final size.
    """
    if replaying.replay_stages is None:
        return replaying.replay
    sides = [side for side in curriculum.bandwidths if side < curriculum.final_size]
    numbers = replaying.replay_stages
    if len(numbers) != len(sides):
        listed = f" ({', '.join(map(str, sides))})" if sides else ""
        raise InputError(
            f"`replay_stages` gives {len(numbers)} number{'' if len(numbers) == 1 else 's'}, but the curriculum has "
            f"{len(sides)} bandwidth{'' if len(sides) == 1 else 's'} below the final size{listed}: "
            "give one for each, smallest bandwidth first"
        )
    return dict(zip(sides, numbers, strict=True))


def with_replay(
    plan: Plan, replaying: Replaying, replays: int | Mapping[int, int], *, gib: float = DEFAULT_GIB
) -> Plan:
    """The plan with so many replayed batches for each fresh one, or for each bandwidth its number of them.

    `gib` bounds the buffer where the settings do not.
    """
    return plan.with_replay(
        replays,
        mode=replaying.replay_mode,
        gib=replaying.replay_gib or gib,
        images=replaying.replay_images,
        final=replaying.replay_final,
    )


def spare_gib(device: torch.device, ranks: int) -> float:
    """A quarter of the memory that a replay buffer may lie in: of all devices, or of what is free on the host."""
    if device.type == "cuda":
        return ranks * torch.cuda.get_device_properties(device).total_memory / GIB / 4
    free = free_memory()
    return DEFAULT_GIB if free is None else free / GIB / 4


def described(
    plan: Plan, model: nn.Module, selection: Selection | None = None, *, epochs: float | None = None
) -> dict[str, Any]:
    """The plan as plain data, with the model's `params` and `flops` (multiply-adds of one image at the final size).

    With a selection there is `selection`, too, with what it is expected to be worth; `epochs` is the budget, if it was
    given in those.
    """
    data = {**plan.to_dict(), "params": count_parameters(model), "flops": count_flops(model, plan.final_size)}
    if selection is None:
        return data
    savings = expected_savings(plan, selection)
    expected = {**asdict(savings), "epochs": epochs and epochs * savings.budget, "summary": savings.describe(epochs)}
    return {**data, "selection": {**asdict(selection), "expected": expected}}
