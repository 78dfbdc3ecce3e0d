"""Labels beside points that cover neither each other nor what they stand beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from upchirp.reports.style import HALO

_DIRECTIONS = ((1, -1), (1, 1), (-1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0))
_ALIGNED = {-1: "right", 0: "center", 1: "left"}
_LINE = 11.0
"""Points from one line of text to the next."""
_RINGS = 14
_AIR = 2
"""Pixels that stay free around a text."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text beside a point."""

    text: str
    """What it says."""
    place: tuple[float, float]
    """The point, in data."""
    color: str
    """Of the text."""
    size: float = 8
    """Of the font, points."""
    weight: str = "normal"
    """Of the font."""
    shift: float = 0.0
    """How far above the point the text is looked a place for, points."""
    centred: bool = False
    """Whether it rather stands below or above the point than beside it."""


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label], obstacles: Sequence[Bbox] = ()) -> None:
    """Write labels beside their points, each as near as there is room, the first ones first.

    The places tried lie in the eight directions, line by line further out. One is taken that lies inside the axes and
    where the text's box meets no other text's and no obstacle; if there is none, one that at least meets no other
    text's box. The layout of the figure is settled before and stays as it is.

    Args:
        figure: that the axes are in, with everything else drawn.
        axes: where to write.
        labels: the most important first.
        obstacles: boxes to keep free, in pixels of the figure.
    """
    figure.draw_without_rendering()
    layout = figure.get_layout_engine()
    inside = axes.get_window_extent()
    taken: list[Bbox] = []
    for label in labels:
        written = axes.annotate(
            label.text,
            label.place,
            xytext=(0, 0),
            textcoords="offset points",
            va="center",
            fontsize=label.size,
            fontweight=label.weight,
            color=label.color,
            path_effects=HALO,
            zorder=6,
        )
        written.set_in_layout(False)
        taken.append(_settle(written, label, inside, taken, obstacles))
    if layout is not None:
        # What was settled must not move under the labels.
        figure.set_layout_engine("none")


def _settle(written: Annotation, label: Label, inside: Bbox, taken: Sequence[Bbox], obstacles: Sequence[Bbox]) -> Bbox:
    """Move a label to the best place, and tell its box."""
    fallback: tuple[tuple[float, float], str, Bbox] | None = None
    directions = sorted(_DIRECTIONS, key=lambda direction: direction[0] != 0) if label.centred else _DIRECTIONS
    for ring, (across, up) in product(range(_RINGS), directions):
        offset = (9.0 * across, label.shift + (9.0 + label.size / 4 + _LINE * ring) * up)
        _put(written, offset, _ALIGNED[across])
        box = written.get_window_extent().padded(_AIR)
        if any(box.overlaps(other) for other in taken):
            continue
        if fallback is None:
            fallback = offset, _ALIGNED[across], box
        if _holds(inside, box) and not any(box.overlaps(other) for other in obstacles):
            return box
    if fallback is not None:
        offset, aligned, box = fallback
        _put(written, offset, aligned)
        return box
    return written.get_window_extent().padded(_AIR)


def _put(written: Annotation, offset: tuple[float, float], aligned: str) -> None:
    written.set_position(offset)
    written.set_horizontalalignment(aligned)  # type: ignore[arg-type]


def _holds(inside: Bbox, box: Bbox) -> bool:
    return bool(inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
