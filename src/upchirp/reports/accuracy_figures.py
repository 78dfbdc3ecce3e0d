"""Figures of accuracy against what it took, each a pure function of `summary.json`'s content."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, offset_copy

from upchirp.reports.labels import Label, place_labels
from upchirp.reports.style import (
    INK,
    MUTED,
    PAPER,
    WIDE,
    add_legend,
    drawn,
    keep_to_percent,
    new_figure,
    plain,
    time_unit,
    variant_colors,
)
from upchirp.reports.words import accuracy_name, budget_text, counted, counted_seconds, shortened


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """What accuracy is drawn against."""

    label: str
    of_run: Callable[[Mapping[str, Any]], Sequence[tuple[float, float]]]
    """Of each seed that is drawn what it took, and its accuracy; runs without any are left out."""
    of_speedup: Callable[[Mapping[str, Any]], tuple[float, float]] | None = None
    """Where an arrow begins and ends; without it there are none."""


@drawn
def accuracy_against_time(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Final accuracy against training time: a point per run and seed, a line through the means of a variant.

    A dashed line marks the baseline's mean accuracy; an arrow along it leads from the baseline's training time to the
    time at which a variant reaches the same accuracy. Seeds that something disturbed are left out.

    Args:
        summary: the content of `summary.json`; seconds and top-1 in percent.
        width: inches.
    """
    times = [seconds for run in summary["runs"] for seconds in counted_seconds(run)]
    unit, seconds_in_unit = time_unit(max(times, default=0.0))
    axis = _Axis(
        label=f"training time ({unit})",
        of_run=lambda run: counted(
            run,
            [
                (seconds / seconds_in_unit, accuracy)
                for seconds, accuracy in zip(run["train_seconds"], run["accuracy"], strict=True)
            ],
        ),
        of_speedup=lambda speedup: (
            speedup["baseline_seconds"] / seconds_in_unit,
            speedup["seconds"] / seconds_in_unit,
        ),
    )
    return _accuracy_against(summary, width, axis)


