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
from upchirp.training.assets.data import packing_helps
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Report
from upchirp.training.folders import run_folder
from upchirp.training.probing.micro_batch import PROBE_BATCH, choose_micro_batch, tried_at_once
from upchirp.training.probing.plan_notes import kernel_note, plan_notes
from upchirp.training.probing.planning import (
    curriculum_for,
    make_plan,
    planned_samples,
    replays_of,
    spare_gib,
)
from upchirp.training.probing.preparing import choose_prepare, pays_to_measure
from upchirp.training.probing.probe import Bench
from upchirp.training.probing.replay import choose_replay
from upchirp.training.probing.speed import SECONDS, SHARE, measure_seconds
from upchirp.training.recipes.checks import parse_duration
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.defaults import Settled, choose_batch_size, chooses_batch_size
from upchirp.training.recipes.groups import Planning
from upchirp.training.recipes.named import papers_curriculum
from upchirp.training.recipes.optimizer_choice import check_states
from upchirp.training.run.beginning import Beginning


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
        chosen, plan = self._new(settled, trainer, model)
        if (longer := settled.for_time(len(self.source), plan)) is not None:
            trainer, model = self.made_for(longer)
            chosen, plan = self._new(longer, trainer, model)
        return Planned(chosen, plan, model)

    def _new(self, settled: Settled, trainer: Trainer, model: nn.Module) -> tuple[Settled, Plan]:
        """A new plan, and what was measured and chosen for it: on all ranks at once, and decided by the first.

        Returns:
            The settings with those chosen that the plan's length decides, and a line for each choice, and the plan.
        """
        ranks, images = trainer.parallel.ranks, len(self.source)
        curriculum = curriculum_for(model, settled.config.curriculum, settled.config.final_size)
        check_states(model, settled.config.optimization, curriculum.sizes)
        bench = Bench(trainer=trainer, curriculum=curriculum, model=model, source=self.source)
        first = self._first_speed(bench, settled.config)
        seconds = None if first is None else first.seconds
        samples = planned_samples(settled.config, curriculum, images, model=model, seconds=seconds)
        chosen = choose_batch_size(settled, samples, model, ranks=ranks.size)
        prepare, of_way = self._way(bench, chosen.config, seconds)
        config = replace(chosen.config, prepare=prepare)
        bench = replace(bench, trainer=replace(trainer, loading=replace(trainer.loading, prepare=prepare)))
        replays, of_replay = self._replays(bench, config)
        seconds = self._speed(bench, config, replays, first)
        spare = ranks.from_first(lambda: spare_gib(trainer.device, ranks.size))
        plan = make_plan(config, curriculum, images, model=model, seconds=seconds, replays=replays, gib=spare)
        notes = [*plan_notes(plan, config), *self._kernel_notes(plan, config, model)]
        return Settled(config, (*chosen.told(plan), *of_way, *of_replay, *notes)), plan

    def _kernel_notes(self, plan: Plan, config: TrainConfig, model: nn.Module) -> list[str]:
        """What to tell of large kernels, but for models that the paper trained by the same curriculum."""
        if not self.own_model and config.curriculum == papers_curriculum(config.model):
            return []
        self.report("looking at the kernels' gradients")
        note = kernel_note(plan, model)
        return [] if note is None else [note]

    def _first_speed(self, bench: Bench, config: TrainConfig) -> "_Speed | None":
        """The speed that a time budget is planned with, while batch, way of preparing and replay may be open."""
        if config.time_budget is None:
            return None
        few = dict.fromkeys(bench.curriculum.sizes, PROBE_BATCH)
        at_once = few if chooses_batch_size(config) else tried_at_once(config, bench)
        return _Speed(self._measured(bench, config, at_once, 0), at_once, bench.trainer.loading.way)

    def _speed(
        self, bench: Bench, planning: Planning, replays: int | Mapping[int, int], first: "_Speed | None"
    ) -> CostTable | None:
        """The speed with what was chosen: measured again where that is not what it was measured with at first."""
        at_once = tried_at_once(planning, bench)
        if first is None:
            return None
        if not replays and (at_once, bench.trainer.loading.way) == (first.at_once, first.way):
            return first.seconds
        return self._measured(bench, planning, at_once, replays)

    def _measured(
        self, bench: Bench, planning: Planning, at_once: Mapping[int, int], replays: int | Mapping[int, int]
    ) -> CostTable:
        budget = math.inf if planning.time_budget is None else parse_duration(planning.time_budget)
        most = min(SECONDS, SHARE * budget)
        table = measure_seconds(bench, at_once, replays, replaying=planning, seconds=most, report=self.report)
        return bench.trainer.parallel.ranks.from_first(lambda: table)

    def _way(self, bench: Bench, config: TrainConfig, seconds: CostTable | None) -> tuple[Prepare, list[str]]:
        """Who is to prepare images, and a line on it if that was measured."""
        if config.prepare != "auto":
            return config.prepare, []
        plan = make_plan(config, bench.curriculum, len(self.source), model=bench.model, seconds=seconds)
        if not pays_to_measure(config, bench.trainer.device, plan):
            return "cpu", []
        helps = partial(packing_helps, self.source, config.final_size)
        way, line = choose_prepare(bench, config, plan, packing_helps=helps, report=self.report)
        return way, [line]

    def _replays(self, bench: Bench, planning: Planning) -> tuple[int | Mapping[int, int], list[str]]:
        """How many replayed batches there are for each fresh one, and lines on it if that was measured."""
        asked = replays_of(planning, bench.curriculum)
        if asked != "auto":
            return asked, []
        ranks = bench.trainer.parallel.ranks
        self.report("measuring how many replayed batches keep the device busy")
        micro_batch = choose_micro_batch(planning, planning.batch_size, ranks.size)
        found = choose_replay(bench, micro_batch, final=planning.replay_final)
        # Every rank measures, so that they load the machine as they will in training; the first one's counts.
        return ranks.from_first(lambda: found)


class _Speed(NamedTuple):
    """How fast this machine trains, and what that was measured with."""

    seconds: CostTable
    """Of one image, by bandwidth."""
    at_once: Mapping[int, int]
    """How many images were computed at once, by bandwidth."""
    way: Prepare
    """Who prepared them."""
