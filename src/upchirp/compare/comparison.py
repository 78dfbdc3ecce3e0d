"""Train several curricula at several budgets, and sum up."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upchirp.compare.config import CompareConfig
from upchirp.compare.jobs import entries_of, jobs_of, make_plans, measured_speeds, settled
from upchirp.compare.progress import Pace, Turn
from upchirp.compare.summary import Entry, outcome_of, summarise
from upchirp.data import Source, open_data
from upchirp.data.sources import Note, warn
from upchirp.errors import InputError
from upchirp.files import write_text
from upchirp.machine import hardware, versions
from upchirp.training import (
    Observer,
    TrainResult,
    Working,
    check_model,
    train,
)
from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.config_file import CONFIG, save_config
from upchirp.training.run.examples import examples_of
from upchirp.training.run.held_folder import held_folder
from upchirp.training.run.resumption import go_on_with
from upchirp.training.run.run_folder import LOCK, holds_run, with_absolute_data

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
    observer: Callable[[Turn], Observer] | None = None,
    note: Note = warn,
) -> Comparison:
    """Train every curriculum at every budget and seed, one after the other, seeds outermost.

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
    check_model(config.training)
    sources = open_data(
        config.training.data, config.training.final_size, val_share=config.training.val_share, note=note
    )
    config = settled(config, sources[0])
    entries = entries_of(config)
    jobs = jobs_of(config, output)
    pace = Pace(make_plans([run for _, _, run in jobs], config.training, sources[0]), measured_speeds(output))
    results: dict[tuple[Entry, int], TrainResult] = {}
    save_config(with_absolute_data(config.to_flat()), output / CONFIG)
    go_on = go_on_with(output, job="compare", objects=not command)
    observers: tuple[Observer, ...] = ()
    for number, (entry, seed, run) in enumerate(jobs, 1):
        pace.begin(number)
        turn = Turn(number=number, runs=len(jobs), name=f"{entry.name} seed {seed}", pace=pace)
        observers = (pace, observer(turn)) if observer else ()
        results[entry, seed] = train(run, data=sources, observers=observers, go_on=go_on)
    for told in observers:
        told(Working(what="writing the report of the comparison"))
    outcomes = {entry: [outcome_of(results[entry, seed]) for seed in config.seeds] for entry in entries}
    summary = {
        **_settings(config, command, sources[0]),
        **summarise(outcomes, seeds=config.seeds, root=output),
    }
    write_text(output / SUMMARY, json.dumps(summary, indent=2) + "\n")
    plans = {entry.label: results[entry, config.seeds[0]].plan for entry in entries}
    from upchirp.reports.compare_html import write_report

    examples = examples_of(plans, sources[0], config.training.augmentation, config.training)
    write_report(summary, output / REPORT, examples=examples)
    return Comparison(output=output, summary=summary)


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
