"""Train several curricula at several budgets, and sum up."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from upchirp.compare.config import CompareConfig
from upchirp.compare.environment import hardware, versions
from upchirp.compare.equal_accuracy import Point, Speedup, speedup_at_equal_accuracy
from upchirp.compare.examples import examples_of
from upchirp.data import Source, open_data
from upchirp.errors import InputError
from upchirp.models import create_model
from upchirp.reports import write_report
from upchirp.training import (
    Observer,
    TrainConfig,
    TrainResult,
    curriculum_for,
    make_plan,
    micro_batches,
    read_metrics,
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


@dataclass(frozen=True)
class _Entry:
    """One curriculum at one budget."""

    curriculum: str
    budget: float

    @property
    def name(self) -> str:
        return f"{self.label}-{self.budget:g}"

    @property
    def label(self) -> str:
        return Path(self.curriculum).stem


def compare(
    config: CompareConfig, *, command: str = "", observer: Callable[[str], Observer] | None = None
) -> Comparison:
    """Train every curriculum at every budget and seed, one after the other, seeds outermost.

    A comparison that was interrupted goes on with `resume="auto"` in the training settings.

    Args:
        config: what to compare.
        command: the command line, for the record.
        observer: makes an observer for a run from its name.

    Raises:
        InputError: bad input, found before the first run where that is possible.
    """
    if world_size() > 1:
        raise InputError("compare trains run after run in one process: start it without torchrun")
    output = config.training.output
    if output is None:
        raise InputError("no output: give a folder for the comparison by --output")
    with held_folder(output, ""):
        return _compare(config, output, command, observer)


def _compare(
    config: CompareConfig, output: Path, command: str, observer: Callable[[str], Observer] | None
) -> Comparison:
    if config.training.resume is None and any(entry.name != LOCK for entry in output.iterdir()):
        raise InputError(f"{output} is not an empty folder: go on in it by --resume auto, or choose another --output")
    sources = open_data(config.training.data, config.training.final_size)
    baseline, *others = config.chosen
    entries = [_Entry(baseline, 1.0), *(_Entry(name, budget) for name in others for budget in config.budgets)]
    jobs = [(entry, seed, _run_config(config, entry, seed, output)) for seed in config.seeds for entry in entries]
    _check_plans([run for _, _, run in jobs], sources[0])
    results: dict[tuple[_Entry, int], TrainResult] = {}
    for entry, seed, run in jobs:
        observers = (observer(f"{entry.name} seed {seed}"),) if observer else ()
        results[entry, seed] = train(run, data=sources, observers=observers)
    summary = _summarise(config, entries, results, command, sources[0])
    (output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    plans = {entry.label: results[entry, config.seeds[0]].plan for entry in entries}
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


def _run_config(config: CompareConfig, entry: _Entry, seed: int, output: Path) -> TrainConfig:
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


def _summarise(
    config: CompareConfig,
    entries: Sequence[_Entry],
    results: dict[tuple[_Entry, int], TrainResult],
    command: str,
    source: Source,
) -> dict[str, Any]:
    runs = [_entry_summary(entry, [results[entry, seed] for seed in config.seeds], config) for entry in entries]
    speedups = _speedups(runs)
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
        "runs": runs,
        "speedup_at_equal_accuracy": next(iter(speedups.values())).ratio,
        "speedups": {name: speedup.to_dict() for name, speedup in speedups.items()},
    }


def _entry_summary(entry: _Entry, results: Sequence[TrainResult], config: CompareConfig) -> dict[str, Any]:
    assert config.training.output is not None
    logs = [read_metrics(result.output) for result in results]
    training = [[record for record in log if record["kind"] == "train"] for log in logs]
    return {
        "curriculum": entry.label,
        "budget": entry.budget,
        "equivalent_epochs": results[0].plan.equivalent_epochs,
        "accuracy": [result.top1 for result in results],
        "train_seconds": [result.train_seconds for result in results],
        "wait_share": [_wait_share(records) for records in training],
        "images_per_second": _speeds([record for records in training for record in records]),
        "folders": [str(result.output.relative_to(config.training.output)) for result in results],
        "plan": results[0].plan.to_dict(),
        "history": [[_history(record) for record in log if record["kind"] == "evaluation"] for log in logs],
    }


def _history(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("train_seconds", "progress", "bandwidth", "weights", "top1", "loss")}


def _speeds(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median images per second by bandwidth."""
    sides = sorted({record["bandwidth"] for record in records})
    medians: dict[str, float] = {}
    for side in sides:
        speeds = sorted(record["images_per_second"] for record in records if record["bandwidth"] == side)
        medians[str(side)] = speeds[len(speeds) // 2]
    return medians


def _speedups(runs: Sequence[dict[str, Any]]) -> dict[str, Speedup]:
    points = [(run["curriculum"], Point(fmean(run["train_seconds"]), fmean(run["accuracy"]))) for run in runs]
    (_, baseline), *rest = points
    names = list(dict.fromkeys(name for name, _ in rest))
    return {
        name: speedup_at_equal_accuracy(baseline, [point for other, point in rest if other == name]) for name in names
    }


def _wait_share(records: Sequence[dict[str, Any]]) -> float:
    """Share of a run's training time spent waiting for data, from the shares of its log lines.

    >>> _wait_share([{"train_seconds": 10.0, "wait_share": 0.5}, {"train_seconds": 100.0, "wait_share": 0.0}])
    0.05
    """
    ends = [record["train_seconds"] for record in records]
    seconds = [end - begin for begin, end in pairwise([0.0, *ends])]
    waited = sum(share * length for share, length in zip((r["wait_share"] for r in records), seconds, strict=True))
    return waited / ends[-1] if ends and ends[-1] > 0 else 0.0
