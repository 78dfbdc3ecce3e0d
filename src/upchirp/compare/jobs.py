"""The runs of a comparison: their settings, their plans and what they cost, before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from torch import nn

from upchirp.compare.config import CompareConfig
from upchirp.compare.progress import seconds_of
from upchirp.compare.summary import Entry
from upchirp.curriculum import CostTable, Curriculum, Plan
from upchirp.data import Source, open_data
from upchirp.data.sources import Note, warn
from upchirp.training import TrainConfig, check_model, curriculum_for, make_plan, micro_batches, read_metrics, settle
from upchirp.training.engine.task import Classification
from upchirp.training.engine.trainer import Trainer
from upchirp.training.parallel.device import choose_device
from upchirp.training.probing.micro_batch import tried_at_once
from upchirp.training.probing.planning import without_values
from upchirp.training.probing.speed import measure_seconds
from upchirp.training.recipes.groups import Planning, Start
from upchirp.training.run.start import make_model


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to come."""

    entry: Entry
    """Curriculum and budget."""
    seed: int
    """Its seed."""
    plan: Plan
    """What it will execute."""
    seconds: float | None
    """Its training time, if speeds are known: from finished runs in the folder, or measured."""


def estimate(config: CompareConfig, *, measure: bool = False, note: Note = warn) -> list[Job]:
    """All runs with what they cost; nothing is trained.

    Args:
        config: what to compare.
        measure: take the speeds of a few steps at each bandwidth on this machine.
        note: called with each line on the data; by default it is a warning.

    Raises:
        InputError: bad input, as when the comparison is started.
    """
    output = config.training.output
    training = config.training
    check_model(training)
    source, _ = open_data(training.data, training.final_size, val_share=training.val_share, note=note)
    config = settled(config, source)
    training = config.training
    jobs = jobs_of(config, output or Path())
    plans = make_plans([run for _, _, run in jobs], training, source)
    speeds = measured_speeds(output) if output else {}
    if measure:
        sides = sorted({side for plan in plans for side in plan.bandwidths})
        trainer = Trainer.of(training, choose_device(training.device))
        model = make_model(training, len(source.classes), optimization=training.optimization, seed=training.seed)
        speeds |= _speeds_on_this_machine(trainer, training, trainer.place(model), sides, source)
    return [
        Job(entry=entry, seed=seed, plan=plan, seconds=seconds_of(plan, speeds))
        for (entry, seed, _), plan in zip(jobs, plans, strict=True)
    ]


def settled(config: CompareConfig, source: Source) -> CompareConfig:
    """The comparison with what its data decides, which all runs share.

    Raises:
        InputError: a model that cannot be made.
    """
    model = without_values(config.training, len(source.classes), Classification())
    return replace(config, training=settle(config.training, len(source), model).config)


def entries_of(config: CompareConfig) -> list[Entry]:
    """Curricula and budgets, the baseline first."""
    baseline, *others = config.chosen
    return [Entry(baseline, 1.0), *(Entry(name, budget) for name in others for budget in config.budgets)]


def jobs_of(config: CompareConfig, output: Path) -> list[tuple[Entry, int, TrainConfig]]:
    """The runs in their order, seeds outermost."""
    entries = entries_of(config)
    return [(entry, seed, _run_config(config, entry, seed, output)) for seed in config.seeds for entry in entries]


def make_plans(runs: Sequence[Planning], start: Start, source: Source) -> list[Plan]:
    """Every run's plan, so that a mistake in the last one shows before the first is trained.

    Raises:
        InputError: a run that cannot be planned.
    """
    model = without_values(start, len(source.classes), Classification())
    plans = []
    for run in runs:
        plan = make_plan(run, curriculum_for(model, run.curriculum, start.final_size), len(source), model=model)
        micro_batches(run, plan)
        plans.append(plan)
    return plans


def measured_speeds(output: Path) -> dict[int, float]:
    """Images per second by bandwidth, the medians over the logs of the folder's runs."""
    records = [
        record for log in output.glob("*/seed*") for record in read_metrics(log) if record.get("kind") == "train"
    ]
    sides = {int(record["bandwidth"]) for record in records}
    return {
        side: median(record["images_per_second"] for record in records if record["bandwidth"] == side) for side in sides
    }


def _speeds_on_this_machine(
    trainer: Trainer, planning: Planning, model: nn.Module, bandwidths: Sequence[int], source: Source
) -> dict[int, float]:
    usual = curriculum_for(model, "constant", bandwidths[-1])
    (last,) = usual.phases
    phases = tuple(
        replace(last, end=(place + 1) / len(bandwidths), bandwidth=side) for place, side in enumerate(bandwidths)
    )
    every = Curriculum(name="every bandwidth", axis="samples", phases=phases, magnitude=usual.magnitude)
    table: CostTable = measure_seconds(trainer, every, model, source, tried_at_once(planning, every, trainer.device))
    return {side: 1 / table(side) for side in bandwidths}


def _run_config(config: CompareConfig, entry: Entry, seed: int, output: Path) -> TrainConfig:
    training = config.training
    if entry.curriculum == "constant":
        # A baseline has no early stages.
        training = replace(training, early_batch=None, max_batch_size=None)
    return replace(
        training,
        curriculum=entry.curriculum,
        epochs=config.training.epochs * entry.budget,
        seed=seed,
        output=output / entry.name / f"seed{seed}",
    )
