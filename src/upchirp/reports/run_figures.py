"""Figures of a run, each a pure function of its log and its plan."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from upchirp.curriculum import Plan
from upchirp.reports.bars import draw_stages, name_rows
from upchirp.reports.style import (
    CURRICULA,
    DASHED,
    FAINT,
    MUTED,
    WIDE,
    add_legend,
    bandwidth_colors,
    drawn,
    keep_to_percent,
    new_figure,
    time_unit,
)
from upchirp.reports.words import duration_text, figure_name

Records = Sequence[Mapping[str, Any]]
_MODEL, _EMA, _CURRENT, _LOSS = (*CURRICULA[:3], CURRICULA[3])


@drawn
def curves(log: Records, plan: Plan, width: float = WIDE, *, figure: str = "top1") -> Figure:
    """Accuracy against time and against compute, training loss and learning rate, with the stages' boundaries.

    Args:
        log: the lines of `metrics.jsonl`.
        plan: what was executed.
        width: inches.
        figure: of the evaluations, that tells how good the weights are.
    """
    wide = width == WIDE
    page = new_figure(5.6 if wide else 9.0, width)
    grid = page.subplots(2, 2) if wide else page.subplots(4, 1)
    by_time, by_compute, loss, rate = grid.flat
    trained = [record for record in log if record["kind"] == "train"]
    evaluations = [record for record in log if record["kind"] == "evaluation"]
    unit, second = time_unit(max((record["train_seconds"] for record in [*trained, *evaluations]), default=1.0))
    handles = _accuracies(by_time, evaluations, plan, lambda record: record["train_seconds"] / second, figure)
    _accuracies(by_compute, evaluations, plan, lambda record: plan.spent(record["step"]), figure)
    times = [record["train_seconds"] / second for record in trained]
    loss.plot(times, [record["loss"] for record in trained], color=_LOSS, linewidth=1.3)
    spent = [plan.spent(record["step"]) for record in trained]
    rate.plot(spent, [record["learning_rate"] for record in trained], color=MUTED, linewidth=1.3)
    changes = [plan.spent(step) for step in [*accumulate(stage.steps for stage in plan.stages)][:-1]]
    for axes in (by_compute, rate):
        _name_axis(axes, "equivalent epochs", changes)
    for axes in (by_time, loss):
        _name_axis(axes, f"training time ({unit})", [end / second for end in stage_ends(log, plan)[:-1]])
    for axes in (by_time, by_compute):
        keep_to_percent(axes)
    by_time.set_ylabel(f"{figure_name(figure)} (%)")
    by_compute.set_ylabel(f"{figure_name(figure)} (%)")
    loss.set_ylabel("training loss")
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for axes in grid.flat:
        axes.set_xlim(left=0)
    if changes:
        handles.append(Line2D([], [], color=FAINT, linestyle=":", label="change of stage"))
    if handles:
        add_legend(page, handles)
    return page


def _name_axis(axes: Axes, name: str, changes: Sequence[float]) -> None:
    """Name the axis that all is drawn against, and mark where stages change."""
    axes.set_xlabel(name)
    for change in changes:
        axes.axvline(change, color=FAINT, linewidth=1, linestyle=":", zorder=1)


def _accuracies(axes: Axes, evaluations: Records, plan: Plan, place: Any, figure: str) -> list[Line2D | Patch]:
    """Draw evaluations against `place`, and tell what lines there are."""
    final = plan.final_size
    kinds = (
        ("ema", True, _EMA, "solid", f"averaged weights, {final} px"),
        ("model", True, _MODEL, "solid", f"weights, {final} px"),
        ("model", False, _CURRENT, DASHED, "weights, at the stage's bandwidth"),
    )
    handles: list[Line2D | Patch] = []
    for weights, at_final, color, line, label in kinds:
        own = [each for each in evaluations if each["weights"] == weights and (each["bandwidth"] == final) == at_final]
        if own:
            style: dict[str, Any] = {
                "color": color,
                "linestyle": line,
                "linewidth": 1.5,
                "marker": "o",
                "markersize": 3,
            }
            axes.plot([place(each) for each in own], [each[figure] for each in own], **style)
            handles.append(Line2D([], [], label=label, **style))
    return handles


@drawn
def time_of_stages(log: Records, plan: Plan, width: float = WIDE) -> Figure:
    """Where the time went beside where the plan's compute goes: two bars of stages, coloured by bandwidth.

    Args:
        log: the lines of `metrics.jsonl`.
        plan: what was executed.
        width: inches.
    """
    figure = new_figure(1.7, width)
    axes = figure.add_subplot()
    colors = bandwidth_colors([stage.bandwidth for stage in plan.stages])
    seconds = stage_seconds(log, plan)
    for row, parts in enumerate((seconds, [stage.cost for stage in plan.stages])):
        whole = sum(parts) or 1.0
        shares = [(stage.bandwidth, 100 * part / whole) for stage, part in zip(plan.stages, parts, strict=True)]
        draw_stages(axes, row, shares, colors, height=0.66, least=4 if width == WIDE else 12)
    name_rows(axes, ["time", "compute"])
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"share (%) of {duration_text(sum(seconds))}, and of the plan's compute")
    return figure


def stage_ends(log: Records, plan: Plan) -> list[float]:
    """Training time at the end of each stage, seconds; a log line stands at each of them."""
    ends = [0.0] * len(plan.stages)
    for record in log:
        if record["kind"] == "train":
            ends[record["stage"]] = record["train_seconds"]
    return list(accumulate(ends, max))


def stage_seconds(log: Records, plan: Plan) -> list[float]:
    """Training time of each stage, seconds."""
    ends = stage_ends(log, plan)
    return [end - begin for begin, end in zip([0.0, *ends], ends, strict=False)]
