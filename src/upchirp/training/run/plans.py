"""The plan of a run: a stored one, or a new one with what is measured and chosen for it."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from upchirp.curriculum import CostTable, Plan
from upchirp.data import Source
from upchirp.data.settings import Prepare
from upchirp.errors import InputError
from upchirp.models import check_sizes
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Report
from upchirp.training.probing.micro_batch import PROBE_BATCH, choose_micro_batch, tried_at_once
from upchirp.training.probing.planning import (
    curriculum_for,
    kernel_note,
    make_plan,
    new_head_note,
    planned_samples,
    replays_of,
    spare_gib,
    with_replay,
)
from upchirp.training.probing.preparing import choose_prepare, pays_to_measure
from upchirp.training.probing.probe import Bench
from upchirp.training.probing.replay import choose_replay
from upchirp.training.probing.speed import SECONDS, SHARE, measure_seconds
from upchirp.training.recipes.checks import parse_duration
from upchirp.training.recipes.defaults import Settled, choose_batch_size, chooses_batch_size, steps_note
from upchirp.training.recipes.evaluations import stop_note
from upchirp.training.recipes.named import papers_curriculum
from upchirp.training.recipes.optimizer_choice import check_states
from upchirp.training.run import run_folder
from upchirp.training.run.beginning import Beginning
from upchirp.training.run.data import packing_helps


def stored_plan(folder: Path, source: Source) -> Plan:
    """The plan of the run in a folder.

    Raises:
        InputError: the data has another number of images now.
    """
    plan = run_folder.read_plan(folder)
    if plan.dataset_size != len(source):
        raise InputError(f"{folder} was planned for {plan.dataset_size} training images, now there are {len(source)}")
    return plan


def as_stored(plan: Plan, stored: Plan, asked: Collection[str]) -> Plan:
    """A checkpoint's plan, if the new one differs from it by nothing but defaults and what follows from the machine."""
    if len(plan.stages) != len(stored.stages):
        return plan
    alike = plan
    if not {"warmup", "warmup_passes"} & set(asked):
        alike = replace(alike, schedule=replace(alike.schedule, warmup=stored.schedule.warmup))
    stages = []
    for stage, before in zip(plan.stages, stored.stages, strict=True):
        if "lr_cap" not in asked and before.batch_size > stored.stages[-1].batch_size:
            stage = replace(stage, learning_rate=before.learning_rate)
        if stage.magnitude is None:
            # Plans of before have one where there is no RandAugment.
            stage = replace(stage, magnitude=before.magnitude)
        if "replay_gib" not in asked:
            stage = replace(stage, replay=replace(stage.replay, buffer_bytes=before.replay.buffer_bytes))
        if "replay_images" not in asked:
            stage = replace(stage, replay=replace(stage.replay, buffer_images=before.replay.buffer_images))
        stages.append(stage)
    return stored if replace(alike, stages=tuple(stages)) == stored else plan


class Planned(NamedTuple):
    """A plan and what it is for."""

    settled: Settled
    """The settings, with those that the plan's length decides, and a line for each choice."""
    plan: Plan
    model: nn.Module


