"""Bars of stages, coloured by bandwidth, as figures of runs, comparisons and searches have them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from upchirp.reports.style import PAPER, ink_on


def draw_stages(
    axes: Axes,
    row: int,
    stages: Iterable[tuple[int, float]],
    colors: Mapping[int, str],
    *,
    height: float,
    least: float,
    left: float = 0.0,
    unit: float = 1.0,
) -> float:
    """Draw one bar, with the bandwidth in each stage that has room for it.

    Args:
        axes: where.
        row: of the bar, from 0.
        stages: bandwidth and length of each.
        colors: of each bandwidth.
        height: of the bar, as a share of the row.
        least: length of a stage that has room.
        left: where the bar begins.
        unit: of the axis; lengths are divided by it.

    Returns:
        Where the bar ends, like the lengths.
    """
    for side, length in stages:
        axes.barh(row, length / unit, left=left / unit, height=height, color=colors[side], edgecolor=PAPER)
        if length > least:
            x = (left + length / 2) / unit
            axes.text(x, row, str(side), ha="center", va="center", color=ink_on(colors[side]))
        left += length
    return left


def name_rows(axes: Axes, names: Sequence[str], **text: Any) -> None:
    """Name the rows of bars, the first on top; the bars need neither lines nor ticks."""
    axes.set_yticks(range(len(names)), names, **text)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
