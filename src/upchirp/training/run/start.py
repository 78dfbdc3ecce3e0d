"""The start of a run: its data, its model with the weights it loads, and its plan."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.conversion import plain
from upchirp.curriculum import CostTable, Plan
from upchirp.data import (
    DECODE_ERRORS,
    ArchiveSource,
    Augmentation,
    DataIdentity,
    FolderSource,
    HuggingFaceSource,
    JoinedSource,
    ShardSource,
    Source,
    SubsetSource,
    TableSource,
    UnlabelledSource,
    as_source,
    default_crop_pct,
    open_data,
    open_more,
    open_unlabelled,
)
from upchirp.data.labels import validation_for
from upchirp.data.settings import Prepare
from upchirp.data.sources import Note, warn
from upchirp.data.sources.listing import Counted, ignore
from upchirp.errors import InputError
from upchirp.models import classifier_names, create_model, in_classifier
from upchirp.models.meta import unwrap
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.preprocessing import Preprocessing
from upchirp.training.checkpoints.weights import load_weights, read_weights
from upchirp.training.engine.task import Classification, Task
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Report
from upchirp.training.probing.micro_batch import (
    PROBE_BATCH,
    choose_micro_batch,
    tried_at_once,
)
from upchirp.training.probing.planning import (
    curriculum_for,
    kernel_note,
    make_plan,
    new_head_note,
    no_model,
    planned_samples,
    replays_of,
    spare_gib,
    with_replay,
)
from upchirp.training.probing.preparing import choose_prepare, measures
from upchirp.training.probing.replay import choose_replay
from upchirp.training.probing.speed import measure_seconds
from upchirp.training.recipes.defaults import Settled, choose_batch_size, chooses_batch_size, steps_note
from upchirp.training.recipes.groups import Start
from upchirp.training.recipes.named import papers_curriculum
from upchirp.training.recipes.optimizer_choice import check_states
from upchirp.training.recipes.recipe import Optimization, Recipe
from upchirp.training.recipes.tuning import freeze_for
from upchirp.training.run import run_folder


def make_model(
    start: Start, classes: int, task: Task | None = None, *, optimization: Optimization, seed: int
) -> nn.Module:
    """What a task trains around the model that is named, initialised from the seed; by default it tells classes."""
    task = task or Classification()
    return task.around(_named_model(start, classes, task, optimization=optimization, seed=seed), fresh=True)


def _named_model(start: Start, classes: int, task: Task, *, optimization: Optimization, seed: int) -> nn.Module:
    outputs = task.outputs(classes)
    if outputs is None:
        raise no_model(task)
    torch.manual_seed(seed)
    return create_model(
        start.model,
        num_classes=outputs,
        final_size=start.final_size,
        drop_path=optimization.drop_path,
        drop=optimization.drop,
        **start.model_kwargs,
    )


def load_start(path: Path, model: nn.Module, source: Source, *, final_size: int, new_head: bool) -> list[str]:
    """Load the weights that a new run begins with; returns lines on them."""
    weights = read_weights(path)
    if not new_head:
        weights.check_head(source.classes)
    loaded = load_weights(model, weights, final_size, new_head=new_head)
    resized = "" if loaded.size == final_size else f", resized from {loaded.size} px"
    return [f"starting from {path}{resized}, with {'a new' if new_head else 'its'} head", *loaded.notes(path)]


def describe(start: Start, seen: Augmentation, model: nn.Module, data: DataIdentity) -> Description:
    """What is written with the weights of a run."""
    preprocessing = Preprocessing(
        input_size=start.final_size,
        mean=seen.mean,
        std=seen.std,
        interpolation=seen.interpolation,
        crop_pct=default_crop_pct(start.final_size),
    )
    made: Any = getattr(model, "default_cfg", None)
    if not isinstance(made, dict) or made.get("architecture") != start.model.partition(".")[0]:
        # A module of the user's own: no name makes it anew.
        return Description(data=data, preprocessing=preprocessing)
    return Description(
        model=start.model,
        model_kwargs=plain(start.model_kwargs),
        final_size=start.final_size,
        data=data,
        preprocessing=preprocessing,
    )


def start_model(
    start: Start, recipe: Recipe, source: Source, model: nn.Module | None, task: Task, *, seed: int, new: bool
) -> tuple[nn.Module, list[str]]:
    """The model, and what it starts from."""
    notes: list[str] = []
    fresh = start.weights is None and model is None
    if model is None:
        model = _named_model(start, len(source.classes), task, optimization=recipe.optimization, seed=seed)
    elif (inner := unwrap(model)) is not model:
        notes.append(f"{type(model).__name__} is left off: a run compiles by compile=True, and shares out by itself")
        model = inner
    if start.weights is not None and new:
        new_head = not recipe.keep_head
        notes += load_start(start.weights, model, source, final_size=start.final_size, new_head=new_head)
    if start.head_init_scale != 1 and new and not (start.weights is not None and recipe.keep_head):
        _scale_head(model, start.head_init_scale)
    model = task.around(model, fresh=fresh)
    freeze_for(model, recipe.optimization)
    task.check(model, start.final_size, len(source.classes))
    return model, notes


@torch.no_grad()
def _scale_head(model: nn.Module, factor: float) -> None:
    names = classifier_names(model)
    for name, parameter in model.named_parameters():
        if in_classifier(name, names):
            parameter.mul_(factor)


def open_named_data(
    start: Start, note: Note = warn, counted: Counted = ignore, *, labelled: bool = True
) -> tuple[Source, Source]:
    """The training and the validation images that the settings name; see `open_unlabelled` for those without labels.

    Raises:
        InputError: none are named, or they cannot be opened.
    """
    if not start.data:
        raise InputError("no data: give a folder of images, or 'generated'")
    if start.more_data and not labelled:
        raise InputError("`more_data` is for labelled images: put those without into one folder")
    train, val = (open_data if labelled else open_unlabelled)(
        start.data,
        start.final_size,
        val_share=start.val_share,
        train_split=start.train_split,
        val_split=start.val_split,
        note=note,
        counted=counted,
    )
    if start.more_data:
        train = JoinedSource([train, *(open_more(more, train, note=note, counted=counted) for more in start.more_data)])
    return train, val


def open_sources(
    start: Start, data: tuple[Any, Any] | None, task: Task, notes: list[str], report: Report
) -> tuple[Source, Source]:
    """Training and validation images, with the labels that the task asks for."""
    if data is None:
        data = open_named_data(
            start, notes.append, lambda images: report("scanning the data", images, None), labelled=task.labelled
        )
    train_source, val_source = map(as_source, data)
    if not task.labelled:
        return _unlabelled(train_source), _unlabelled(val_source)
    val_source, told = validation_for(train_source, val_source)
    notes += told
    return train_source, val_source


def _unlabelled(source: Source) -> Source:
    return source if isinstance(source, UnlabelledSource) else UnlabelledSource(source)


def packing_helps(source: Source, final_size: int) -> bool:
    """Whether `upchirp pack` would save reading: files with more pixels than are trained on, not packed yet."""
    while isinstance(source, SubsetSource | UnlabelledSource):
        source = source.whole
    if not isinstance(source, FolderSource | ArchiveSource | TableSource | HuggingFaceSource | ShardSource):
        return False
    if isinstance(source, ShardSource) and source.sizes:
        return False
    try:
        return min(source.load(0)[0].size) > final_size
    except DECODE_ERRORS:
        return False


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
    """A checkpoint's plan, if the new one differs from it by nothing but defaults and what follows from the machine.

    Args:
        plan: made anew.
        stored: the checkpoint's.
        asked: the names of the settings that were asked for.
    """
    if len(plan.stages) != len(stored.stages):
        return plan
    alike = plan
    if not {"warmup", "warmup_passes"} & set(asked):
        alike = replace(alike, schedule=replace(alike.schedule, warmup=stored.schedule.warmup))
    stages = []
    for stage, before in zip(plan.stages, stored.stages, strict=True):
        if "lr_cap" not in asked and before.batch_size > stored.stages[-1].batch_size:
            stage = replace(stage, learning_rate=before.learning_rate)
        if "replay_gib" not in asked:
            stage = replace(stage, replay=replace(stage.replay, buffer_bytes=before.replay.buffer_bytes))
        if "replay_images" not in asked:
            stage = replace(stage, replay=replace(stage.replay, buffer_images=before.replay.buffer_images))
        stages.append(stage)
    return stored if replace(alike, stages=tuple(stages)) == stored else plan


def new_plan(
    settled: Settled,
    trainer: Trainer,
    model: nn.Module,
    source: Source,
    *,
    own_model: bool,
    report: Report,
) -> tuple[Settled, Plan]:
    """The plan of a new run, and what was measured and chosen for it: on all ranks at once, and decided by the first.

    Returns:
        The settings with those chosen that the plan's length decides, and a line for each choice, and the plan.

    Raises:
        InputError: a curriculum or budget that does not fit.
    """
    device, ranks = trainer.device, trainer.parallel.ranks
    config = settled.config
    curriculum = curriculum_for(model, config.curriculum, config.final_size)
    check_states(model, config.optimization, curriculum.sizes)

    def measured(micro_batch: Mapping[int, int], replays: int | Mapping[int, int]) -> CostTable:
        table = measure_seconds(
            trainer, curriculum, model, source, micro_batch, replays, replaying=config, report=report
        )
        return ranks.from_first(lambda: table)

    timed = config.time_budget is not None
    probed = dict.fromkeys(curriculum.sizes, PROBE_BATCH)
    if not chooses_batch_size(config):
        probed = tried_at_once(config, curriculum, device, ranks.size)
    seconds, way_of_seconds = measured(probed, 0) if timed else None, trainer.loading.way
    samples = planned_samples(config, curriculum, len(source), model=model, seconds=seconds)
    chosen = choose_batch_size(settled, samples, model, ranks=ranks.size)
    config, notes = chosen.config, list(chosen.reasons)
    if config.prepare == "auto":
        first = make_plan(config, curriculum, len(source), model=model, seconds=seconds)
        shared_out = config.parallel == "fsdp"
        way: Prepare = "cpu"
        if measures(config, device, first, deterministic=config.deterministic, shared_out=shared_out):
            helps = partial(packing_helps, source, config.final_size)
            way, line = choose_prepare(
                config, trainer, curriculum, first, model, source, packing_helps=helps, report=report
            )
            notes.append(line)
        config = replace(config, prepare=way)
        trainer = replace(trainer, loading=replace(trainer.loading, prepare=way))
    replays: int | Mapping[int, int] = 0
    if config.replay == "auto":
        report("measuring how many replayed batches keep the device busy", None, None)
        micro_batch = choose_micro_batch(config, config.batch_size, ranks.size)
        found = choose_replay(trainer, curriculum, model, source, micro_batch, final=config.replay_final)
        # Every rank measures, so that they load the machine as they will in training; the first one's choice counts.
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
    made = make_plan(config, curriculum, len(source), model=model, seconds=seconds)
    plan = with_replay(made, config, replays, gib=spare)
    notes += [note] if (note := steps_note(plan)) else []
    report("looking at the kernels' gradients", None, None)
    if own_model or config.curriculum != papers_curriculum(config.model):
        notes += _kernel_notes(plan, model)
    if config.weights is not None and not config.keep_head and (note := new_head_note(plan, config.optimization)):
        notes.append(note)
    return Settled(config, tuple(notes)), plan


def _kernel_notes(plan: Plan, model: nn.Module) -> list[str]:
    try:
        note = kernel_note(plan, model)
    except (RuntimeError, ValueError, TypeError) as error:
        note = f"could not check the kernels' gradients at {plan.bandwidths[0]} px: {str(error).splitlines()[0]}"
    return [note] if note else []
