"""A training from configuration to exported weights."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import DataIdentity, Transform
from upchirp.data.device.transform import check_transforms
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth
from upchirp.training.checkpoints import checkpoint
from upchirp.training.engine.task import Task
from upchirp.training.engine.trainer import Trainer
from upchirp.training.evaluation.of_state import evaluation_follows, images_of
from upchirp.training.events import Noted, Observer, reporting
from upchirp.training.methods.chosen import task_of
from upchirp.training.parallel.device import choose_device, numerics
from upchirp.training.parallel.opening import open_parallel
from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.state import State
from upchirp.training.probing.micro_batch import choose_micro_batch, micro_batches
from upchirp.training.probing.planning import scale_drop_path, with_selection, with_size
from upchirp.training.probing.shared_memory import Demand
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.defaults import Settled, check_model
from upchirp.training.recipes.unused import unused_settings
from upchirp.training.run import run_folder
from upchirp.training.run.adviser import Adviser
from upchirp.training.run.beginning import begin
from upchirp.training.run.data import packing_helps
from upchirp.training.run.failures import one_line_failures
from upchirp.training.run.loop import Run
from upchirp.training.run.material import material_of
from upchirp.training.run.memory import memory_of
from upchirp.training.run.plans import Plans
from upchirp.training.run.report import report_at_end
from upchirp.training.run.result import TrainResult, finished_before
from upchirp.training.run.resumption import go_on_with
from upchirp.training.run.saving import Totals, go_on_from
from upchirp.training.run.trackers import check_tracker
from upchirp.training.run.tracking import track


def train(
    config: TrainConfig,
    *,
    model: nn.Module | None = None,
    data: tuple[Any, Any] | None = None,
    task: Task | None = None,
    transforms: Mapping[str, Transform] | None = None,
    observers: Sequence[Observer] = (),
    go_on: str | None = None,
) -> TrainResult:
    """Train by the configuration; go on from a checkpoint if it says so.

    Args:
        config: what to do.
        model: any module that maps (N, 3, H, W) to (N, classes); by default `config.model` is created.
        data: (train, validation) as `Source` or map-style data sets of `(image, label)`; by default `config.data`
            is opened.
        task: what the model is trained to do; by default what the regime says, which is to tell the labels unless it
            is `pretrain`.
        transforms: what is done with finished batches, by the names that the curriculum's phases give them; modules
            learn with the model.
        observers: called with every event, on every rank; see `upchirp.training.events`.
        go_on: how to go on with the run, as the end of the message of one that stops; by default `upchirp train`.

    Started by torchrun, every rank calls it in the same way, and every rank gets the result. Only the first one needs
    the run folder.

    Raises:
        InputError: bad input, found before training where that is possible. A damaged data set or a non-finite loss
            stops the run with its last good checkpoint kept.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint was written.

    With `resume="auto"` a run in the output folder gives all settings that `config.given` does not name.
    """
    # Where the folder can be seen; the first rank tells the others.
    config = config.with_stored()
    device = choose_device(config.device)
    with (
        open_parallel(config.parallel, device, deterministic=config.deterministic, sync_bn=config.sync_bn) as parallel,
        ExitStack() as held,
    ):
        task, transforms = task or task_of(config, config.in_chans), transforms or {}
        return _train(config, model, data, task, transforms, observers, device, parallel, held, go_on)


def _train(
    config: TrainConfig,
    model: nn.Module | None,
    data: tuple[Any, Any] | None,
    task: Task,
    transforms: Mapping[str, Transform],
    observers: Sequence[Observer],
    device: torch.device,
    parallel: Parallel,
    held: ExitStack,
    go_on: str | None,
) -> TrainResult:
    ranks = parallel.ranks
    report = reporting(observers)
    asked, own_model = config, model is not None
    config, beginning = ranks.from_first(
        lambda: (asked, begin(asked, held, own_model=own_model, own_data=data is not None))
    )
    folder, resuming = beginning.folder, beginning.resuming
    loaded, notes, trained_on = beginning.loaded, beginning.notes, beginning.data
    if config.prepare == "auto" and beginning.prepare is not None:
        # Measured anew it might be another one, and the weights would differ by rounding.
        config = replace(config, prepare=beginning.prepare)
    if beginning.end is not None:
        return finished_before(folder, beginning.end, observers, ranks)
    go_on = go_on or go_on_with(folder, objects=own_model or data is not None or bool(transforms))
    if model is None:
        check_model(config, labelled=config.facts.labelled)
    if config.parallel == "fsdp" and any(isinstance(each, nn.Module) for each in transforms.values()):
        raise InputError("transforms that learn are held whole by every rank: leave out `parallel='fsdp'`")
    # Refused before any data are read.
    processes = config.processes
    check_tracker(config.track)
    material = material_of(Settled(config), beginning, task, model, data, device, ranks, report)
    task = material.task

    with numerics(device, deterministic=config.deterministic), one_line_failures(folder, go_on):

        def made_for(chosen: Settled, module: nn.Module | None = None) -> tuple[Trainer, nn.Module]:
            """Trainer and model as for these settings from the start."""
            made = Trainer.of(chosen.config, device, parallel, task, transforms)
            return made, made.place(module or material.made_for(chosen))

        trainer, model = made_for(material.settled, material.model)
        plans = Plans(source=material.train, made_for=made_for, own_model=own_model, report=report)
        named = {name for name, value in asked.asked().items() if value is not None} if loaded else ()
        settled, plan, model = plans.of_run(material.settled, trainer, model, beginning, named)
        config = settled.config
        check_transforms((stage.transform for stage in plan.stages), transforms)
        notes += settled.reasons
        if not resuming and asked.given is not None:
            notes += unused_settings(config.to_flat(), asked.asked())
        delivered = micro_batches(config, plan, ranks.size)
        # By what the plan's length decided, too.
        trainer = Trainer.of(config, device, parallel, task, transforms)
        memory, tried = memory_of(config, trainer, plan, model, folder, report)
        notes += tried
        if not own_model and config.optimization.drop_path_scaling:
            scale_drop_path(model, plan)
        described = with_selection(with_size(plan, model), plan, config.selection, epochs=config.budget)
        if own_model:
            # It may have been made for another side.
            fit_to_bandwidth(model, plan.final_size)
        state = trainer.state(
            model,
            bandwidth=plan.final_size,
            learning_rate=config.optimization.learning_rate(config.batch_size),
            bandwidths=plan.sizes,
            steps=plan.total_steps,
        )
        totals = Totals()
        if loaded:
            totals = _restore(loaded, plan, state)
            notes += [f"{line}: going back to the one before" for line in loaded.damaged]
            notes.append(f"going on from {loaded.path}")
        demand = Demand(
            plan=plan,
            low_frequency=config.low_frequency,
            prepare=config.way,
            channels=config.augmentation.channels,
        )
        workers, few = demand.workers(processes)
        notes += [few] if few else []
        trainer = replace(trainer, loading=replace(trainer.loading, workers=workers))
        at_once = choose_micro_batch(config, config.batch_size, ranks.size)
        evaluation = images_of(trainer, material.val, plan.final_size, at_once)
        loader = trainer.loader(
            material.train, plan, start_step=state.step, micro_batch=delivered, select=config.selection
        )
        if loaded:
            # Checkpoints of before there was selection lack it.
            stored = loaded.content.get("loader", {"step": state.step, "selection": None})
            # Plans were compared, and another seed was asked for.
            loader.load_state_dict({name: value for name, value in stored.items() if name != "order"})
        # Each rank holds a whole checkpoint there.
        del beginning, loaded
        if config.select and not resuming:
            notes.append(described["selection"]["expected"]["summary"])
        with ExitStack() as stack:
            if ranks.is_first:
                exported = ("model" if state.ema is None else "ema", plan.final_size)
                # Before the folder holds a run: what cannot be started leaves none.
                tracked: tuple[Observer, ...] = ()
                if config.track is not None:
                    tracker = track(
                        config.track, folder, config.to_flat(), trainer, plan, material.train, exported, observers
                    )
                    tracked = (stack.enter_context(closing(tracker)),)
                if not resuming:
                    run_folder.create(folder, config.to_flat(), described, material.identity)
                elif trained_on == DataIdentity():
                    # A run of an earlier version: from now on it is known.
                    run_folder.write_data(folder, material.identity)
                evaluates = evaluation_follows(plan, state.step, config.evaluations)
                log = run_folder.RunLog(folder, state.step, evaluates=evaluates, exported=exported)
                stack.enter_context(closing(log))
                observers = (log, *observers, *tracked)
            run = Run(
                keeping=config,
                trainer=trainer,
                plan=plan,
                state=state,
                totals=totals,
                loader=loader,
                folder=folder,
                images=evaluation,
                observers=observers,
                memory=memory,
                description=material.description,
                go_on=go_on,
                adviser=Adviser(
                    plan=plan,
                    workers=processes,
                    replay_final=config.replay_final,
                    # What was measured needs no advice.
                    device_helps=device.type == "cuda"
                    and asked.prepare == "cpu"
                    and config.device_could_prepare
                    and config.augmentation.channels.photographs,
                    packing_helps=packing_helps(material.train, plan.final_size),
                ),
            )
            for note in notes:
                run.emit(Noted(message=note))
            top1 = run.execute()
            if config.report and ranks.is_first:
                report_at_end(run, config.to_flat(), material.train, material.val)
    return TrainResult(
        output=folder,
        plan=plan,
        top1=top1,
        best_top1=totals.best_top1,
        figure=task.best,
        train_seconds=totals.train_seconds,
    )


def _restore(loaded: checkpoint.Loaded, plan: Plan, state: State) -> Totals:
    """Put a checkpoint into the state; returns what was counted until then."""
    # The stored plan is read before it is compared: an older checkpoint may lack a field that has a default now.
    if Plan.from_dict(loaded.content.get("plan", {})) != plan:
        raise InputError(f"{loaded.path} was trained by another plan: give the settings that its run was started with")
    return go_on_from(loaded, state, Totals.from_dict)