@dataclass(frozen=True, kw_only=True)
class Plans:
    """Makes the plan of a run."""

    source: Source
    made_for: Callable[[Settled], tuple[Trainer, nn.Module]]
    """Makes trainer and model anew for another recipe, which gives the model its drop path."""
    own_model: bool
    """Whether the model is the user's."""
    report: Report

    def of_run(
        self, settled: Settled, trainer: Trainer, model: nn.Module, beginning: Beginning, named: Collection[str]
    ) -> Planned:
        """The stored plan where a run goes on, the checkpoint's where that was measured, else a new one.

        Raises:
            InputError: a curriculum or budget that does not fit, or other data than the run's.
        """
        ranks, config, loaded = trainer.parallel.ranks, settled.config, beginning.loaded
        if beginning.resuming:
            plan = ranks.from_first(lambda: stored_plan(beginning.folder, self.source))
            check_sizes(model, plan.sizes)
            return Planned(settled, plan, model)
        if loaded and (config.time_budget is not None or config.replay == "auto"):
            # A plan that rests on measured seconds would be another one by now.
            plan = Plan.from_dict(loaded.content.get("plan", {}))
            if (longer := settled.for_time(len(self.source), plan)) is not None:
                settled, (_, model) = longer, self.made_for(longer)
            chosen = choose_batch_size(settled, plan.total_samples, model, ranks=ranks.size)
            check_sizes(model, plan.sizes)
            return Planned(replace(settled, config=chosen.config), plan, model)
        planned = self.in_time(settled, trainer, model)
        if loaded is None:
            return planned
        stored = Plan.from_dict(loaded.content.get("plan", {}))
        return planned._replace(plan=as_stored(planned.plan, stored, named))

    def in_time(self, settled: Settled, trainer: Trainer, model: nn.Module) -> Planned:
        """The plan of a new run; if its time budget is enough for another recipe, that of a run by that one."""
        chosen, plan = self.new(settled, trainer, model)
        if (longer := settled.for_time(len(self.source), plan)) is not None:
            trainer, model = self.made_for(longer)
            chosen, plan = self.new(longer, trainer, model)
        return Planned(chosen, plan, model)

    def new(self, settled: Settled, trainer: Trainer, model: nn.Module) -> tuple[Settled, Plan]:
        """A new plan, and what was measured and chosen for it: on all ranks at once, and decided by the first.

        Returns:
            The settings with those chosen that the plan's length decides, and a line for each choice, and the plan.
        """
        device, ranks = trainer.device, trainer.parallel.ranks
        config = settled.config
        curriculum = curriculum_for(model, config.curriculum, config.final_size)
        check_states(model, config.optimization, curriculum.sizes)
        bench = Bench(trainer=trainer, curriculum=curriculum, model=model, source=self.source)

        budget = math.inf if config.time_budget is None else parse_duration(config.time_budget)
        timed = math.isfinite(budget)

        def measured(micro_batch: Mapping[int, int], replays: int | Mapping[int, int]) -> CostTable:
            table = measure_seconds(
                bench,
                micro_batch,
                replays,
                replaying=config,
                seconds=min(SECONDS, SHARE * budget),
                report=self.report,
            )
            return ranks.from_first(lambda: table)

        probed = dict.fromkeys(curriculum.sizes, PROBE_BATCH)
        if not chooses_batch_size(config):
            probed = tried_at_once(config, curriculum, device, ranks.size)
        seconds, way_of_seconds = measured(probed, 0) if timed else None, trainer.loading.way
        samples = planned_samples(config, curriculum, len(self.source), model=model, seconds=seconds)
        chosen = choose_batch_size(settled, samples, model, ranks=ranks.size)
        config, notes = chosen.config, list[str]()
        if config.prepare == "auto":
            first = make_plan(config, curriculum, len(self.source), model=model, seconds=seconds)
            shared_out = config.parallel == "fsdp"
            way: Prepare = "cpu"
            photographs = config.augmentation.channels.photographs
            if photographs and pays_to_measure(
                config, device, first, deterministic=config.deterministic, shared_out=shared_out
            ):
                helps = partial(packing_helps, self.source, config.final_size)
                way, line = choose_prepare(bench, config, first, packing_helps=helps, report=self.report)
                notes.append(line)
            config = replace(config, prepare=way)
            trainer = replace(trainer, loading=replace(trainer.loading, prepare=way))
            bench = replace(bench, trainer=trainer)
        replays: int | Mapping[int, int] = 0
        if config.replay == "auto":
            self.report("measuring how many replayed batches keep the device busy", None, None)
            micro_batch = choose_micro_batch(config, config.batch_size, ranks.size)
            found = choose_replay(bench, micro_batch, final=config.replay_final)
            # Every rank measures, so that they load the machine as they will in training; the first one's counts.
            replays, lines = ranks.from_first(lambda: found)
            notes += lines
        else:
            asked = replays_of(config, curriculum)
            assert asked != "auto"
            replays = asked
        at_once = tried_at_once(config, curriculum, device, ranks.size)
        if timed and (replays or at_once != probed or trainer.loading.way != way_of_seconds):
            seconds = measured(at_once, replays)
        spare = ranks.from_first(lambda: spare_gib(device, ranks.size))
        made = make_plan(config, curriculum, len(self.source), model=model, seconds=seconds)
        plan = with_replay(made, config, replays, gib=spare)
        notes += filter(None, (steps_note(plan), stop_note(plan, config)))
        self.report("looking at the kernels' gradients", None, None)
        if self.own_model or config.curriculum != papers_curriculum(config.model):
            notes += _kernel_notes(plan, model)
        if config.weights is not None and not config.keep_head and (note := new_head_note(plan, config.optimization)):
            notes.append(note)
        return Settled(config, (*chosen.told(plan), *notes)), plan


def _kernel_notes(plan: Plan, model: nn.Module) -> list[str]:
    try:
        note = kernel_note(plan, model)
    except (RuntimeError, ValueError, TypeError) as error:
        note = f"could not check the kernels' gradients at {plan.bandwidths[0]} px: {str(error).splitlines()[0]}"
    return [note] if note else []
