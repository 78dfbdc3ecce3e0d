"""From a configuration and a model to a plan, priced before anything is trained."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

import torch
from timm.layers import DropPath
from torch import nn

from upchirp.curriculum import (
    Cost,
    CostTable,
    Curriculum,
    Phase,
    Plan,
    expected_savings,
    load_curriculum,
    pixels,
    plan,
)
from upchirp.data import Source
from upchirp.errors import InputError
from upchirp.models import (
    check_sizes,
    count_flops,
    count_parameters,
    dead_kernel_shares,
    flops_table,
    size_multiple,
)
from upchirp.training.assembly import make_loader, make_settings, make_state, make_transform
from upchirp.training.config import TrainConfig, parse_duration
from upchirp.training.distributed import Ranks
from upchirp.training.engine import run_segment
from upchirp.training.events import Report
from upchirp.training.presets import STANDARD_EPOCHS, STANDARD_EPOCHS_CONSTANT
from upchirp.training.recipe import Optimization

_CALIBRATION_STEPS = 6
_MEASURING = "measuring the speed at each bandwidth"
_REACH_OF_A_HEAD = 0.1
"""About what the weights of a trained classifier differ by from the ones it starts with."""
_HIGHEST_ADVISED_RATE = 1e-3
_PREFETCHED = 2
"""Batches that torch's DataLoader prepares ahead for each worker."""


def curriculum_for(model: nn.Module, name_or_file: str, final_size: int) -> Curriculum:
    """The named curriculum in sizes that the model takes.

    Raises:
        InputError: an unknown curriculum, or sizes that the model cannot take.
    """
    curriculum = load_curriculum(name_or_file, final_size, multiple=size_multiple(model))
    check_sizes(model, curriculum.bandwidths)
    return curriculum


def scale_drop_path(model: nn.Module, plan: Plan) -> None:
    """Lower a model's stochastic-depth rates in proportion to the budget, below the standard one (Appendix A.1)."""
    lower_drop_path(model, min(1.0, budget_share(plan)))


def lower_drop_path(model: nn.Module, share: float) -> None:
    """Multiply a model's stochastic-depth rates."""
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob *= share


def budget_share(plan: Plan) -> float:
    """The budget as a share of the standard one.

    The standard is 200 equivalent epochs, and for baselines and curricula that count samples 300 real passes.
    """
    if plan.axis == "samples" or len(plan.bandwidths) == 1:
        return plan.total_samples / plan.dataset_size / STANDARD_EPOCHS_CONSTANT
    return plan.equivalent_epochs / STANDARD_EPOCHS


def make_plan(
    config: TrainConfig,
    curriculum: Curriculum,
    dataset_size: int,
    *,
    model: nn.Module,
    seconds: Callable[[Curriculum], CostTable] | None = None,
    flops: CostTable | None = None,
) -> Plan:
    """The plan of a run.

    `seconds` measures the cost table that a time budget is planned with; `flops` was counted before, for that cost.

    `replay="auto"` replays nothing yet: `with_replay` puts in what `choose_replay` found on the machine.

    Raises:
        InputError: a budget too small for one step in each stage.
    """
    optimization = config.optimization
    budget: dict[str, float] = {"epochs": config.epochs}
    cost: Cost = pixels
    if config.time_budget is not None:
        if seconds is None:
            raise InputError("a time budget needs the machine's speed: it works in `upchirp train` only")
        cost = seconds(curriculum)
        budget = {"total_cost": parse_duration(config.time_budget)}
    elif config.cost == "flops":
        cost = flops or CostTable("flops", flops_table(model, curriculum.bandwidths))
    made = plan(
        curriculum,
        dataset_size=dataset_size,
        batch_size=config.batch_size,
        learning_rate=optimization.learning_rate(config.batch_size),
        schedule=optimization.schedule(),
        cost=cost,
        early_batch=config.early_batch,
        max_batch_size=config.max_batch_size,
        lr_cap=optimization.lr_cap,
        **budget,
    )
    return made if config.replay == "auto" else with_replay(made, config, config.replay)


def new_head_note(plan: Plan, optimization: Optimization) -> str | None:
    """What to tell of a new head that the plan is too short for at its learning rate; None if there is nothing to tell.

    Adam's steps are about as long as the learning rate, whatever the gradient, so over a cosine a weight moves by at
    most about half of rate x steps.
    """
    reach = sum(stage.steps * stage.learning_rate for stage in plan.stages) / 2
    if optimization.opt == "sgd" or reach >= _REACH_OF_A_HEAD:
        return None
    factor = _REACH_OF_A_HEAD / reach
    rate = min(_HIGHEST_ADVISED_RATE, optimization.learning_rate(plan.stages[-1].batch_size) * factor)
    return (
        f"the new head moves by about {reach:.1g} in {plan.total_steps} steps at a rate of "
        f"{plan.stages[-1].learning_rate:.1g}, which is little: try --lr {rate:.0e}, or more epochs"
    )


