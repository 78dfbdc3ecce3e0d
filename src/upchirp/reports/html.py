"""The report of a comparison: one HTML file that needs nothing else."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from upchirp.reports.examples import ExampleRow, Examples, example_strip
from upchirp.reports.figures import accuracy_against_time, accuracy_during_training, stages_on_a_time_line
from upchirp.reports.style import budget_text, to_svg

_MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One curriculum at one budget, as texts for the table of numbers."""

    curriculum: str
    budget: str
    equivalent_epochs: str
    top1: str
    top1_range: str
    seconds: str
    duration: str
    relative_time: str
    speeds: tuple[str, ...]
    waiting: str


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


@dataclass(frozen=True, kw_only=True)
class _Strip:
    """The examples of one stage."""

    stage: int
    bandwidth: int
    progress: str
    magnitude: str
    source: str
    width: int
    height: int


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
        "report.html.j2",
        summary=summary,
        seeds=len(summary["seeds"]),
        curricula=list(dict.fromkeys(run["curriculum"] for run in summary["runs"])),
        verdict=verdict(summary),
        remark=_remark(summary),
        bandwidths=_bandwidths(summary),
        lines=_lines(summary),
        runs=_seeds(summary),
        against_time=svg_source(accuracy_against_time(summary)),
        during_training=svg_source(accuracy_during_training(summary)) if has_history else None,
        time_line=svg_source(stages_on_a_time_line(summary)),
        examples=[
            (
                each.label,
                [_strip(place, row, final_size) for place, row in enumerate(each.rows, 1) if row.images],
            )
            for each in examples
        ],
        costs=sorted({run["plan"]["cost"] for run in summary["runs"]}),
        hardware=hardware_text(summary["hardware"]),
    )
    path.write_text(page, encoding="utf-8")


def render(template: str, **values: Any) -> str:
    """A page from one of the report templates; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("upchirp", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def verdict(summary: Mapping[str, Any]) -> str:
    """Whether the curriculum was worth it, in one sentence with the number.

    If several were compared with the baseline, a sentence for each.

    >>> speedup = dict(ratio=1.5, kind="interpolated", baseline_accuracy=51.6, baseline_seconds=300, seconds=200)
    >>> verdict({"runs": [{"curriculum": "constant"}], "speedups": {"linear": speedup}})
    'linear reached the accuracy of constant (51.60 %) in 1.50× less training time.'
    """
    baseline = summary["runs"][0]
    if not summary["speedups"]:
        accuracy, time = fmean(baseline["accuracy"]), duration_text(fmean(baseline["train_seconds"]))
        return f"{baseline['curriculum']} reached {accuracy:.2f} % in {time}; nothing was compared with it."
    return " ".join(
        _verdict(
            summary,
            name,
            speedup,
            f"the accuracy of {baseline['curriculum']} ({speedup['baseline_accuracy']:.2f} %)",
        )
        for name, speedup in summary["speedups"].items()
    )


def _verdict(summary: Mapping[str, Any], name: str, speedup: Mapping[str, Any], goal: str) -> str:
    if speedup["ratio"] is None:
        own = [run for run in summary["runs"] if run["curriculum"] == name]
        best = max(own, key=lambda run: fmean(run["accuracy"]))
        return (
            f"{name} did not reach {goal}: its best was {fmean(best['accuracy']):.2f} % "
            f"in {duration_text(fmean(best['train_seconds']))}."
        )
    ratio, at_least = speedup["ratio"], speedup["kind"] == "at least"
    if f"{ratio:.2f}" == "1.00":
        return f"{name} reached {goal} in the same training time: no speed-up was measured."
    if ratio > 1:
        return f"{name} reached {goal} in {'at least ' if at_least else ''}{ratio:.2f}× less training time."
    longer = f"{'up to ' if at_least else ''}{1 / ratio:.2f}×"
    return f"{name} reached {goal}, but took {longer} the training time: no speed-up."


def _remark(summary: Mapping[str, Any]) -> str:
    """What qualifies the verdict."""
    seeds = len(summary["seeds"])
    if not summary["speedups"]:
        return ""
    parts = [
        "One seed: a difference of a point or so may be chance."
        if seeds == 1
        else f"Means over {seeds} seeds; each of them is shown below."
    ]
    kinds = {speedup["kind"] for speedup in summary["speedups"].values()}
    if "interpolated" in kinds:
        parts.append("The time at equal accuracy is read off a straight line between two budgets.")
    if "at least" in kinds:
        parts.append("“At least”: even the smallest budget beat the baseline, so the curve does not reach down to it.")
    baseline, *others = summary["runs"]
    whole = [run for run in others if run["budget"] == baseline["budget"]]
    for run in whole:
        gain = fmean(run["accuracy"]) - fmean(baseline["accuracy"])
        relative = fmean(run["train_seconds"]) / fmean(baseline["train_seconds"])
        parts.append(
            f"At the same budget {run['curriculum']} ended {abs(gain):.1f} points "
            f"{'higher' if gain >= 0 else 'lower'} in {relative:.2f}× the time."
        )
    return " ".join(parts)


def _lines(summary: Mapping[str, Any]) -> list[_Line]:
    baseline_seconds = fmean(summary["runs"][0]["train_seconds"])
    lines = []
    for run in summary["runs"]:
        accuracy, seconds = run["accuracy"], fmean(run["train_seconds"])
        speeds, waits = run.get("images_per_second", {}), run.get("wait_share", ())
        lines.append(
            _Line(
                curriculum=run["curriculum"],
                budget=budget_text(run["budget"]),
                equivalent_epochs=f"{run['equivalent_epochs']:.2f}",
                top1=f"{fmean(accuracy):.2f}",
                top1_range=f"{min(accuracy):.2f} to {max(accuracy):.2f}" if len(accuracy) > 1 else "",
                seconds=f"{seconds:,.1f}",
                duration=duration_text(seconds),
                relative_time=f"{seconds / baseline_seconds:.2f}",
                speeds=tuple(_number(speeds.get(str(side))) for side in _bandwidths(summary)),
                waiting=f"{100 * fmean(waits):.1f}" if waits else _MISSING,
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


def _strip(place: int, row: ExampleRow, final_size: int) -> _Strip:
    strip = example_strip(row, final_size)
    (start, end), (weakest, strongest) = row.progress, row.magnitude
    return _Strip(
        stage=place,
        bandwidth=row.bandwidth,
        progress=f"{100 * start:.0f} to {100 * end:.0f} %",
        magnitude=f"{weakest:.1f} to {strongest:.1f}" if weakest != strongest else f"{weakest:.1f}",
        source=_png_source(strip),
        width=strip.shape[1],
        height=strip.shape[0],
    )


def hardware_text(hardware: Mapping[str, Any]) -> str:
    """The machine, in words."""
    parts = [f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']:.0f} GiB of memory"]
    return ", ".join([*parts, hardware["accelerator"] or "no accelerator"])


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:,.0f}"


def duration_text(seconds: float) -> str:
    """Seconds in words.

    >>> duration_text(75)
    '1 min 15 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def svg_source(figure: Figure) -> str:
    """A figure as the source of an image element."""
    # Inside an image element no name in the figure can become markup of the page.
    return "data:image/svg+xml;base64," + b64encode(to_svg(figure)).decode("ascii")


def _png_source(image: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")
