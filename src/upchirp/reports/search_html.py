"""The report of a search: one HTML file that needs nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upchirp.files import write_text
from upchirp.reports.page import picture, render
from upchirp.reports.search_figures import (
    accuracy_against_cost,
    found_beside_presets,
    is_chosen,
    run_cost,
    trainings_in_order,
    tree_of_candidates,
)
from upchirp.reports.search_schedules import Schedule, schedules
from upchirp.reports.words import duration_text, hardware_text, score_name


@dataclass(frozen=True, kw_only=True)
class _Use:
    """What one schedule costs to use at the search's budget, as texts."""

    name: str
    sides: str
    equivalent_epochs: str
    passes: str
    relative: str


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One trial, as texts."""

    name: str
    accuracy: str
    loss: str
    cost: str
    run: str
    duration: str
    chosen: bool


def write_search_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write a search as one HTML file with its figures inside; it loads nothing from anywhere.

    Args:
        summary: the content of a search's `summary.json`.
        path: the file to write; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    sequential = summary["algorithm"] == "sequential"
    page = render(
        "search.html.j2",
        summary=summary,
        score=score_name(summary),
        sequential=sequential,
        verdict=search_verdict(summary),
        tree=picture(tree_of_candidates if sequential else trainings_in_order, summary),
        against_cost=picture(accuracy_against_cost, summary),
        beside_presets=picture(found_beside_presets, summary),
        uses=_uses(summary),
        lines=_lines(summary),
        duration=duration_text(summary["train_seconds"]),
        objective=_OBJECTIVES[summary["objective"]].format(alpha=summary["alpha"]),
        hardware=hardware_text(summary["hardware"]),
    )
    write_text(path, page)


_OBJECTIVES = {
    "accuracy": "the highest accuracy, all stages having the same compute",
    "error_time": "the least (1 - accuracy) x cost^{alpha:g}, all stages having the same number of steps",
    "loss_time": "the least training loss x cost^{alpha:g}, all stages having the same number of steps",
}


def search_verdict(summary: Mapping[str, Any]) -> str:
    """What was found and at what cost, in one sentence."""
    found = schedules(summary)[0]
    sides = ", then ".join(f"{side} px for {100 * share:.0f} %" for side, share in found.shares)
    times = summary["equivalent_epochs"] / _budget(summary, found)
    return (
        f"Found {sides} of the compute, by {summary['trainings']} trainings that took "
        f"{summary['equivalent_epochs']:.1f} equivalent epochs, {times:.1f} times as many as one training by it has."
    )


def _uses(summary: Mapping[str, Any]) -> list[_Use]:
    """Every schedule at the compute that the found one has."""
    found, *presets = schedules(summary)
    budget = _budget(summary, found)
    return [
        _Use(
            name=each.name,
            sides=", ".join(f"{side}\u00a0px {100 * share:.0f}\u00a0%" for side, share in each.shares),
            equivalent_epochs=f"{budget:.2f}",
            passes=f"{each.passes(budget):.2f}",
            relative=f"{budget / summary['baseline_epochs']:.2f}",
        )
        for each in (found, *presets)
    ]


def _budget(summary: Mapping[str, Any], found: Schedule) -> float:
    """Equivalent epochs of one training by the found schedule; on the axis of samples the budget counts real passes."""
    return float(summary["epochs"] * (1.0 if summary["axis"] == "compute" else found.cost_per_image))


def _lines(summary: Mapping[str, Any]) -> list[_Line]:
    named = {trial["name"]: trial for trial in summary["trials"]}
    return [
        _Line(
            name=trial["name"],
            accuracy=f"{trial['accuracy']:.2f}" if trial["loss"] is not None else "diverged",
            loss=f"{trial['loss']:.4f}" if trial["loss"] is not None else "–",
            cost=f"{trial['cost']:.2f} + {trial['tuning_cost']:.2f}",
            run=f"{run_cost(trial, named):.2f}",
            duration=duration_text(trial["seconds"]),
            chosen=is_chosen(trial, summary),
        )
        for trial in summary["trials"]
    ]
