"""The price of a training before it runs: its plan beside training as usual, and time and memory here."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from upchirp.curriculum import CostTable, Curriculum, Plan
from upchirp.data import Source
from upchirp.data.sources import Note
from upchirp.errors import InputError
from upchirp.models import flops_table
from upchirp.training.assets.data import enlarged_note, open_named_data
from upchirp.training.assets.models import make_model, without_values
from upchirp.training.engine.task import Task
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Report, unreported
from upchirp.training.methods.chosen import for_images, model_notes, task_of
from upchirp.training.parallel.device import choose_device, numerics
from upchirp.training.probing.micro_batch import micro_batches, tried_at_once
from upchirp.training.probing.plan_notes import plan_notes
from upchirp.training.probing.planning import curriculum_for, described, make_plan, settle
from upchirp.training.probing.probe import Bench
from upchirp.training.probing.speed import measure_needs, measure_seconds
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.defaults import Settled, check_model, choose_recipe
from upchirp.training.recipes.evaluations import choose_evaluations
from upchirp.training.recipes.unused import unused_settings
from upchirp.training.run.plans import Plans


def estimate(
    config: TrainConfig,
    *,
    dataset_size: int | None = None,
    num_classes: int | None = None,
    baseline_epochs: float | None = None,
    measure: bool = False,
    report: Report = unreported,
) -> dict[str, Any]:
    """The priced plan of a training as plain data.

    Args:
        config: the training. Its images are counted if it names data.
        dataset_size: training images where it names none; by default the regime's.
        num_classes: classes where it names no data; by default the regime's.
        baseline_epochs: passes at the final size that the computation speed-up is against; by default the paper's for
            the paper's budget on its own data, else the same budget as the plan's.
        measure: train a few steps at each bandwidth, for time and memory on this machine.
        report: told what is being done and how far it is.

    Returns:
        The plan's own data with each stage's `micro_batch` on one device, and `images`, `classes`, `chosen` (a line
        for each setting that the data decided, and each thing to know of the plan), `params`, `flops`,
        `baseline_epochs`, `speedup`, with selection `selection`, and measured `needs`.

    Raises:
        InputError: bad input, or settings that need the machine's speed without `measure`.
    """
    check_model(config, labelled=config.facts.labelled)
    _check(config, dataset_size, num_classes, baseline_epochs, measure=measure)
    subject = _subject(config, dataset_size, num_classes, report)
    model = without_values(subject.config, subject.classes, subject.task)
    planned = _measured(subject, report) if measure else _planned(subject, model)
    settled, plan = planned.config, planned.plan
    if baseline_epochs is None:
        papers = subject.source is None and dataset_size is None
        baseline_epochs = config.facts.baseline_epochs if papers else plan.equivalent_epochs
    data = described(plan, model, settled.selection, epochs=settled.budget)
    at_once = micro_batches(settled, plan)
    for stage in data["stages"]:
        stage["micro_batch"] = at_once[stage["bandwidth"]]
    idle = [] if config.given is None else unused_settings(settled.to_flat(), config.asked())
    return {
        **data,
        "baseline_epochs": baseline_epochs,
        # In counted FLOPs, as Table 7 has it.
        "speedup": plan.speedup(baseline_epochs, CostTable("flops", flops_table(model, plan.sizes))),
        "images": subject.images,
        "classes": subject.classes,
        "chosen": [
            *subject.notes,
            *model_notes(subject.config, model),
            *planned.notes,
            *_evaluations_told(settled, plan, subject.val),
            *idle,
        ],
        **planned.needs,
    }


def settings_for_data(config: TrainConfig, *, report: Report = unreported) -> TrainConfig:
    """The settings of a training with those chosen that its images decide, as `train` would choose them.

    What only this machine's speed decides, under a time budget, stays as the recipe has it.

    Raises:
        InputError: no model, or data that cannot be read.
    """
    check_model(config, labelled=config.facts.labelled)
    config, task, source, val = _with_images(config, lambda line: None, report)
    chosen = choose_recipe(config, len(source)).config
    if chosen.time_budget is not None:
        return chosen
    model = without_values(config, len(source.classes), task)
    chosen = settle(config, len(source), model).config
    plan = _plan_of(chosen, len(source), model)
    evaluations, _ = choose_evaluations(chosen, plan, len(val), average=chosen.optimization.model_ema)
    return replace(chosen, evaluations=evaluations)


def seconds_here(
    config: TrainConfig,
    source: Source,
    bandwidths: Sequence[int],
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    report: Report = unreported,
) -> CostTable:
    """Seconds of training for one image at each bandwidth on this machine, whatever the curriculum is.

    Args:
        config: the training.
        source: its images.
        bandwidths: the sides, pixels; the largest is the final size.
        task: what the model is trained to do; by default what the settings say.
        model: what is trained, which stays as it is; by default the model that the settings name.
        report: told how far measuring is.
    """
    device = choose_device(config.device)
    task = for_images(task or task_of(config), config, [source])
    with numerics(device, deterministic=config.deterministic):
        trainer = Trainer.of(config, device, task=task)
        made = make_model(config, len(source.classes), task) if model is None else copy.deepcopy(model)
        placed = trainer.place(made)
        sides = sorted(bandwidths)
        usual = curriculum_for(placed, "constant", sides[-1])
        (last,) = usual.phases
        phases = [replace(last, end=(at + 1) / len(sides), bandwidth=side) for at, side in enumerate(sides)]
        every = Curriculum(name="every bandwidth", axis="samples", phases=tuple(phases), magnitude=usual.magnitude)
        bench = Bench(trainer=trainer, curriculum=every, model=placed, source=source)
        return measure_seconds(bench, tried_at_once(config, bench), report=report)


def _with_images(config: TrainConfig, note: Note, report: Report) -> tuple[TrainConfig, Task, Source, Source]:
    """The images that the settings name, training and validation, and settings and task as these ask for."""
    task = task_of(config)
    source, val = open_named_data(config, note, report, labelled=task.labelled)
    config, told = config.with_channels_of(source)
    for line in told:
        note(line)
    return config, for_images(task, config, [source]), source, val


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What a training is of: its images, or what stands for data that are not at hand."""

    config: TrainConfig
    """The settings, as the images ask for."""
    task: Task
    source: Source | None = None
    val: Source | None = None
    images: int
    """To train on."""
    classes: int
    """0 where labels play no part."""
    notes: Sequence[str] = ()
    """A line for each thing to know of the images."""


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A plan, and how it came about."""

    config: TrainConfig
    """The settings, none of them open."""
    plan: Plan
    notes: Sequence[str]
    """A line for each choice, and for each thing to know of the plan."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What was measured."""


