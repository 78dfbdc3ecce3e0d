"""How figures look: fonts, colours, units and labels."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import colormaps, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

_P = ParamSpec("_P")

_WIDTH = 9.2
INK, MUTED = "#1f2933", "#5b6672"
BASELINE, FAINT = "#4b5563", "#9aa3ad"
DASHED = (0, (3, 2))
# Okabe and Ito's palette, without the yellow that vanishes on white.
_CURRICULA = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
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
    "grid.color": "#e9ecef",
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

    >>> to_svg(Figure())[:5]
    b'<?xml'
    """
    stream = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled_context():
        figure.savefig(stream, format="svg", metadata=metadata)
    return stream.getvalue()


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


def curriculum_colors(summary: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each curriculum; the baseline is grey."""
    baseline, *others = dict.fromkeys(run["curriculum"] for run in summary["runs"])
    palette = {name: _CURRICULA[place % len(_CURRICULA)] for place, name in enumerate(others)}
    return {baseline: BASELINE, **palette}


def new_figure(height: float) -> Figure:
    """An empty figure as wide as the report; `height` in inches."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    """Put a legend above the figure, in as many columns as fit."""
    labels = [str(handle.get_label()) for handle in handles]
    columns = max(1, min(len(handles), 150 // (max(map(len, labels)) + 6)))
    figure.legend(handles=list(handles), labels=labels, loc="outside upper left", ncols=columns, fontsize=8.5)


def ink_on(color: str) -> str:
    """The text colour that reads well on `#rrggbb`."""
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK
