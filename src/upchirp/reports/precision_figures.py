"""Precision against recall, class by class, where images have several labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from upchirp.reports.style import CURRICULA, FAINT, WIDE, add_legend, drawn, new_figure, plain
from upchirp.reports.words import shortened

MOST_CURVES = 12
"""Classes that are drawn."""
_POINTS = 300
"""Of a curve, at most: a page cannot show more."""


@dataclass(frozen=True, kw_only=True)
class PrecisionCurve:
    """Precision and recall of a class at falling thresholds, 0 to 1."""

    name: str
    """Of the class."""
    precisions: NDArray[np.float64]
    """(thresholds,)."""
    recalls: NDArray[np.float64]
    """(thresholds,), rising."""
    average: float
    """The average precision, which is the area below the curve."""
    best: tuple[float, float]
    """Recall and precision where F1 is highest."""
    share: float
    """Of the images that have the class: the precision of random scores."""


@drawn
def precision_curves(curves: Sequence[PrecisionCurve], width: float = WIDE) -> Figure:
    """Precision against recall, a panel for each class, with the point of the highest F1.

    Args:
        curves: of the classes.
        width: inches.
    """
    columns = min(len(curves), 4 if width == WIDE else 2)
    rows = -(-len(curves) // columns)
    figure = new_figure(0.9 + 1.75 * rows, width)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    line, point, chance = CURRICULA[0], CURRICULA[1], FAINT
    for axes, curve in zip(grid.flat, curves, strict=False):
        recalls, precisions = _thinned(curve)
        axes.axhline(100 * curve.share, color=chance, linewidth=1, linestyle=":", zorder=1)
        # The precision at a recall holds for all that is below it, down to the next: the area is the average.
        axes.plot(recalls, precisions, color=line, linewidth=1.4, drawstyle="steps-pre", zorder=2)
        recall, precision = curve.best
        axes.plot([100 * recall], [100 * precision], "o", color=point, markersize=5, zorder=3, clip_on=False)
        axes.set_title(f"{plain(shortened(curve.name, 18))}\nAP {100 * curve.average:.1f} %", fontsize=8.5)
    panels = list(grid.flat)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    for axes in panels[: len(curves)][-columns:]:
        axes.tick_params(labelbottom=True)
    grid[0, 0].set(xlim=(0, 100), ylim=(0, 104), xticks=(0, 50, 100), yticks=(0, 50, 100))
    figure.supxlabel("recall (%)", fontsize=9)
    figure.supylabel("precision (%)", fontsize=9)
    add_legend(
        figure,
        [
            Line2D([], [], color=line, linewidth=1.4, label="at every threshold"),
            Line2D([], [], color=point, linestyle="", marker="o", markersize=5, label="highest F1"),
            Line2D([], [], color=chance, linestyle=":", label="random scores"),
        ],
    )
    return figure


def _thinned(curve: PrecisionCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision in percent where recall rises, at as many thresholds as a panel can show."""
    rising = np.flatnonzero(np.diff(curve.recalls, prepend=0.0))
    kept = rising[np.unique(np.linspace(0, len(rising) - 1, _POINTS).astype(int))]
    recalls, precisions = 100 * curve.recalls[kept], 100 * curve.precisions[kept]
    return np.append(0.0, recalls), np.append(precisions[:1], precisions)