def _subject(config: TrainConfig, dataset_size: int | None, num_classes: int | None, report: Report) -> _Subject:
    """The images that the settings name, counted; without data the numbers that were given, or the regime's."""
    if config.data:
        notes: list[str] = []
        config, task, source, val = _with_images(config, notes.append, report)
        notes += enlarged_note(config, source)
        classes = len(source.classes) if task.labelled else 0
        return _Subject(
            config=config, task=task, source=source, val=val, images=len(source), classes=classes, notes=notes
        )
    task, regime = task_of(config), config.facts
    images = regime.dataset_size if dataset_size is None else dataset_size
    classes = regime.num_classes if num_classes is None else num_classes
    return _Subject(config=config, task=task, images=images, classes=classes if task.labelled else 0)


def _planned(subject: _Subject, model: nn.Module) -> _Planned:
    """The plan where nothing is measured."""
    settled = settle(subject.config, subject.images, model)
    plan = _plan_of(settled.config, subject.images, model)
    return _Planned(config=settled.config, plan=plan, notes=[*settled.told(plan), *plan_notes(plan, settled.config)])


def _plan_of(config: TrainConfig, images: int, model: nn.Module) -> Plan:
    return make_plan(config, curriculum_for(model, config.curriculum, config.final_size), images, model=model)


def _evaluations_told(config: TrainConfig, plan: Plan, val: Source | None) -> list[str]:
    """A line on the number of evaluations, if there is anything to tell of it."""
    if val is None:
        return []
    _, told = choose_evaluations(config, plan, len(val), average=config.optimization.model_ema)
    return [told] if told else []


def _check(
    config: TrainConfig,
    dataset_size: int | None,
    num_classes: int | None,
    baseline_epochs: float | None,
    *,
    measure: bool,
) -> None:
    if baseline_epochs is not None and not baseline_epochs > 0:
        raise InputError(f"baseline epochs are {baseline_epochs}: they must be more than 0")
    for name, count in (("dataset size", dataset_size), ("number of classes", num_classes)):
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}: it must be 1 or more")
        if count is not None and config.data:
            raise InputError(f"the {name} is counted in {config.data}: leave it out, or leave out `data`")
    if measure and not config.data:
        raise InputError("`measure` trains a few steps: give the images by `data`")
    if config.replay == "auto" and not measure:
        raise InputError("`replay='auto'` needs the machine's speed: add `measure`, or give `replay` a number")
    if config.time_budget is not None and not measure:
        raise InputError("`time_budget` needs the machine's speed: add `measure`, or give `epochs` in its place")


def _measured(subject: _Subject, report: Report) -> _Planned:
    """The plan that `train` would make on this machine, and what it needs there."""
    assert subject.source is not None  # `_check` has seen to it
    source, task = subject.source, subject.task
    first = choose_recipe(subject.config, len(source))
    device = choose_device(first.config.device)

    def made_for(settled: Settled) -> tuple[Trainer, nn.Module]:
        config = settled.config
        trainer = Trainer.of(config, device, task=task)
        return trainer, trainer.place(make_model(config, len(source.classes), task))

    with numerics(device, deterministic=first.config.deterministic):
        trainer, model = made_for(first)
        plans = Plans(source=source, made_for=made_for, own_model=False, report=report)
        settled, plan, model = plans.in_time(first, trainer, model)
        config = settled.config
        trainer = Trainer.of(config, device, task=task)
        curriculum = curriculum_for(model, config.curriculum, config.final_size)
        replays = {stage.bandwidth: stage.replay.batches for stage in plan.stages}
        bench = Bench(trainer=trainer, curriculum=curriculum, model=model, source=source)
        table = measure_seconds(bench, tried_at_once(config, bench), replays, replaying=config, report=report)
        needs = measure_needs(plan, table, device)
    measured = {"device": str(device), "needs": asdict(needs)}
    return _Planned(config=config, plan=plan, notes=settled.told(plan), needs=measured)
