"""The report of a comparison: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from upchirp.files import write_text
from upchirp.reports.examples import Examples
from upchirp.reports.figures import accuracy_against_time, accuracy_during_training, stages_on_a_time_line
from upchirp.reports.page import picture, render, strip_rows
from upchirp.reports.verdict import difference_text, remark, verdict
from upchirp.reports.words import SPENT, budget_text, duration_text, hardware_text, spent_name

_MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One curriculum at one budget, as texts for the table of numbers."""

    curriculum: str
    budget: str
    equivalent_epochs: str
    top1: str
    top1_range: str
    difference: str
    seconds: str
    duration: str
    relative_time: str
    relative_compute: str
    time_for_compute: str
    speeds: tuple[str, ...]
    spent: tuple[str, ...]
    """Seconds of each of `SPENT`."""


@dataclass(frozen=True, kw_only=True)
class _Seed:
    """One run of one seed, as texts."""

    curriculum: str
    budget: str
    seed: int
    top1: str
    seconds: str
    waiting: str
    folder: str


def write_report(summary: Mapping[str, Any], path: Path, *, examples: Sequence[Examples] = ()) -> None:
    """Write a comparison as one HTML file with its figures inside; it loads nothing from anywhere.

    Args:
        summary: the content of `summary.json`, as `upchirp.compare` makes it; its first run is the baseline.
        path: the file to write; its folder must exist.
        examples: what the model sees in each stage, for each curriculum.

    Raises:
        InputError: a run whose `plan` is none.
        OSError: the file cannot be written.
    """
    final_size = summary["final_size"]
    has_history = any(history for run in summary["runs"] for history in run.get("history", ()))
    page = render(
        "compare.html.j2",
        summary=summary,
        seeds=len(summary["seeds"]),
        curricula=list(dict.fromkeys(run["curriculum"] for run in summary["runs"])),
        verdict=verdict(summary),
        remark=remark(summary),
        bandwidths=_bandwidths(summary),
        lines=_lines(summary),
        spent=[spent_name(name) for name in SPENT],
        runs=_seeds(summary),
        against_time=picture(accuracy_against_time, summary),
        during_training=picture(accuracy_during_training, summary) if has_history else None,
        time_line=picture(stages_on_a_time_line, summary),
        examples=[(each.label, strip_rows(each, final_size)) for each in examples],
        costs=sorted({run["plan"]["cost"] for run in summary["runs"]}),
        hardware=hardware_text(summary["hardware"]),
    )
    write_text(path, page)


def _lines(summary: Mapping[str, Any]) -> list[_Line]:
    baseline_seconds = fmean(summary["runs"][0]["train_seconds"])
    baseline_epochs = summary["runs"][0]["equivalent_epochs"]
    lines = []
    for run in summary["runs"]:
        accuracy, seconds = run["accuracy"], fmean(run["train_seconds"])
        time, compute = seconds / baseline_seconds, run["equivalent_epochs"] / baseline_epochs
        spent = [each for each in run.get("spent", ()) if each]
        speeds = run.get("images_per_second", {})
        lines.append(
            _Line(
                curriculum=run["curriculum"],
                budget=budget_text(run["budget"]),
                equivalent_epochs=f"{run['equivalent_epochs']:.2f}",
                top1=f"{fmean(accuracy):.2f}",
                top1_range=f"{min(accuracy):.2f} to {max(accuracy):.2f}" if len(accuracy) > 1 else "",
                difference=difference_text(run["difference"]) if run["difference"] else "",
                seconds=f"{seconds:,.1f}",
                duration=duration_text(seconds),
                relative_time=f"{time:.2f}",
                relative_compute=f"{compute:.2f}",
                time_for_compute=f"{time / compute:.2f}",
                speeds=tuple(_number(speeds.get(str(side))) for side in _bandwidths(summary)),
                spent=tuple(f"{fmean(each.get(name, 0.0) for each in spent):,.1f}" for name in SPENT) if spent else (),
            )
        )
    return lines


def _seeds(summary: Mapping[str, Any]) -> list[_Seed]:
    return [
        _Seed(
            curriculum=run["curriculum"],
            budget=budget_text(run["budget"]),
            seed=seed,
            top1=f"{run['accuracy'][place]:.2f}",
            seconds=f"{run['train_seconds'][place]:,.1f}",
            waiting=f"{100 * waits[place]:.1f}" if place < len(waits := run.get("wait_share", ())) else _MISSING,
            folder=folders[place] if place < len(folders := run.get("folders", ())) else _MISSING,
        )
        for run in summary["runs"]
        for place, seed in enumerate(summary["seeds"])
    ]


def _bandwidths(summary: Mapping[str, Any]) -> list[int]:
    """The bandwidths with a measured speed, in rising order."""
    return sorted({int(side) for run in summary["runs"] for side in run.get("images_per_second", {})})


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:,.0f}"
