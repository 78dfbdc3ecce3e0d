"""A training from configuration to exported weights."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import (
    DECODE_ERRORS,
    FolderSource,
    HuggingFaceSource,
    ShardSource,
    Source,
    as_source,
    open_data,
)
from upchirp.errors import InputError
from upchirp.models import check_sizes
from upchirp.training import checkpoint, run_folder
from upchirp.training.assembly import make_loader, make_state
from upchirp.training.config import TrainConfig
from upchirp.training.device import choose_device, numerics
from upchirp.training.evaluate import EvaluationSet
from upchirp.training.events import Finished, Noted, Observer
from upchirp.training.failures import one_line_failures
from upchirp.training.loop import Run, Totals
from upchirp.training.memory import MicroBatches, device_name
from upchirp.training.micro_batch import can_try, choose_micro_batch, find_micro_batches, fits_on, micro_batches
from upchirp.training.planning import scale_drop_path, with_selection, with_size
from upchirp.training.start import load_start, make_model, new_plan, stored_plan
from upchirp.training.state import State
from upchirp.training.tuning import freeze
from upchirp.training.weights import check_start


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
    train_seconds: float
    """Training time, without evaluations and checkpoints."""


def train(
    config: TrainConfig,
    *,
    model: nn.Module | None = None,
    data: tuple[Any, Any] | None = None,
    observers: Sequence[Observer] = (),
) -> TrainResult:
    """Train by the configuration; go on from a checkpoint if it says so.

    Args:
        config: what to do.
        model: any module that maps (N, 3, H, W) to (N, classes); by default `config.model` is created.
        data: (train, validation) as `Source` or map-style data sets of `(image, label)`; by default `config.data`
            is opened.
        observers: called with every event; see `upchirp.training.events`.

    Raises:
        InputError: bad input, found before training where that is possible. A damaged data set or a non-finite loss
            stops the run with its last good checkpoint kept.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
    """
    folder = config.output or run_folder.free(config.model)
    resuming = config.resume == "auto" and run_folder.holds_run(folder)
    notes: list[str] = []
    if resuming:
        notes = run_folder.check_is_same_run(folder, config)
    else:
        run_folder.check_is_free(folder)
    if model is None and not resuming:
        check_start(config.weights, regime=config.regime, keep_head=config.keep_head)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("training by several processes is not supported yet: start one process")
    if resuming and (end := run_folder.finished(folder)):
        return _finished_before(folder, end, observers)
    device = choose_device(config.device)
    micro_batch = choose_micro_batch(config, config.batch_size)
    loaded = _checkpoint(config, folder, resuming=resuming)
    train_source, val_source = _sources(config, data)
    own_model = model is not None
    model = model if model is not None else make_model(config, train_source)
    if config.weights is not None and not loaded and not resuming:
        notes.append(load_start(config, config.weights, model))
    freeze(model, config.optimization.tune)

    with numerics(device, deterministic=config.deterministic), one_line_failures(folder):
        model = model.to(device)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        if resuming:
            plan = stored_plan(folder, train_source)
            check_sizes(model, plan.bandwidths)
        elif loaded and (config.time_budget is not None or config.replay == "auto"):
            # Measured anew it would be another plan.
            plan = Plan.from_dict(loaded.content.get("plan", {}))
            check_sizes(model, plan.bandwidths)
        else:
            plan, planned = new_plan(config, model, train_source, device, micro_batch, own_model=own_model)
            notes += planned
        delivered = micro_batches(config, plan)
        computed, tried = _computed(config, plan, model, folder, device)
        notes += tried
        if not own_model and config.optimization.drop_path_scaling:
            scale_drop_path(model, plan)
        state = make_state(
            model,
            config.optimization,
            device,
            bandwidth=plan.final_size,
            learning_rate=config.optimization.learning_rate(config.batch_size),
        )
        totals = Totals()
        if loaded:
            totals = _restore(loaded, plan, state)
            notes += [f"{line}: going back to the one before" for line in loaded.damaged]
            notes.append(f"going on from {loaded.path}")
        evaluation = EvaluationSet(
            val_source,
            plan.final_size,
            interpolation=config.augmentation.interpolation,
            workers=config.loader_workers,
            batch_size=min(256, micro_batch),
            pin_memory=device.type == "cuda",
            timeout=config.loader_timeout,
        )
        loader = make_loader(
            config,
            train_source,
            plan,
            device,
            start_step=state.step,
            micro_batch=delivered,
            select=config.selection,
        )
        if loaded:
            # Checkpoints of before there was selection lack it.
            loader.load_state_dict(loaded.content.get("loader", {"step": state.step, "selection": None}))
        if not resuming:
            described = with_selection(with_size(plan, model), plan, config)
            if config.select:
                notes.append(described["selection"]["expected"]["summary"])
            run_folder.create(folder, config, described)
        log = run_folder.RunLog(folder, state.step)
        try:
            run = Run(
                config,
                plan,
                state,
                totals,
                loader,
                folder,
                device,
                evaluation,
                (log, *observers),
                computed,
                packing_helps=_packing_helps(train_source, plan.final_size),
            )
            for note in notes:
                run.emit(Noted(message=note))
            top1 = run.execute()
        finally:
            log.close()
    return TrainResult(
        output=folder, plan=plan, top1=top1, best_top1=totals.best_top1, train_seconds=totals.train_seconds
    )


def _computed(
    config: TrainConfig, plan: Plan, model: nn.Module, folder: Path, device: torch.device
) -> tuple[MicroBatches, list[str]]:
    """How many images are computed at once where that is not what the loader gives, and lines on it."""
    sizes: dict[int, int] = {}
    notes: list[str] = []
    if config.micro_batch == "auto" and can_try(device):
        sizes = find_micro_batches(config, plan, fits_on(config, plan, model, device))
        notes.append(f"--micro-batch auto: memory holds {_listed(sizes)}")
    elif config.micro_batch == "auto":
        notes.append(f"--micro-batch auto tries CUDA's memory only: here it is {_listed(micro_batches(config, plan))}")
    if reduced := run_folder.read_micro_batches(folder, config, device_name(device)):
        notes.append(f"memory ran out in this run before, so it goes on with {_listed(reduced)} at once")
    return MicroBatches(sizes | {side: min(size, sizes.get(side, size)) for side, size in reduced.items()}), notes


def _listed(sizes: Mapping[int, int]) -> str:
    return ", ".join(f"{size} images at {side} px" for side, size in sorted(sizes.items()))


def _finished_before(folder: Path, end: dict[str, Any], observers: Sequence[Observer]) -> TrainResult:
    """The result of a run that was finished earlier, from its log."""
    figures = {name: end[name] for name in ("top1", "best_top1", "train_seconds")}
    for observer in observers:
        observer(Noted(message=f"{folder} was finished before"))
        observer(Finished(step=end["step"], **figures))
    return TrainResult(output=folder, plan=run_folder.read_plan(folder), **figures)


def _sources(config: TrainConfig, data: tuple[Any, Any] | None) -> tuple[Source, Source]:
    if data is None:
        if not config.data:
            raise InputError("no data: give a folder with train/ and val/, or `generated`")
        return open_data(config.data, config.final_size)
    first, second = map(as_source, data)
    return first, second


def _packing_helps(source: Source, final_size: int) -> bool:
    """Whether `upchirp pack` would save reading: files with more pixels than are trained on, not packed yet."""
    if not isinstance(source, FolderSource | HuggingFaceSource | ShardSource):
        return False
    if isinstance(source, ShardSource) and source.sizes:
        return False
    try:
        return min(source.load(0)[0].size) > final_size
    except DECODE_ERRORS:
        return False


def _checkpoint(config: TrainConfig, folder: Path, *, resuming: bool) -> checkpoint.Loaded | None:
    """The checkpoint to go on from, if any."""
    if resuming:
        return checkpoint.load_latest(folder / run_folder.CHECKPOINTS)
    if config.resume in (None, "auto"):
        return None
    path = Path(str(config.resume))
    return checkpoint.Loaded(path, checkpoint.load(path), ())


def _restore(loaded: checkpoint.Loaded, plan: Plan, state: State) -> Totals:
    """Put a checkpoint into the state; returns what was counted until then."""
    content = loaded.content
    # Read, not as plain data: an older checkpoint may lack what has a default now.
    if Plan.from_dict(content.get("plan", {})) != plan:
        raise InputError(f"{loaded.path} was trained by another plan: give the settings that its run was started with")
    try:
        state.load_state_dict(content["state"])
        return Totals(train_seconds=float(content["train_seconds"]), best_top1=float(content["best_top1"]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{loaded.path} holds no training state of upchirp: {error!r}") from error
