"""Figures of a search, each a pure function of `summary.json`'s content."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from upchirp.reports.bars import draw_stages, name_rows
from upchirp.reports.search_schedules import schedules
from upchirp.reports.style import (
    DASHED,
    FAINT,
    HALO,
    INK,
    MUTED,
    PAPER,
    WIDE,
    add_legend,
    bandwidth_colors,
    drawn,
    ink_on,
    keep_to_percent,
    new_figure,
    plain,
)
from upchirp.reports.words import score_name, shortened


@drawn
def tree_of_candidates(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Every candidate of every stage with its accuracy, and the path that the search took (Algorithm 2).

    Args:
        summary: the content of a search's `summary.json`, of the algorithm `sequential`.
        width: inches.
    """
    found, candidates, final = summary["found"], summary["candidates"], summary["final_size"]
    sides = sorted({*candidates, final})
    rows = {side: place for place, side in enumerate(sides)}
    figure = new_figure(1.6 + 0.62 * len(sides), width)
    axes = figure.add_subplot()
    colors = bandwidth_colors(sides)
    middle = (len(sides) - 1) / 2
    heights = [middle, *(rows[side] for side in found)]
    for trial in last_of_each(summary["trials"]):
        stage, side = len(trial["bandwidths"]), trial["bandwidths"][-1]
        won = side == found[stage - 1]
        _draw_candidate(axes, trial, from_height=heights[stage - 1], height=rows[side], color=colors[side], won=won)
    last = len(found)
    axes.plot([last - 1, last], [heights[last - 1], rows[final]], color=INK, linewidth=2.2, zorder=2)
    axes.scatter([last], [rows[final]], s=190, color=colors[final], edgecolors=INK, linewidths=2, zorder=3)
    axes.scatter([0], [middle], s=60, color=INK, zorder=3)
    axes.set_yticks(range(len(sides)), [f"{side} px" for side in sides])
    axes.set_xticks(range(last + 1), ["start", *(f"stage {k}" for k in range(1, last)), f"stage {last}\n(final size)"])
    axes.set_ylim(-0.5, len(sides) - 0.35)
    axes.set_xlim(-0.2, last + 0.3)
    axes.grid(visible=False, axis="x")
    handles = [
        Line2D([], [], color=INK, linewidth=2.2, label="what the search chose"),
        Line2D([], [], color=FAINT, linewidth=0.9, label="tried and left"),
    ]
    if summary["halving"]:
        handles.append(Line2D([], [], color=FAINT, linewidth=0.9, linestyle=DASHED, label="stopped early"))
    add_legend(figure, handles)
    return figure


def _draw_candidate(
    axes: Axes, trial: Mapping[str, Any], *, from_height: float, height: float, color: str, won: bool
) -> None:
    """Draw the way to a candidate of a stage, its place, and its accuracy."""
    stage = len(trial["bandwidths"])
    whole = trial["end"] == stage
    axes.plot(
        [stage - 1, stage],
        [from_height, height],
        color=INK if won else FAINT,
        linewidth=2.2 if won else 0.9,
        linestyle="solid" if whole else DASHED,
        zorder=2 if won else 1,
    )
    axes.scatter(
        [stage],
        [height],
        s=190 if won else 90,
        color=color if whole else PAPER,
        edgecolors=INK if won else FAINT,
        linewidths=2 if won else 1,
        zorder=3,
    )
    axes.annotate(
        _score(trial),
        (stage, height),
        xytext=(0, 11),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        fontweight="bold" if won else "normal",
        color=INK if won else MUTED,
        path_effects=HALO,
        zorder=4,
    )


def _score(trial: Mapping[str, Any], unit: str = "") -> str:
    return f"{trial['accuracy']:.2f}{unit}" if trial["loss"] is not None else "diverged"


