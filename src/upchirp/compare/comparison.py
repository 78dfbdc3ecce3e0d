"""Train several curricula at several budgets, and sum up."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from upchirp.compare.config import CompareConfig
from upchirp.compare.environment import hardware, versions
from upchirp.compare.examples import examples_of
from upchirp.compare.summary import Entry, outcome_of, summarise
from upchirp.data import Source, open_data
from upchirp.data.sources import Note, warn
from upchirp.errors import InputError
from upchirp.models import create_model
from upchirp.training import (
    Observer,
    TrainConfig,
    TrainResult,
    curriculum_for,
    make_plan,
    micro_batches,
    train,
)
from upchirp.training.held_folder import held_folder
from upchirp.training.launcher import world_size
from upchirp.training.run_folder import LOCK

SUMMARY, REPORT = "summary.json", "report.html"


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
    observer: Callable[[str], Observer] | None = None,
    note: Note = warn,
) -> Comparison:
    """Train every curriculum at every budget and seed, one after the other, seeds outermost.

    A comparison that was interrupted goes on with `resume="auto"` in the training settings.

    Args:
        config: what to compare.
        command: the command line, for the record.
        observer: makes an observer for a run from its name.
        note: called with each line on the data; by default it is a warning.

    Raises:
        InputError: bad input, found before the first run where that is possible.
    """
    if world_size() > 1:
        raise InputError("compare trains run after run in one process: start it without torchrun")
    output = config.training.output
    if output is None:
        raise InputError("no output: give a folder for the comparison by --output")
    with held_folder(output, ""):
        return _compare(config, output, command, observer, note)


def _compare(
    config: CompareConfig, output: Path, command: str, observer: Callable[[str], Observer] | None, note: Note
) -> Comparison:
    if config.training.resume is None and any(entry.name != LOCK for entry in output.iterdir()):
        raise InputError(f"{output} is not an empty folder: go on in it by --resume auto, or choose another --output")
    sources = open_data(
        config.training.data, config.training.final_size, val_share=config.training.val_share, note=note
    )
    baseline, *others = config.chosen
    entries = [Entry(baseline, 1.0), *(Entry(name, budget) for name in others for budget in config.budgets)]
    jobs = [(entry, seed, _run_config(config, entry, seed, output)) for seed in config.seeds for entry in entries]
    _check_plans([run for _, _, run in jobs], sources[0])
    results: dict[tuple[Entry, int], TrainResult] = {}
    for entry, seed, run in jobs:
        observers = (observer(f"{entry.name} seed {seed}"),) if observer else ()
        results[entry, seed] = train(run, data=sources, observers=observers)
    outcomes = {entry: [outcome_of(results[entry, seed]) for seed in config.seeds] for entry in entries}
    summary = {
        **_settings(config, command, sources[0]),
        **summarise(outcomes, seeds=config.seeds, root=output),
    }
    (output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    plans = {entry.label: results[entry, config.seeds[0]].plan for entry in entries}
    from upchirp.reports.compare_html import write_report

    write_report(summary, output / REPORT, examples=examples_of(plans, sources[0], config.training))
    return Comparison(output=output, summary=summary)


def _check_plans(runs: Sequence[TrainConfig], source: Source) -> None:
    """Make every run's plan once, so that a mistake in the last one shows before the first is trained."""
    first = runs[0]
    with torch.device("meta"):
        model = create_model(
            first.model, num_classes=len(source.classes), final_size=first.final_size, **first.model_kwargs
        )
    for run in runs:
        plan = make_plan(run, curriculum_for(model, run.curriculum, run.final_size), len(source), model=model)
        micro_batches(run, plan)


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


def _settings(config: CompareConfig, command: str, source: Source) -> dict[str, Any]:
    """What all runs share."""
    training = config.training
    return {
        "model": training.model,
        "model_kwargs": training.model_kwargs,
        "data": training.data,
        "dataset_size": len(source),
        "final_size": training.final_size,
        "batch_size": training.batch_size,
        "recipe": training.recipe,
        "epochs": training.epochs,
        "seeds": list(config.seeds),
        "command": command,
        "hardware": hardware(),
        "versions": versions(),
    }