def kernel_note(plan: Plan, model: nn.Module) -> str | None:
    """What to tell of kernels that the smallest bandwidth leaves partly without gradient; None if there are none.

    Raises:
        RuntimeError: the model cannot be run backward on two random images.
    """
    smallest = plan.bandwidths[0]
    dead = dead_kernel_shares(model, smallest, plan.final_size) if smallest < plan.final_size else []
    if not dead:
        return None
    (name, (rows, columns), share), others = dead[0], len(dead) - 1
    more = f" and parts of {others} other kernel{'s' if others > 1 else ''} get" if others else " gets"
    return (
        f"at {smallest} px {share:.0%} of the {rows} x {columns} kernel of {name}{more} no gradient: most models train "
        "well all the same, but if accuracy falls short start larger, as for ConvNeXt: "
        "--curriculum efficienttrain_plus_plus_convnext"
    ).replace("%", " %")


def with_replay(plan: Plan, config: TrainConfig, replays: int | Mapping[int, int]) -> Plan:
    """The plan with so many replayed batches for each fresh one, or for each bandwidth its number of them."""
    return plan.with_replay(replays, mode=config.replay_mode, gib=config.replay_gib, final=config.replay_final)


def with_size(plan: Plan, model: nn.Module) -> dict[str, Any]:
    """The plan as plain data, with the model's `params` and `flops` (multiply-adds of one image at the final size)."""
    return {**plan.to_dict(), "params": count_parameters(model), "flops": count_flops(model, plan.final_size)}


def with_selection(data: Mapping[str, Any], plan: Plan, config: TrainConfig) -> dict[str, Any]:
    """Plain data with what the configured selection is expected to be worth under `selection`, if there is one."""
    selection = config.selection
    if selection is None:
        return dict(data)
    savings = expected_savings(plan, selection)
    epochs = config.epochs if config.time_budget is None else None
    expected = {**asdict(savings), "epochs": epochs and epochs * savings.budget, "summary": savings.describe(epochs)}
    return {**data, "selection": {**asdict(selection), "expected": expected}}


def price(plan: Plan, model: nn.Module, baseline_epochs: float) -> dict[str, Any]:
    """The same with the computation speed-up against passes at the final size, in counted FLOPs (Table 7)."""
    flops = CostTable("flops", flops_table(model, plan.bandwidths))
    return {
        **with_size(plan, model),
        "baseline_epochs": baseline_epochs,
        "speedup": plan.speedup(baseline_epochs, flops),
    }


def measure_seconds(
    config: TrainConfig,
    curriculum: Curriculum,
    model: nn.Module,
    source: Source,
    device: torch.device,
    micro_batch: int,
    replays: int | Mapping[int, int] = 0,
    ranks: Ranks | None = None,
    report: Report = lambda what, done, total: None,
) -> CostTable:
    """Seconds of training for one image at each bandwidth, loading included: the mean of a few real steps.

    A copy of the model is trained, so the run itself starts untouched. What the workers had prepared before a
    bandwidth began is left out, so a machine that waits for data shows it. With replay a fresh batch lasts for
    several steps, and as many more are measured. All ranks train, and each gets its own clock's times.
    """
    ranks = ranks or Ranks()
    batch_size = micro_batch * ranks.size
    cycle = 1 + (replays if isinstance(replays, int) else max(replays.values(), default=0))
    warmup = (_PREFETCHED * config.loader_workers + 1) * cycle
    count = warmup + _CALIBRATION_STEPS * cycle
    bandwidths = curriculum.bandwidths
    phases = tuple(Phase(end=(k + 1) / len(bandwidths), bandwidth=side) for k, side in enumerate(bandwidths))
    trial = plan(
        Curriculum(name="calibration", axis="samples", phases=phases, magnitude=curriculum.magnitude),
        total_cost=None,
        epochs=len(bandwidths) * count * batch_size / len(source),
        dataset_size=len(source),
        batch_size=batch_size,
        learning_rate=1e-6,
    )
    trial = with_replay(trial, config, replays)
    state = make_state(
        copy.deepcopy(model), config.optimization, device, bandwidth=curriculum.final_size, learning_rate=1e-6
    )
    batches = make_loader(config, source, trial, device, ranks=ranks)
    times: dict[int, list[float]] = {side: [] for side in bandwidths}
    before = time.perf_counter()
    report(_MEASURING, 0, trial.total_steps)
    for result in run_segment(state, batches, make_transform(config), make_settings(config, device, ranks)):
        result.loss.item()  # waits for the device
        now = time.perf_counter()
        times[result.step.bandwidth].append(now - before)
        before = now
        report(_MEASURING, result.step.index + 1, trial.total_steps)
    return CostTable("seconds", {side: fmean(spent[warmup:]) / batch_size for side, spent in times.items()})
