"""The report of how alike two runs' checkpoints are: an HTML file and a picture of its map."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from upchirp.files import whole_path, write_text
from upchirp.reports.page import picture, render
from upchirp.reports.style import PAPER, WIDE, drawn, new_figure, plain, styled_context
from upchirp.reports.words import shortened


def write_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write the map and its numbers as one HTML file.

    Args:
        summary: the content of `similarity.json`.
        path: the file to write.

    Raises:
        OSError: the file cannot be written.
    """
    first, second = summary["runs"]
    page = render(
        "similarity.html.j2",
        summary=summary,
        first=first,
        second=second,
        rows=list(zip(_labels(first), summary["cka"], strict=True)),
        columns=_labels(second),
        similarity_map=picture(similarity_map, summary),
        verdict=verdict(summary),
    )
    write_text(path, page)


def write_figure(summary: Mapping[str, Any], path: Path) -> None:
    """Write the map as a PNG file on white.

    Raises:
        OSError: the file cannot be written.
    """
    figure = similarity_map(summary)
    with whole_path(path) as temporary, styled_context():
        figure.savefig(temporary, format="png", dpi=150, facecolor=to_rgb(PAPER))


def verdict(summary: Mapping[str, Any]) -> str:
    """What is most alike, in one sentence.

    >>> run = {"folder": "a", "equivalent_epochs": [1.0, 2.0]}
    >>> print(verdict({"runs": [run, {**run, "folder": "b"}], "cka": [[0.9, 0.5], [0.8, 0.7]]}))
    The last checkpoints have a similarity of 0.70; the last one of b is most like that of a after 2 of 2 epochs (0.70).
    """
    first, second = summary["runs"]
    cka = np.array(summary["cka"])
    best = int(cka[:, -1].argmax())
    at, whole = first["equivalent_epochs"][best], first["equivalent_epochs"][-1]
    return (
        f"The last checkpoints have a similarity of {cka[-1, -1]:.2f}; the last one of {second['folder']} is most like "
        f"that of {first['folder']} after {at:.3g} of {whole:.3g} epochs ({cka[best, -1]:.2f})."
    )


@drawn
def similarity_map(summary: Mapping[str, Any], width: float = WIDE) -> Figure:
    """The similarity of every pair of checkpoints over the compute that each has spent, equal compute as a white line.

    Args:
        summary: the content of `similarity.json`.
        width: inches.
    """
    first, second = summary["runs"]
    side = min(width, 6.2)
    figure = new_figure(0.86 * side, side)
    axes = figure.add_subplot()
    ys, xs = (_edges(run["equivalent_epochs"]) for run in (first, second))
    mesh = axes.pcolormesh(xs, ys, np.array(summary["cka"]), cmap="magma", vmin=0, vmax=1, edgecolors="face")
    reach = min(xs[-1], ys[-1])
    axes.plot([0, reach], [0, reach], color="#fefefe", linewidth=1.4)
    axes.set_xlim(xs[0], xs[-1])
    axes.set_ylim(ys[0], ys[-1])
    axes.grid(visible=False)
    length = 34 if width == WIDE else 22
    axes.set_xlabel(f"{plain(shortened(_name(second), length))}\nequivalent epochs")
    axes.set_ylabel(f"{plain(shortened(_name(first), length))}\nequivalent epochs")
    bar = figure.colorbar(mesh, ax=axes)
    bar.set_label("similarity (linear CKA)")
    bar.outline.set_visible(False)
    return figure


def _name(run: Mapping[str, Any]) -> str:
    return f"{run['curriculum']} ({Path(run['folder']).name})"


def _labels(run: Mapping[str, Any]) -> list[str]:
    return [f"{epochs:.3g}" for epochs in run["equivalent_epochs"]]


def _edges(middles: Sequence[float]) -> list[float]:
    """Where cells end that lie around their values; one value has a cell as wide as it is large.

    >>> _edges([1.0, 2.0, 4.0])
    [0.5, 1.5, 3.0, 5.0]
    """
    if len(middles) == 1:
        return [0.0, 2 * middles[0] or 1.0]
    inner = [(left + right) / 2 for left, right in pairwise(middles)]
    return [max(0.0, 2 * middles[0] - inner[0]), *inner, 2 * middles[-1] - inner[-1]]