@drawn
def trainings_in_order(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Every training of Algorithm 1 as a row of its stages, with its accuracy, first to last.

    Args:
        summary: the content of a search's `summary.json`, of the algorithm `greedy`.
        width: inches.
    """
    trials, stages = summary["trials"], summary["stages"]
    figure = new_figure(1.3 + 0.42 * len(trials), width)
    axes = figure.add_subplot()
    colors = bandwidth_colors([side for trial in trials for side in trial["bandwidths"]])
    for row, trial in enumerate(trials):
        for stage, side in enumerate(trial["bandwidths"]):
            axes.barh(row, 1, left=stage, height=0.7, color=colors[side], edgecolor=PAPER)
            axes.text(stage + 0.5, row, str(side), ha="center", va="center", color=ink_on(colors[side]), fontsize=8.5)
        chosen = trial["bandwidths"] == summary["found"]
        axes.text(
            stages + 0.08,
            row,
            _score(trial, " %") + (", found" if chosen else ""),
            va="center",
            color=INK if chosen else MUTED,
            fontweight="bold" if chosen else "normal",
        )
    axes.set_yticks(range(len(trials)), [str(row + 1) for row in range(len(trials))])
    axes.set_xticks([stage + 0.5 for stage in range(stages)], [f"stage {stage + 1}" for stage in range(stages)])
    axes.invert_yaxis()
    axes.set_xlim(0, stages * 1.18)
    axes.set_ylabel("training")
    axes.grid(visible=False)
    return figure


@drawn
def accuracy_against_cost(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Accuracy of every candidate against the compute of the run that leads to it.

    Args:
        summary: the content of a search's `summary.json`; top-1 in percent, cost in equivalent epochs.
        width: inches.
    """
    trials = [trial for trial in summary["trials"] if trial["loss"] is not None]
    named = {trial["name"]: trial for trial in summary["trials"]}
    figure = new_figure(4.0, width)
    axes = figure.add_subplot()
    # A whole schedule has no single bandwidth: that of its first stage is the one that differs most.
    place = -1 if summary["algorithm"] == "sequential" else 0
    colors = bandwidth_colors([trial["bandwidths"][place] for trial in trials])
    for trial in trials:
        side = trial["bandwidths"][place]
        axes.scatter(
            [run_cost(trial, named)],
            [trial["accuracy"]],
            s=52,
            color=colors[side],
            edgecolors=MUTED,
            linewidths=0.6,
            zorder=3,
        )
    chosen = [trial for trial in trials if is_chosen(trial, summary)]
    axes.plot(
        [run_cost(trial, named) for trial in chosen],
        [trial["accuracy"] for trial in chosen],
        color=INK,
        linewidth=1.4,
        marker="o" if len(chosen) == 1 else "",
        zorder=2,
    )
    axes.set_xlabel("compute of the run up to the score (equivalent epochs)")
    axes.set_ylabel(f"{score_name(summary)} on the held-out images (%)")
    axes.margins(y=0.12)
    keep_to_percent(axes)
    # A margin of the whole width: the costs of one stage's candidates hardly differ.
    axes.set_xlim(0, 1.05 * max((run_cost(trial, named) for trial in trials), default=1.0))
    where = "in the stage" if place else "in the first stage"
    handles: list[Line2D | Patch] = [
        Patch(color=color, label=f"B = {side} px {where}") for side, color in colors.items()
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label="what the search chose"))
    add_legend(figure, handles)
    return figure


@drawn
def found_beside_presets(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """The found schedule and the presets as bars over the compute, coloured by bandwidth.

    Args:
        summary: the content of a search's `summary.json`.
        width: inches.
    """
    shown = schedules(summary)
    figure = new_figure(1.1 + 0.5 * len(shown), width)
    axes = figure.add_subplot()
    colors = bandwidth_colors([side for each in shown for side, _ in each.shares])
    for row, each in enumerate(shown):
        percents = [(side, 100 * share) for side, share in each.shares]
        draw_stages(axes, row, percents, colors, height=0.64, least=3.5 if width == WIDE else 10)
    name_rows(axes, [plain(shortened(each.name, 32 if width == WIDE else 16)) for each in shown], color=INK)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the compute (%)")
    return figure


def run_cost(trial: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]]) -> float:
    """Equivalent epochs of the run that leads to a trial's score, its fine-tuning included."""
    cost, parent = float(trial["cost"] + trial["tuning_cost"]), trial["parent"]
    while parent is not None:
        cost += named[parent]["cost"]
        parent = named[parent]["parent"]
    return cost


def last_of_each(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The furthest trial of each candidate: the whole stage, or where it was stopped early."""
    latest: dict[tuple[int, ...], Mapping[str, Any]] = {}
    for trial in trials:
        latest[tuple(trial["bandwidths"])] = trial
    return list(latest.values())


def is_chosen(trial: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Whether the search went on from a trial."""
    length = len(trial["bandwidths"])
    return bool(trial["bandwidths"] == summary["found"][:length] and trial["end"] == length)
