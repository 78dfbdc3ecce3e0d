"""Figures of a comparison, each a pure function of `summary.json`'s content."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from upchirp.curriculum import Plan
from upchirp.reports.bars import draw_stages, name_rows
from upchirp.reports.style import (
    DASHED,
    FAINT,
    INK,
    MUTED,
    WIDE,
    add_legend,
    bandwidth_colors,
    drawn,
    keep_to_percent,
    new_figure,
    plain,
    time_unit,
    variant_colors,
)
from upchirp.reports.words import accuracy_name, budget_text, counted, counted_seconds, shortened

_MOST_STAGES = 12
"""Stages whose ends are drawn as lines."""


@drawn
def accuracy_during_training(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Accuracy during training, a panel per run against the baseline (Figure 8).

    Solid lines are evaluations at the final size of the weights that the run exports: the average's if there is one.
    Dashed lines are evaluations at the bandwidth of the current stage. One line for each seed that nothing disturbed.

    Args:
        summary: the content of `summary.json`; seconds and accuracy in percent.
        width: inches.
    """
    baseline, *rest = summary["runs"]
    others = [run for run in rest if run["name"] != baseline["name"] and counted_seconds(run)]
    panels = others or [baseline]
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3) if width == WIDE else 1
    rows = -(-len(panels) // columns)
    figure = new_figure(0.7 + ((2.9 if columns > 1 else 3.4) if width == WIDE else 2.2) * rows, width)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    times = [seconds for run in summary["runs"] for seconds in counted_seconds(run)]
    unit, seconds_in_unit = time_unit(max(times, default=0.0))
    colors, final = variant_colors(summary), summary["final_size"]
    plot = partial(_plot_history, score=summary.get("figure", "top1"), seconds_in_unit=seconds_in_unit)
    for axes, run in zip(grid.flat, panels, strict=False):
        color = colors[run["name"]]
        for history in counted(run, run.get("history", ())):
            plot(axes, _exported(history, final), color=color, zorder=3)
            early = [point for point in history if point["bandwidth"] != final]
            plot(axes, early, color=color, linestyle=DASHED, zorder=3)
        if run is not baseline:
            for history in counted(baseline, baseline.get("history", ())):
                plot(axes, _exported(history, final), color=FAINT, zorder=2)
        # Sizes that change all the time are no stages to tell apart.
        for boundary in np.cumsum(stage_seconds(run))[:-1] if len(_plan(run).stages) <= _MOST_STAGES else ():
            axes.axvline(boundary / seconds_in_unit, color=FAINT, linewidth=1, linestyle=":", zorder=1)
        axes.set_title(f"{plain(shortened(run['name']))}\nbudget {_budget(run)}", color=color)
    grid[0, 0].set_xlim(left=0)
    grid[0, 0].set_ylim(bottom=0)
    for axes in grid.flat[: len(panels)]:
        keep_to_percent(axes)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(f"training time ({unit})", fontsize=9)
    figure.supylabel(f"{accuracy_name(summary)} (%)", fontsize=9)
    handles = [Line2D([], [], color=INK, linewidth=1.6, label=f"at the final size, {final} px")]
    if any(stage.bandwidth != final for run in panels for stage in _plan(run).stages):
        dashed = Line2D([], [], color=INK, linewidth=1.6, linestyle=DASHED, label="at the current bandwidth")
        handles += [dashed, Line2D([], [], color=MUTED, linestyle=":", label="change of bandwidth")]
    if others:
        name = plain(shortened(baseline["name"]))
        handles.append(Line2D([], [], color=FAINT, linewidth=1.6, label=f"{name}, at the final size"))
    add_legend(figure, handles)
    return figure


def _exported(history: Sequence[Mapping[str, Any]], final: int) -> list[Mapping[str, Any]]:
    """Evaluations at the final size of the average, or of the model if there is no average."""
    points = [point for point in history if point["bandwidth"] == final]
    return [point for point in points if point["weights"] == "ema"] or points


def _plot_history(
    axes: Axes, points: Sequence[Mapping[str, Any]], *, score: str, seconds_in_unit: float, **line: Any
) -> None:
    if points:
        times = [point["train_seconds"] / seconds_in_unit for point in points]
        # A line of one point shows nothing.
        marker = "o" if len(points) == 1 else ""
        axes.plot(times, [point[score] for point in points], linewidth=1.5, alpha=0.85, marker=marker, **line)


@drawn
def stages_on_a_time_line(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """The stages of each run on a time line, a bar per run coloured by bandwidth.

    Args:
        summary: the content of `summary.json`; seconds are means over the seeds, without disturbed ones where there
            are others.
        width: inches.
    """
    runs = summary["runs"]
    figure = new_figure(1.2 + 0.52 * len(runs), width)
    axes = figure.add_subplot()
    longest = max(_mean(run, run["train_seconds"]) for run in runs)
    unit, seconds_in_unit = time_unit(longest)
    colors = bandwidth_colors([stage.bandwidth for run in runs for stage in _plan(run).stages])
    for place, run in enumerate(runs):
        # What another run took, whose weights this one starts from, has no stages of its own.
        ends = draw_stages(
            axes,
            place,
            zip((stage.bandwidth for stage in _plan(run).stages), stage_seconds(run), strict=True),
            colors,
            height=0.62,
            least=(0.035 if width == WIDE else 0.12) * longest,
            left=_seconds_before(run),
            unit=seconds_in_unit,
        )
        axes.annotate(
            f"{ends / seconds_in_unit:.1f} {unit}",
            (ends / seconds_in_unit, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED,
        )
    name_rows(axes, [_row_name(run, width) for run in runs], color=INK)
    axes.set_xlabel(f"training time ({unit})")
    axes.set_xlim(0, (1.1 if width == WIDE else 1.3) * longest / seconds_in_unit)
    add_legend(figure, [Patch(color=color, label=f"B = {side} px") for side, color in colors.items()])
    return figure


def stage_seconds(run: Mapping[str, Any]) -> list[float]:
    """Seconds of each stage of a run, mean over its seeds.

    Samples over measured images/s, scaled so that the stages add up to the run's own training time. Where a bandwidth
    has no measured speed, the plan's relative cost takes its place for the whole run.

    Args:
        run: one of a summary's `runs`.
    """
    stages = _plan(run).stages
    speeds = run.get("images_per_second", {})
    if all(speeds.get(str(stage.bandwidth), 0) > 0 for stage in stages):
        shares = [stage.samples / speeds[str(stage.bandwidth)] for stage in stages]
    else:
        shares = [stage.cost for stage in stages]
    own = _mean(run, run["train_seconds"]) - _seconds_before(run)
    scale = own / sum(shares)
    return [share * scale for share in shares]


def _seconds_before(run: Mapping[str, Any]) -> float:
    return _mean(run, before) if (before := run.get("seconds_before")) else 0.0


def _mean(run: Mapping[str, Any], seconds: Sequence[float]) -> float:
    """The mean over the seeds that nothing disturbed; over all if there are none."""
    return fmean(counted(run, seconds) or seconds)


def _row_name(run: Mapping[str, Any], width: float) -> str:
    if width == WIDE:
        return f"{plain(shortened(run['name']))}, budget {_budget(run)}"
    return f"{plain(shortened(run['name'], 16))}\nbudget {_budget(run)}"


def _budget(run: Mapping[str, Any]) -> str:
    return budget_text(run["budget"])


def _plan(run: Mapping[str, Any]) -> Plan:
    return Plan.from_dict(run["plan"])
