"""The report of a comparison: one HTML file that needs nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import fmean
from typing import Any

from upchirp.files import write_text
from upchirp.reports.accuracy_figures import accuracy_against_compute, accuracy_against_time
from upchirp.reports.compare_figures import (
    accuracy_during_training,
    stages_on_a_time_line,
)
from upchirp.reports.examples import Examples
from upchirp.reports.page import picture, render, strip_rows
from upchirp.reports.verdict import difference_text, remark, verdict
from upchirp.reports.words import (
    SPENT,
    budget_text,
    counted,
    counted_seconds,
    duration_text,
    hardware_text,
    listed,
    score_name,
    speed_text,
    spent_name,
)

_MISSING = "–"
_MOST_BANDWIDTHS = 5
"""In the table of numbers, which has to fit a page."""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One variant at one budget, as texts for the table of numbers."""

    variant: str
    budget: str
    equivalent_epochs: str
    top1: str
    margin: str
    top1_range: str
    difference: str
    seconds: str
    duration: str
    """The same in words, from a minute on; or that no time counts."""
    of_times: str
    """Of how many seeds, if times of others were disturbed."""
    relative_time: str
    relative_compute: str
    time_for_compute: str
    speeds: tuple[str, ...]
    spent: tuple[str, ...]
    """Seconds of each of `SPENT`."""
    loaded: tuple[str, ...]
    """Images prepared and megabytes given to the device in a second, in the stage with the most."""


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A ratio at equal accuracy, as texts."""

    variant: str
    accuracy: str
    at: str
    """Whose measured accuracy it is."""
    compute: str
    time: str


@dataclass(frozen=True, kw_only=True)
class _Seed:
    """One run of one seed, as texts."""

    variant: str
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
        examples: what the model sees in each stage, for each variant.

    Raises:
        InputError: a run whose `plan` is none.
        OSError: the file cannot be written.
    """
    # A variant may be trained or tuned at a larger size than the baseline.
    largest = max([summary["final_size"], *(row.bandwidth for each in examples for row in each.rows)])
    has_history = any(history for run in summary["runs"] for history in counted(run, run.get("history", ())))
    page = render(
        "compare.html.j2",
        summary=summary,
        score=score_name(summary),
        seeds=len(summary["seeds"]),
        variants=list(dict.fromkeys(run["name"] for run in summary["runs"])),
        changes=_changes(summary),
        readings=_readings(summary),
        verdict=verdict(summary),
        title=_title(summary),
        remark=remark(summary),
        bandwidths=_bandwidths(summary),
        lines=_lines(summary),
        spent=[spent_name(name) for name in SPENT],
        runs=_seeds(summary),
        against_compute=picture(accuracy_against_compute, summary),
        disturbed=not all(all(run.get("times_count", ())) for run in summary["runs"]),
        against_time=picture(accuracy_against_time, summary) if any(map(counted_seconds, summary["runs"])) else None,
        during_training=picture(accuracy_during_training, summary) if has_history else None,
        time_line=picture(stages_on_a_time_line, summary),
        examples=[(each.label, strip_rows(each, largest)) for each in examples],
        costs=sorted({run["plan"]["cost"] for run in summary["runs"]}),
        hardware=hardware_text(summary["hardware"]),
    )
    write_text(path, page)


def _lines(summary: Mapping[str, Any]) -> list[_Line]:
    usual = counted_seconds(summary["runs"][0])
    lines = []
    for run in summary["runs"]:
        accuracy, times = run["accuracy"], counted_seconds(run)
        seconds = fmean(times) if times else None
        time = fmean(times) / fmean(usual) if times and usual else None
        compute = run["relative_compute"]
        spent = [each for each in run.get("spent", ()) if each]
        speeds = run.get("images_per_second", {})
        in_words = "disturbed" if seconds is None else duration_text(seconds)
        lines.append(
            _Line(
                variant=run["name"],
                budget=budget_text(run["budget"]),
                equivalent_epochs=f"{run['equivalent_epochs']:.2f}",
                top1=f"{fmean(accuracy):.2f}",
                margin=f"± {run['mean']['margin']:.2f}",
                top1_range=f"{min(accuracy):.2f} to {max(accuracy):.2f}" if len(accuracy) > 1 else "",
                difference=difference_text(run["difference"]) if run["difference"] else "",
                seconds=_MISSING if seconds is None else f"{seconds:,.1f}",
                duration="" if seconds is not None and in_words == f"{seconds:.1f} s" else in_words,
                of_times="" if len(times) in (0, len(accuracy)) else f"{len(times)} of {len(accuracy)} seeds",
                relative_time=_MISSING if time is None else f"{time:.2f}",
                relative_compute=f"{compute:.2f}",
                time_for_compute=_MISSING if time is None else f"{time / compute:.2f}",
                speeds=tuple(_number(speeds.get(str(side))) for side in _bandwidths(summary)),
                spent=tuple(f"{fmean(each.get(name, 0.0) for each in spent):,.1f}" for name in SPENT) if spent else (),
                loaded=_loaded(run),
            )
        )
    return lines


