"""The summary of a search, as plain data, and the files that tell of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upchirp.curriculum import Curriculum
from upchirp.files import write_text
from upchirp.machine import hardware, versions
from upchirp.reports.words import figure_name
from upchirp.search.preparation import Prepared
from upchirp.search.trial import Trial

SUMMARY, REPORT = "summary.json", "report.html"

_OF_SEARCH = (
    "algorithm", "objective", "alpha", "halving", "tolerance", "baseline_accuracy", "search_val", "subset", "stages",
    "beta", "epochs", "axis",
)  # fmt: skip
_OF_TRAINING = ("model", "model_kwargs", "data", "final_size", "batch_size", "recipe", "seed", "cost")
"""Settings that are told as they are."""


def summarise(
    prepared: Prepared,
    found: tuple[int, ...],
    curriculum: Curriculum,
    trials: Sequence[Mapping[str, Any]],
    command: str,
) -> dict[str, Any]:
    """The content of `summary.json`."""
    planner = prepared.planner
    config, price = planner.config, planner.price
    training = config.training
    spent = sum(trial["cost"] + trial["tuning_cost"] for trial in trials)
    return {
        **{name: getattr(config, name) for name in _OF_SEARCH},
        **{name: getattr(training, name) for name in _OF_TRAINING},
        "images": len(prepared.train),
        "figure": prepared.task.best,
        "candidates": list(planner.candidates),
        "baseline_epochs": config.baseline,
        "tuning_epochs": config.tuning,
        "relative_cost": {str(side): cost for side, cost in planner.rates.relative.items()},
        "found": list(found),
        "phases": curriculum.to_dict()["phases"],
        "presets": {name: _phases(preset) for name, preset in planner.presets.items()},
        "trials": [{**trial, "parent": _trial(trial).parent} for trial in trials],
        "trainings": len(trials),
        "equivalent_epochs": spent,
        "train_seconds": sum(trial["seconds"] for trial in trials),
        "planned_trainings": price.trainings,
        "planned_equivalent_epochs": price.cost,
        "command": command,
        "hardware": hardware(),
        "versions": versions(),
    }


def provenance(summary: Mapping[str, Any]) -> str:
    """Lines that tell where a curriculum file comes from and how to use it."""
    number = {"sequential": 2, "greedy": 1}[summary["algorithm"]]
    unit = "equivalent epochs" if summary["axis"] == "compute" else "passes over the data"
    name = "accuracy" if summary["figure"] == "top1" else figure_name(summary["figure"])
    best = max((trial["accuracy"] for trial in summary["trials"]), default=float("nan"))
    return (
        f"Found by upchirp {summary['versions']['upchirp']}, Algorithm {number}, objective {summary['objective']}, "
        f"seed {summary['seed']}:\n"
        f"{summary['model']} on {summary['data'] or 'data given from Python'}, {summary['images']} images, "
        f"{summary['epochs']:g} {unit} in {summary['stages']} stages.\n"
        f"Bandwidths of the stages: {', '.join(map(str, summary['found']))} of {summary['final_size']} px, from "
        f"{', '.join(map(str, summary['candidates']))}.\n"
        f"The search took {summary['trainings']} trainings, {summary['equivalent_epochs']:.1f} equivalent epochs; "
        f"best {name} on its held-out images {best:.2f} %.\n"
        f"Use it by: upchirp train --curriculum THIS_FILE --cost {summary['cost']} --epochs {summary['epochs']:g}\n"
        "For another final size or model the bandwidths are scaled and rounded (scales: true)."
    )


def write_summary(summary: Mapping[str, Any], folder: Path, *, report: bool = True) -> None:
    """Write `summary.json` and, by default, `report.html`."""
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    if not report:
        return
    from upchirp.reports.search_html import write_search_report

    write_search_report(summary, folder / REPORT)


def _trial(record: Mapping[str, Any]) -> Trial:
    return Trial(tuple(record["bandwidths"]), record["begin"], record["end"], record["tuning"])


def _phases(curriculum: Curriculum) -> dict[str, Any]:
    content = curriculum.to_dict()
    return {"axis": content["axis"], "phases": content["phases"]}
