"""Figures of a comparison, each a pure function of `summary.json`'s content."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from statistics import fmean
from typing import Any, ParamSpec

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from upchirp.curriculum import Plan

_P = ParamSpec("_P")

_WIDTH = 9.2
_STRIP_WIDTH = 720
_EXAMPLE_SIDE = 120
_GAP = 8
_INK, _MUTED = "#1f2933", "#5b6672"
_BASELINE, _FAINT = "#4b5563", "#9aa3ad"
_DASHED = (0, (3, 2))
# Okabe and Ito's palette, without the yellow that vanishes on white.
_CURRICULA = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ecef",
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "svg.hashsalt": "upchirp",
}


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """The examples as one stage of a plan shows them."""

    bandwidth: int
    """Side in pixels of the low-frequency input."""
    progress: tuple[float, float]
    """Progress at the start and at the end of the stage."""
    magnitude: tuple[float, float]
    """RandAugment magnitude at the start and at the end."""
    images: Sequence[NDArray[np.uint8]]
    """uint8 arrays of shape `(bandwidth, bandwidth, 3)`, as the model sees them."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The same few images in every stage of one curriculum."""

    label: str
    """Name of the curriculum."""
    rows: Sequence[ExampleRow]
    """One for each stage, in the order of training."""


@contextmanager
def _styled() -> Iterator[None]:
    # The user's matplotlibrc must not change the report, and a name may hold characters that the font lacks.
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _drawn(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    @wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with _styled():
            return draw(*args, **kwargs)

    return styled


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG file with text as outlines, the same bytes for the same figure.

    >>> to_svg(Figure())[:5]
    b'<?xml'
    """
    stream = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _styled():
        figure.savefig(stream, format="svg", metadata=metadata)
    return stream.getvalue()


@_drawn
def accuracy_against_time(summary: Mapping[str, Any]) -> Figure:
    """Final accuracy against training time: a point per run and seed, a line through the means of a curriculum.

    A dashed line marks the baseline's mean accuracy; an arrow along it leads from the baseline's training time to the
    time at which a curriculum reaches the same accuracy.

    Args:
        summary: the content of `summary.json`; seconds and top-1 in percent.
    """
    runs = summary["runs"]
    figure = _figure(4.4)
    axes = figure.add_subplot()
    unit, seconds_in_unit = time_unit(max(max(run["train_seconds"]) for run in runs))
    handles = []
    for name, color in _colors(summary).items():
        own = sorted((run for run in runs if run["curriculum"] == name), key=lambda run: fmean(run["train_seconds"]))
        for run in own:
            times = [seconds / seconds_in_unit for seconds in run["train_seconds"]]
            axes.scatter(times, run["accuracy"], s=22, color=color, alpha=0.45, linewidths=0, zorder=3)
        mean_times = [fmean(run["train_seconds"]) / seconds_in_unit for run in own]
        means = [fmean(run["accuracy"]) for run in own]
        axes.plot(mean_times, means, color=color, linewidth=1.6, zorder=2)
        axes.scatter(mean_times, means, s=58, marker="D", color=color, edgecolors="white", linewidths=1, zorder=4)
        for run, x, y in zip(own, mean_times, means, strict=True):
            axes.annotate(
                f"budget {_budget(run)}",
                (x, y),
                # A curve that rises passes above this place, and so do its seeds.
                xytext=(9, -9),
                textcoords="offset points",
                ha="left",
                va="center",
                fontsize=8,
                color=color,
                zorder=3.5,
            )
        handles.append(Line2D([], [], color=color, marker="D", markersize=5, label=plain(shortened(name))))
    level = fmean(runs[0]["accuracy"])
    axes.axhline(level, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _arrows(figure, axes, summary, level, seconds_in_unit)
    axes.set_xlabel(f"training time ({unit})")
    axes.set_ylabel(f"top-1 accuracy at {summary['final_size']} px (%)")
    axes.margins(y=0.2)
    axes.set_xlim(0, 1.12 * max(max(run["train_seconds"]) for run in runs) / seconds_in_unit)
    _legend(figure, handles)
    return figure


def _arrows(figure: Figure, axes: Axes, summary: Mapping[str, Any], level: float, seconds_in_unit: float) -> None:
    colors = _colors(summary)
    reached = [(name, speedup) for name, speedup in summary["speedups"].items() if speedup["ratio"] is not None]
    for place, (name, speedup) in enumerate(reached):
        start, end = (speedup[key] / seconds_in_unit for key in ("baseline_seconds", "seconds"))
        color = colors.get(name, _INK)
        shifted = offset_copy(axes.transData, figure, y=-28 * place, units="points")
        axes.annotate(
            "",
            xy=(end, level),
            xytext=(start, level),
            xycoords=shifted,
            textcoords=shifted,
            arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "shrinkA": 7, "shrinkB": 0},
            zorder=5,
        )
        at_least = "at least " if speedup["kind"] == "at least" else ""
        axes.annotate(
            f"{at_least}{speedup['ratio']:.2f}×",
            xy=((start + end) / 2, level),
            xytext=(0, -15),
            xycoords=shifted,
            textcoords="offset points",
            ha="center",
            fontsize=11,
            fontweight="bold",
            color=color,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            zorder=4.5,
        )


@_drawn
def accuracy_during_training(summary: Mapping[str, Any]) -> Figure:
    """Accuracy during training, a panel per run against the baseline (Figure 8).

    Solid lines are evaluations at the final size of the weights that the run exports: the average's if there is one.
    Dashed lines are evaluations at the bandwidth of the current stage. One line for each seed.

    Args:
        summary: the content of `summary.json`; seconds and top-1 in percent.
    """
    baseline, *others = summary["runs"]
    panels = others or [baseline]
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = -(-len(panels) // columns)
    figure = _figure(0.7 + (2.9 if columns > 1 else 3.4) * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    unit, seconds_in_unit = time_unit(max(max(run["train_seconds"]) for run in summary["runs"]))
    colors, final = _colors(summary), summary["final_size"]
    for axes, run in zip(grid.flat, panels, strict=False):
        color = colors[run["curriculum"]]
        for history in run.get("history", ()):
            _plot_history(axes, _exported(history, final), seconds_in_unit, color=color, zorder=3)
            early = [point for point in history if point["bandwidth"] != final]
            _plot_history(axes, early, seconds_in_unit, color=color, linestyle=_DASHED, zorder=3)
        if run is not baseline:
            for history in baseline.get("history", ()):
                _plot_history(axes, _exported(history, final), seconds_in_unit, color=_FAINT, zorder=2)
        for boundary in np.cumsum(stage_seconds(run))[:-1]:
            axes.axvline(boundary / seconds_in_unit, color=_FAINT, linewidth=1, linestyle=":", zorder=1)
        axes.set_title(f"{plain(shortened(run['curriculum']))}\nbudget {_budget(run)}", color=color)
    grid[0, 0].set_xlim(left=0)
    grid[0, 0].set_ylim(bottom=0)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(f"training time ({unit})", fontsize=9)
    figure.supylabel("top-1 accuracy (%)", fontsize=9)
    handles = [Line2D([], [], color=_INK, linewidth=1.6, label=f"at the final size, {final} px")]
    if any(stage.bandwidth != final for run in panels for stage in _plan(run).stages):
        dashed = Line2D([], [], color=_INK, linewidth=1.6, linestyle=_DASHED, label="at the current bandwidth")
        handles += [dashed, Line2D([], [], color=_MUTED, linestyle=":", label="change of bandwidth")]
    if others:
        name = plain(shortened(baseline["curriculum"]))
        handles.append(Line2D([], [], color=_FAINT, linewidth=1.6, label=f"{name}, at the final size"))
    _legend(figure, handles)
    return figure


def _exported(history: Sequence[Mapping[str, Any]], final: int) -> list[Mapping[str, Any]]:
    """Evaluations at the final size of the average, or of the model if there is no average."""
    points = [point for point in history if point["bandwidth"] == final]
    return [point for point in points if point["weights"] == "ema"] or points


def _plot_history(axes: Axes, points: Sequence[Mapping[str, Any]], seconds_in_unit: float, **line: Any) -> None:
    if points:
        times = [point["train_seconds"] / seconds_in_unit for point in points]
        axes.plot(times, [point["top1"] for point in points], linewidth=1.5, alpha=0.85, **line)


@_drawn
def stages_on_a_time_line(summary: Mapping[str, Any]) -> Figure:
    """The stages of each run on a time line, a bar per run coloured by bandwidth.

    Args:
        summary: the content of `summary.json`; seconds are means over the seeds.
    """
    runs = summary["runs"]
    figure = _figure(1.2 + 0.52 * len(runs))
    axes = figure.add_subplot()
    longest = max(fmean(run["train_seconds"]) for run in runs)
    unit, seconds_in_unit = time_unit(longest)
    colors = bandwidth_colors([stage.bandwidth for run in runs for stage in _plan(run).stages])
    for place, run in enumerate(runs):
        left = 0.0
        for stage, seconds in zip(_plan(run).stages, stage_seconds(run), strict=True):
            color = colors[stage.bandwidth]
            axes.barh(
                place,
                seconds / seconds_in_unit,
                left=left / seconds_in_unit,
                height=0.62,
                color=color,
                edgecolor="white",
            )
            if seconds > 0.035 * longest:
                x = (left + seconds / 2) / seconds_in_unit
                axes.text(x, place, str(stage.bandwidth), ha="center", va="center", color=_ink_on(color))
            left += seconds
        axes.annotate(
            f"{left / seconds_in_unit:.1f} {unit}",
            (left / seconds_in_unit, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=_MUTED,
        )
    axes.set_yticks(
        range(len(runs)),
        [f"{plain(shortened(run['curriculum']))}, budget {_budget(run)}" for run in runs],
        color=_INK,
    )
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"training time ({unit})")
    axes.set_xlim(0, 1.1 * longest / seconds_in_unit)
    _legend(figure, [Patch(color=color, label=f"B = {side} px") for side, color in colors.items()])
    return figure


def stage_seconds(run: Mapping[str, Any]) -> list[float]:
    """Seconds of each stage of a run, mean over its seeds.

    Samples over measured images/s, scaled so that the stages add up to the run's training time. Where a bandwidth has
    no measured speed, the plan's relative cost takes its place for the whole run.

    Args:
        run: one of a summary's `runs`.
    """
    stages = _plan(run).stages
    speeds = run.get("images_per_second", {})
    if all(speeds.get(str(stage.bandwidth), 0) > 0 for stage in stages):
        shares = [stage.samples / speeds[str(stage.bandwidth)] for stage in stages]
    else:
        shares = [stage.cost for stage in stages]
    scale = fmean(run["train_seconds"]) / sum(shares)
    return [share * scale for share in shares]


def example_strip(row: ExampleRow, final_size: int) -> NDArray[np.uint8]:
    """A stage's examples side by side, every pixel of them a square of the same size in all stages.

    Each image stands in the middle of a cell as wide as the final size, so the strips of all stages align. As many
    examples are kept as fit.

    Args:
        row: the examples of one stage.
        final_size: side of the largest image, pixels.

    Returns:
        uint8 array of shape `(height, width, 3)` on white.

    >>> image = np.zeros((28, 28, 3), np.uint8)
    >>> row = ExampleRow(bandwidth=28, progress=(0, 0.2), magnitude=(0, 2), images=[image] * 8)
    >>> example_strip(row, 64).shape
    (56, 672, 3)
    """
    factor = max(1, round(_EXAMPLE_SIDE / final_size))
    cell = final_size * factor
    fitting = max(1, (_STRIP_WIDTH + _GAP) // (cell + _GAP))
    shown = [image.repeat(factor, 0).repeat(factor, 1) for image in list(row.images)[:fitting]]
    height = max((image.shape[0] for image in shown), default=1)
    strip = np.full((height, max(1, len(shown) * (cell + _GAP) - _GAP), 3), 255, np.uint8)
    for place, image in enumerate(shown):
        left = place * (cell + _GAP) + (cell - image.shape[1]) // 2
        strip[: image.shape[0], left : left + image.shape[1]] = image
    return strip


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


def shortened(text: str, length: int = 32) -> str:
    """The text with its middle left out if it is longer than `length`.

    >>> shortened("efficienttrain_plus_plus_convnext", 20)
    'efficientt…s_convnext'
    """
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-(length // 2) :]}"


def budget_text(budget: float) -> str:
    """A budget as a short number.

    >>> budget_text(0.6667), budget_text(1.0)
    ('0.67', '1')
    """
    return f"{round(budget, 2):g}"


def _budget(run: Mapping[str, Any]) -> str:
    return budget_text(run["budget"])


def _plan(run: Mapping[str, Any]) -> Plan:
    return Plan.from_dict(run["plan"])


def _colors(summary: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each curriculum; the baseline is grey."""
    baseline, *others = dict.fromkeys(run["curriculum"] for run in summary["runs"])
    palette = {name: _CURRICULA[place % len(_CURRICULA)] for place, name in enumerate(others)}
    return {baseline: _BASELINE, **palette}


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    labels = [str(handle.get_label()) for handle in handles]
    columns = max(1, min(len(handles), 150 // (max(map(len, labels)) + 6)))
    figure.legend(handles=list(handles), labels=labels, loc="outside upper left", ncols=columns, fontsize=8.5)


def _ink_on(color: str) -> str:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else _INK