def _loaded(run: Mapping[str, Any]) -> tuple[str, str]:
    """The peak of what loaders delivered, mean over the seeds (Tables 14 and 20)."""
    peaks = []
    for name in ("prepared_per_second", "megabytes_per_second"):
        of_seeds = [max((stage[name] for stage in own if stage), default=None) for own in run.get("loaded", ())]
        known = [peak for peak in of_seeds if peak is not None]
        peaks.append(fmean(known) if known else None)
    images, megabytes = peaks
    return _number(images), _MISSING if megabytes is None else f"{megabytes:,.1f}"


def _title(summary: Mapping[str, Any]) -> str:
    usual, *variants = dict.fromkeys(run["name"] for run in summary["runs"])
    return f"{listed(variants)} against {usual}" if variants else usual


def _changes(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each variant changes, if that is more than its name says."""
    listed = []
    for variant in summary["variants"]:
        settings = {name: value for name, value in variant.items() if name not in ("name", "budgets")}
        listed.append((variant["name"], ", ".join(f"{name}: {_setting(value)}" for name, value in settings.items())))
    return listed if any(settings != f"curriculum: {name}" for name, settings in listed) else []


def _setting(value: Any) -> str:
    """A setting as a line of text; of a curriculum its phases."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_setting, value))
    return str(value)


def _readings(summary: Mapping[str, Any]) -> list[_Reading]:
    return [
        _Reading(
            variant=name,
            accuracy=f"{reading['accuracy']:.2f}",
            at=f"{reading['name']}, budget {budget_text(reading['budget'])}",
            compute=_ratio(reading["compute"]),
            time=_ratio(reading["time"]),
        )
        for name, own in summary["equal_accuracy"].items()
        for reading in own
    ]


def _ratio(speedup: Mapping[str, Any] | None) -> str:
    """A ratio with its interval, or why there is none."""
    if speedup is None:
        return _MISSING
    if speedup["ratio"] is None:
        return str(speedup["kind"])
    if speedup["kind"] == "at least":
        return f"≥ {speedup['ratio']:.2f}×"
    low, high = (f"{speedup[key]:.2f}" if speedup[key] is not None else "?" for key in ("low", "high"))
    return f"{speedup['ratio']:.2f}× ({low} to {high})"


def _seeds(summary: Mapping[str, Any]) -> list[_Seed]:
    return [
        _Seed(
            variant=run["name"],
            budget=budget_text(run["budget"]),
            seed=seed,
            top1=f"{run['accuracy'][place]:.2f}",
            seconds=f"{run['train_seconds'][place]:,.1f}" + ("" if counts else " (disturbed)"),
            waiting=f"{100 * waits[place]:.1f}" if place < len(waits := run.get("wait_share", ())) else _MISSING,
            folder=folders[place] if place < len(folders := run.get("folders", ())) else _MISSING,
        )
        for run in summary["runs"]
        for place, (seed, counts) in enumerate(
            zip(summary["seeds"], run.get("times_count", repeat(True)), strict=False)
        )
    ]


def _bandwidths(summary: Mapping[str, Any]) -> list[int]:
    """The bandwidths with a measured speed, in rising order; of very many those that most runs have."""
    runs_with = Counter(int(side) for run in summary["runs"] for side in run.get("images_per_second", {}))
    most = sorted(runs_with, key=lambda side: (-runs_with[side], -side))[:_MOST_BANDWIDTHS]
    return sorted(most)


def _number(value: float | None) -> str:
    return _MISSING if value is None else speed_text(value)
