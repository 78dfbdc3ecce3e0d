"""The look of figures: fonts, colours, units and labels."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke

_P = ParamSpec("_P")

WIDE, NARROW = 9.2, 4.1
"""Widths of figures in inches: for a page on a screen, and for a phone."""
INK, MUTED = "#1f2933", "#5b6672"
BASELINE, FAINT = "#4b5563", "#9aa3ad"
GRID, PAPER = "#e9ecef", "#ffffff"
_ON_LIGHT, _ON_DARK = "#1e2832", "#fefefe"
"""Texts on coloured bars, which look the same in the dark."""
_IN_THE_DARK = {
    INK: "#e6e9ed",
    MUTED: "#a3adb8",
    BASELINE: "#b8c0c9",
    FAINT: "#6b7580",
    GRID: "#2c343c",
    PAPER: "#14181d",
    "#0072b2": "#4da6e0",
}
"""What colours become in dark mode; all others stay."""
DASHED = (0, (3, 2))
HALO: Sequence[AbstractPathEffect] = (withStroke(linewidth=2.5, foreground=PAPER),)
"""Around texts that lines may pass."""
# Okabe and Ito's palette, without the yellow that vanishes on white, and four more.
CURRICULA = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b3294",
    "#8c510a",
    "#b2182b",
    "#66a61e",
)
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.hashsalt": "upchirp",
}


@contextmanager
def styled_context() -> Iterator[None]:
    """Draw in the report's style, whatever the user's is."""
    # The user's matplotlibrc must not change the report, and a name may hold characters that the font lacks.
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def drawn(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Let a function draw its figure in the report's style."""

    @wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with styled_context():
            return draw(*args, **kwargs)

    return styled


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG file with text as outlines, the same bytes for the same figure.

    It has no background, and where the reader prefers dark pages its greys are light.

    >>> to_svg(Figure())[:5]
    b'<?xml'
    """
    stream = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled_context():
        figure.savefig(stream, format="svg", metadata=metadata)
    return _with_dark_mode(stream.getvalue().decode("utf-8")).encode("utf-8")


def _with_dark_mode(svg: str) -> str:
    """Colours become variables, with the light colour where no variable is set."""
    for color in _IN_THE_DARK:
        svg = svg.replace(f": {color}", f": var(--c{color[1:]}, {color})")
    dark = "; ".join(f"--c{color[1:]}: {other}" for color, other in _IN_THE_DARK.items())
    style_sheet = f"<style>@media screen and (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    end = svg.index(">", svg.index("<svg")) + 1
    return svg[:end] + style_sheet + svg[end:]


def bandwidth_colors(bandwidths: Sequence[int]) -> dict[int, str]:
    """A colour for each distinct bandwidth, from light to dark as it rises.

    >>> list(bandwidth_colors([64, 28, 64]))
    [28, 64]
    """
    sides = sorted(set(bandwidths))
    return {
        side: to_hex(colormaps["Blues"](0.92 - 0.62 * (len(sides) - 1 - place) / max(1, len(sides) - 1)))
        for place, side in enumerate(sides)
    }


def time_unit(longest: float) -> tuple[str, float]:
    """The unit for a time axis that reaches up to `longest` seconds, and its length in seconds.

    >>> time_unit(90), time_unit(400), time_unit(20_000)
    (('s', 1.0), ('min', 60.0), ('h', 3600.0))
    """
    if longest < 180:
        return "s", 1.0
    return ("min", 60.0) if longest < 3 * 3600 else ("h", 3600.0)


def plain(text: str) -> str:
    r"""The text for matplotlib, which would otherwise read mathematics between dollar signs.

    >>> plain("a$b$")
    'a\\$b\\$'
    """
    return text.replace("$", r"\$")


def variant_colors(summary: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each variant; the baseline is grey."""
    baseline, *others = dict.fromkeys(run["name"] for run in summary["runs"])
    palette = {name: CURRICULA[place % len(CURRICULA)] for place, name in enumerate(others)}
    return {baseline: BASELINE, **palette}


def new_figure(height: float, width: float = WIDE) -> Figure:
    """An empty figure, by default as wide as the report; sides in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    """Put a legend above the figure, in as many columns as fit."""
    labels = [str(handle.get_label()) for handle in handles]
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles=list(handles), labels=labels, loc="outside upper left", ncols=columns, fontsize=8.5
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def keep_to_percent(axes: Axes) -> None:
    """Let an axis of percentages end at 0 and 100, with whole marks at both, as there are none beyond."""
    low, high = axes.get_ylim()
    # Percentages that are all 0 would lie between negative ones.
    axes.set_ylim(max(low, 0.0), min(max(high, 1.0), 100.0))
    for mark in (*axes.lines, *axes.collections):
        # Margins of errors may reach beyond.
        if not isinstance(mark, LineCollection):
            mark.set_clip_on(False)


def ink_on(color: str) -> str:
    """The text colour that reads well on `#rrggbb`."""
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return _ON_DARK if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else _ON_LIGHT
