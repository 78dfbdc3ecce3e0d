"""A training from configuration to exported weights, and what it achieved."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import Transform
from upchirp.data.device.transform import check_transforms
from upchirp.data.settings import loader_processes
from upchirp.errors import InputError
from upchirp.models import check_given_model
from upchirp.training.engine.task import Task
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Finished, Noted, Observer, reporting
from upchirp.training.folders.resumption import go_on_with
from upchirp.training.folders.run_folder import read_plan
from upchirp.training.jobs.report import report_at_end
from upchirp.training.methods.chosen import task_of
from upchirp.training.parallel.device import choose_device, numerics
from upchirp.training.parallel.opening import open_parallel
from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.defaults import Settled, check_model
from upchirp.training.recipes.unused import unused_settings
from upchirp.training.run.adviser import Adviser
from upchirp.training.run.beginning import begin
from upchirp.training.run.failures import one_line_failures
from upchirp.training.run.loop import Run
from upchirp.training.run.material import Given, material_of
from upchirp.training.run.plans import Plans
from upchirp.training.run.records import recorded
from upchirp.training.run.setup import set_up
from upchirp.training.run.trackers import check_tracker


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run achieved."""

    output: Path
    """The run folder."""
    plan: Plan
    """What was executed."""
    top1: float
    """Percent right at the final size: of the weights' average if the recipe keeps one, else of the weights."""
    best_top1: float
    """The best of the evaluations in the last stage."""
    figure: str
    """What these two measure: `top1`, or the best figure of another task."""
    train_seconds: float
    """Training time, without evaluations and checkpoints."""


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
        go_on: how to go on with the run, as the end of the message of one that stops; by default `upchirp train` or
            `upchirp pretrain`.

    Started by torchrun, every rank calls it in the same way, and every rank gets the result. Only the first one needs
    the run folder.

    Raises:
        InputError: bad input, found before training where that is possible. A damaged data set or a non-finite loss
            stops the run with its last good checkpoint kept.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint was written.

    With `resume="auto"` a run in the output folder gives all settings that `config.given` does not name.

    >>> import tempfile
    >>> from upchirp.data import GeneratedSource
    >>> splits = (GeneratedSource("train", num_images=40, size=48), GeneratedSource("val", num_images=20, size=48))
    >>> settings = {"model": "test_resnet", "final_size": 32, "epochs": 1, "batch_size": 8, "lr": 1e-3, "workers": 0}
    >>> config = TrainConfig.from_flat({**settings, "report": False, "output": tempfile.mkdtemp()})
    >>> result = train(config, data=splits)
    >>> result.plan.bandwidths, (result.output / "model.safetensors").exists()
    ((14, 22, 32), True)
    """
    if not isinstance(config, TrainConfig):
        told = "a dictionary: make it one by `TrainConfig.from_flat`" if isinstance(config, dict) else repr(config)
        raise InputError(f"the configuration is no TrainConfig but {told}")
    if model is not None:
        check_given_model(model)
    if callable(observers):
        raise InputError("`observers` is one observer: give a list of them")
    # Where the folder can be seen; the first rank tells the others.
    config = config.with_stored()
    device = choose_device(config.device)
    given = Given(model=model, data=data, task=task or task_of(config), transforms=transforms or {})
    with open_parallel(config.parallel, device, deterministic=config.deterministic, sync_bn=config.sync_bn) as parallel:
        return _train(config, given, device, parallel, observers, go_on)


def _train(
    asked: TrainConfig,
    given: Given,
    device: torch.device,
    parallel: Parallel,
    observers: Sequence[Observer],
    go_on: str | None,
) -> TrainResult:
    ranks, report = parallel.ranks, reporting(observers)
    with ExitStack() as held:
        config, beginning = ranks.from_first(
            lambda: (asked, begin(asked, held, own_model=given.model is not None, own_data=given.data is not None))
        )
        folder, resuming, trained_on = beginning.folder, beginning.resuming, beginning.data
        # Chosen anew it might be another one, and the weights would differ by rounding.
        config = config.as_chosen(beginning.chosen)
        if beginning.end is not None:
            return _finished_before(folder, beginning.end, observers, ranks)
        if go_on is None:
            job = "train" if given.objects or config.facts.labelled else "pretrain"
            go_on = go_on_with(folder, job=job, objects=given.objects)
        _check(config, given)
        material = material_of(Settled(config), beginning, given, device, ranks, report)

        def trainer_for(chosen: Settled) -> Trainer:
            return Trainer.of(chosen.config, device, parallel, material.task, given.transforms)

        def made_for(chosen: Settled) -> tuple[Trainer, nn.Module]:
            """Trainer and model as for these settings from the start."""
            trainer = trainer_for(chosen)
            return trainer, trainer.place(material.made_for(chosen))

        held.enter_context(numerics(device, deterministic=config.deterministic))
        held.enter_context(one_line_failures(folder, go_on))
        trainer = trainer_for(material.settled)
        model = trainer.place(material.model)
        plans = Plans(source=material.train, made_for=made_for, own_model=material.own_model, report=report)
        named = {name for name, value in asked.asked().items() if value is not None} if beginning.loaded else ()
        planned = plans.of_run(material.settled, trainer, model, beginning, named)
        plan, settled = planned.plan, planned.settled
        check_transforms((stage.transform for stage in plan.stages), given.transforms)
        # By what the plan's length decided, too.
        trainer = trainer_for(settled)
        setup = set_up(planned, trainer, material, beginning, report)
        config = settled.config
        settings = {**config.to_flat(), "evaluations": setup.evaluations}
        unused = unused_settings(settings, asked.asked()) if not resuming and asked.given is not None else ()
        notes = [*beginning.notes, *material.notes, *settled.reasons, *unused, *setup.notes]
        # Each rank holds a whole checkpoint there.
        del beginning
        observing = held.enter_context(
            recorded(setup, settings, material, observers, new=not resuming, trained_on=trained_on)
        )
        adviser = Adviser.of(asked, config, plan, material.train, device)
        run = Run(setup=setup, observers=observing, go_on=go_on, adviser=adviser)
        for note in notes:
            run.emit(Noted(message=note))
        top1 = run.execute()
        if config.report and ranks.is_first:
            report_at_end(run, settings, material.train, material.val)
    return TrainResult(
        output=folder,
        plan=plan,
        top1=top1,
        best_top1=setup.totals.best_top1,
        figure=material.task.best,
        train_seconds=setup.totals.train_seconds,
    )


def _check(config: TrainConfig, given: Given) -> None:
    """Refuse what can be refused before any data are read."""
    if given.model is None:
        check_model(config, labelled=config.facts.labelled)
    if config.parallel == "fsdp" and any(isinstance(each, nn.Module) for each in given.transforms.values()):
        raise InputError("transforms that learn are held whole by every rank: leave out `parallel='fsdp'`")
    loader_processes(config.workers)
    check_tracker(config.track)


def _finished_before(folder: Path, end: Finished, observers: Sequence[Observer], ranks: Ranks) -> TrainResult:
    """The result of a run that was finished earlier, from its log; all ranks call it together."""
    for observer in observers:
        observer(Noted(message=f"{folder} was finished before"))
        observer(end)
    return TrainResult(
        output=folder,
        plan=ranks.from_first(lambda: read_plan(folder)),
        top1=end.top1,
        best_top1=end.best_top1,
        figure=end.figure,
        train_seconds=end.train_seconds,
    )
