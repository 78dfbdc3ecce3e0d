"""A comparison from settings to its summary: several variants trained at several budgets."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upchirp.compare.config import CompareConfig
from upchirp.compare.jobs import Job, jobs_of, measured_speeds
from upchirp.compare.outcomes import Entry, Outcome, outcome_of
from upchirp.compare.progress import Pace, Turn
from upchirp.compare.settling import Sources
from upchirp.compare.summary import summarise
from upchirp.data.sources import Note, warn
from upchirp.errors import InputError
from upchirp.files import write_text
from upchirp.machine import hardware, versions
from upchirp.reports.examples import Examples
from upchirp.training import Observer, Working, train
from upchirp.training.assets.examples import examples_of
from upchirp.training.folders.held_folder import held_folder
from upchirp.training.folders.interruption import at_once
from upchirp.training.folders.resumption import go_on_with
from upchirp.training.folders.run_folder import LOCK, holds_run, with_absolute_data
from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.config_file import CONFIG, save_config
from upchirp.training.recipes.group import names_of
from upchirp.training.recipes.run_groups import Keeping, Place

SUMMARY, REPORT = "summary.json", "report.html"

_NO_MATTER_OF_SPEED = names_of(Place, Keeping) | {
    "curriculum", "epochs", "seed", "batch_size", "early_batch", "max_batch_size", "replay", "data", "val_share",
    "weights", "lr", "lr_base", "lr_base_size", "lr_base_scale", "lr_cap", "warmup", "warmup_lr", "min_lr",
    "sched", "sched_decay", "more_data",
    "weight_decay", "opt_betas", "opt_eps", "momentum", "layer_decay", "drop_path", "drop_path_scaling", "smoothing",
}  # fmt: skip
"""Settings that images per second at one size, batch and share of replayed batches do not depend on."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of it."""

    output: Path
    """Folder with the run folders, `summary.json` and `report.html`."""
    summary: dict[str, Any]
    """The content of `summary.json`."""


def compare(
    config: CompareConfig,
    *,
    command: str = "",
    observer: Callable[[Turn], Observer] | None = None,
    note: Note = warn,
) -> Comparison:
    """Train every variant at every budget and seed, one after the other, seeds outermost.

    A comparison that was interrupted goes on with `resume="auto"` in the training settings.

    Args:
        config: what to compare.
        command: the command line, for the record.
        observer: makes an observer for each run when its turn comes.
        note: called with each line on the data; by default it is a warning.

    Raises:
        InputError: bad input, found before the first run where that is possible.
    """
    if world_size() > 1:
        raise InputError("compare trains run after run in one process: start it without torchrun")
    output = config.training.output
    if output is None:
        raise InputError("no output: give a folder for the comparison by `output`")
    with held_folder(output, ""):
        return _compare(config, output, command, observer, note)


def _compare(
    config: CompareConfig, output: Path, command: str, observer: Callable[[Turn], Observer] | None, note: Note
) -> Comparison:
    if config.training.resume is None and any(entry.name != LOCK for entry in output.iterdir()):
        raise InputError(f"{output} is not an empty folder: go on in it by `resume='auto'`, or choose another `output`")
    if holds_run(output):
        config.stored(output)  # checks that it is a comparison's
    jobs = jobs_of(config, output, Sources(note=note))
    done = [job.steps_done() for job in jobs]
    pace = Pace([(job.config.model, job.plan) for job in jobs], measured_speeds(output), done)
    outcomes: dict[Entry, list[Outcome]] = {job.entry: [] for job in jobs}
    save_config(with_absolute_data(config.asked()), output / CONFIG)
    go_on = go_on_with(output, job="compare", objects=not command)
    with at_once(output, go_on):
        observers: tuple[Observer, ...] = ()
        for number, job in enumerate(jobs, 1):
            pace.begin(number)
            turn = Turn(number=number, runs=len(jobs), name=f"{job.entry.name} seed {job.seed}", pace=pace)
            observers = (pace, observer(turn)) if observer else ()
            # Of the same seed: it was trained before.
            before = None if job.after is None else outcomes[job.after][-1]
            run = job.config if before is None else job.on_weights_of(before.folder)
            result = train(run, data=job.sources, observers=observers, go_on=go_on)
            outcomes[job.entry].append(
                outcome_of(result, compute=job.compute, computes=_computes(job.config.to_flat()), before=before)
            )
        for told in observers:
            told(Working(what="writing the report of the comparison"))
        summary = {**_settings(config, command, jobs), **summarise(outcomes, seeds=config.seeds, root=output)}
        write_text(output / SUMMARY, json.dumps(summary, indent=2) + "\n")
        from upchirp.reports.compare_html import write_report

        write_report(summary, output / REPORT, examples=_examples(jobs))
        return Comparison(output=output, summary=summary)


def _computes(settings: Mapping[str, Any]) -> str:
    """The settings that images per second depend on beside what the plan says."""
    kept = {name: value for name, value in settings.items() if name not in _NO_MATTER_OF_SPEED}
    return json.dumps(kept, sort_keys=True)


def _examples(jobs: Sequence[Job]) -> list[Examples]:
    """What the model sees in each stage, once for variants that show the same."""
    shown: dict[str, Job] = {}
    for job in jobs:
        phases = [
            (stage.bandwidth, stage.progress, stage.magnitude, stage.radius, stage.operator)
            for stage in job.plan.stages
        ]
        seen = (phases, job.config.augmentation, job.config.mode, job.config.low_frequency, job.config.data)
        shown.setdefault(repr(seen), job)
    named: dict[str, Job] = {}
    for job in shown.values():
        named.setdefault(job.entry.variant, job)
    return [
        examples_of(name, job.plan, job.sources[0], job.config.augmentation, job.config) for name, job in named.items()
    ]


def _settings(config: CompareConfig, command: str, jobs: Sequence[Job]) -> dict[str, Any]:
    """What all runs share, or else what the baseline has, and what each variant changes."""
    training = jobs[0].config
    return {
        "model": training.model,
        "model_kwargs": training.model_kwargs,
        "data": training.data,
        "dataset_size": len(jobs[0].sources[0]),
        "final_size": training.final_size,
        "batch_size": training.batch_size,
        "recipe": training.recipe,
        "epochs": training.epochs / jobs[0].entry.budget,
        "equal_cost": config.equal_cost,
        "seeds": list(config.seeds),
        "variants": [variant.to_dict() for variant in config.chosen],
        "command": command,
        "hardware": hardware(),
        "versions": versions(),
    }