@drawn
def accuracy_against_compute(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Final accuracy against compute relative to the baseline's whole budget (Figure 7), as against time.

    Args:
        summary: the content of `summary.json`; top-1 in percent.
        width: inches.
    """
    name = shortened(summary["runs"][0]["name"])
    axis = _Axis(
        label=f"compute, relative to {plain(name)} at its largest budget",
        of_run=lambda run: [(run["relative_compute"], accuracy) for accuracy in run["accuracy"]],
    )
    return _accuracy_against(summary, width, axis)


def _accuracy_against(summary: Mapping[str, Any], width: float, axis: _Axis) -> Figure:
    runs = [run for run in summary["runs"] if axis.of_run(run)]
    figure = new_figure(4.4 if width == WIDE else 3.9, width)
    axes = figure.add_subplot()
    handles = []
    labels: list[Label] = []
    marks: list[tuple[float, float]] = []
    lines: list[list[tuple[float, float]]] = []
    for name, color in variant_colors(summary).items():
        own = sorted((run for run in runs if run["name"] == name), key=lambda run: _mean_amount(axis, run))
        if not own:
            continue
        means = _draw_variant(axes, own, color, axis)
        lines.append(means)
        marks += [*(point for run in own for point in axis.of_run(run)), *means]
        # One budget needs no telling apart.
        if len({run["budget"] for run in runs}) > 1:
            labels += [
                Label(text=f"budget {budget_text(run['budget'])}", place=place, color=color)
                for run, place in zip(own, means, strict=True)
            ]
        handles.append(Line2D([], [], color=color, marker="D", markersize=5, label=plain(shortened(name))))
    level = fmean(summary["runs"][0]["accuracy"])
    axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlabel(axis.label)
    axes.set_ylabel(f"{accuracy_name(summary)} at {summary['final_size']} px (%)")
    axes.margins(y=0.2)
    keep_to_percent(axes)
    axes.set_xlim(0, 1.12 * max((amount for amount, _ in marks), default=1.0))
    if handles:
        add_legend(figure, handles)
    ratios = _arrows(figure, axes, summary, level, axis)
    figure.draw_without_rendering()
    obstacles = [_around(axes, mark, 4) for mark in marks]
    usual = [(end, level) for end in axes.get_xlim()]
    obstacles += [_around(axes, place, 1) for line in [*lines, usual] for place in _on_the_line(line)]
    obstacles += [_along(axes, arrow) for arrow in axes.texts]
    place_labels(figure, axes, [*ratios, *labels], obstacles)
    return figure


def _draw_variant(axes: Axes, runs: Sequence[Mapping[str, Any]], color: str, axis: _Axis) -> list[tuple[float, float]]:
    """Draw a variant's seeds, and its means with their margins, in a line; returns the means."""
    for run in runs:
        amounts, accuracies = zip(*axis.of_run(run), strict=True)
        axes.scatter(amounts, accuracies, s=22, color=color, alpha=0.45, linewidths=0, zorder=3)
    xs = [_mean_amount(axis, run) for run in runs]
    ys = [fmean(run["accuracy"]) for run in runs]
    margins = [run["mean"]["margin"] for run in runs]
    axes.plot(xs, ys, color=color, linewidth=1.6, zorder=2)
    axes.errorbar(xs, ys, yerr=margins, fmt="none", ecolor=color, elinewidth=1, alpha=0.7, zorder=2)
    axes.scatter(xs, ys, s=58, marker="D", color=color, edgecolors=PAPER, linewidths=1, zorder=4)
    return list(zip(xs, ys, strict=True))


def _mean_amount(axis: _Axis, run: Mapping[str, Any]) -> float:
    return fmean(amount for amount, _ in axis.of_run(run))


def _on_the_line(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Places on straight lines between points, so close that no text fits between them."""
    for (x0, y0), (x1, y1) in pairwise(points):
        yield from zip(np.linspace(x0, x1, 60).tolist(), np.linspace(y0, y1, 60).tolist(), strict=True)


def _around(axes: Axes, place: tuple[float, float], points: float) -> Bbox:
    """A square around a place in data, in pixels."""
    x, y = axes.transData.transform(place)
    half = points * axes.figure.dpi / 72
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _along(axes: Axes, arrow: Any) -> Bbox:
    """The box of a horizontal arrow, in pixels."""
    transform = arrow.xycoords
    (x0, y0), (x1, _) = transform.transform([arrow.xy, arrow.get_position()])
    half = 3 * axes.figure.dpi / 72
    return Bbox.from_extents(min(x0, x1), y0 - half, max(x0, x1), y0 + half)


def _arrows(figure: Figure, axes: Axes, summary: Mapping[str, Any], level: float, axis: _Axis) -> list[Label]:
    """Draw the arrows; what they mean is to be written below their middles."""
    if axis.of_speedup is None:
        return []
    colors = variant_colors(summary)
    reached = [(name, speedup) for name, speedup in summary["speedups"].items() if speedup["ratio"] is not None]
    labels = []
    for place, (name, speedup) in enumerate(reached):
        start, end = axis.of_speedup(speedup)
        color = colors.get(name, INK)
        shifted = offset_copy(axes.transData, figure, y=-28 * place, units="points")
        arrow = axes.annotate(
            "",
            xy=(end, level),
            xytext=(start, level),
            xycoords=shifted,
            textcoords=shifted,
            arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "shrinkA": 7, "shrinkB": 0},
            zorder=5,
        )
        arrow.set_in_layout(False)
        at_least = "at least " if speedup["kind"] == "at least" else ""
        labels.append(
            Label(
                text=f"{at_least}{speedup['ratio']:.2f}×",
                place=((start + end) / 2, level),
                color=color,
                size=11,
                weight="bold",
                shift=-28.0 * place,
                centred=True,
            )
        )
    return labels
