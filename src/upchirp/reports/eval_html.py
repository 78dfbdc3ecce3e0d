"""The report of an evaluation: classes, confusions, and pictures of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upchirp.files import write_text
from upchirp.reports.class_tables import ClassScores, class_tables
from upchirp.reports.page import Image, image_of, picture, render
from upchirp.reports.precision_figures import PrecisionCurve, precision_curves
from upchirp.reports.precision_tables import precision_rows


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Images of one class that were taken for another."""

    label: str
    """The class."""
    guess: str
    """What they were taken for."""
    images: int
    """How many there are."""
    pictures: Sequence[NDArray[np.uint8]]
    """A few of them, (S, S, 3) each."""


@dataclass(frozen=True, kw_only=True)
class _Shown:
    label: str
    guess: str
    images: str
    image: Image | None
    """A few of them; none where no picture could be read."""


def write_eval_report(
    name: str, headline: str, facts: str, scores: ClassScores, confused: Sequence[Confused], path: Path
) -> None:
    """Write an evaluation as one HTML file that loads nothing from anywhere.

    Args:
        name: of what was evaluated.
        headline: its best figure.
        facts: how and on what, in a line.
        scores: guesses counted by class.
        confused: the worst confusions.
        path: the file to write; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    page = render(
        "eval.html.j2",
        name=name,
        headline=headline,
        facts=facts,
        precisions=(),
        tables=class_tables(scores),
        pictures=[_shown(each) for each in confused],
    )
    write_text(path, page)


def write_precision_report(
    name: str,
    headline: str,
    facts: str,
    by_class: Sequence[Mapping[str, Any]],
    curves: Sequence[PrecisionCurve],
    path: Path,
) -> None:
    """Write an evaluation of images with several labels, likewise.

    Args:
        name: of what was evaluated.
        headline: its best figure.
        facts: how and on what, in a line.
        by_class: each class with its images and its figures; see `precision_rows`.
        curves: of the classes to draw.
        path: the file to write; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    page = render(
        "eval.html.j2",
        name=name,
        headline=headline,
        facts=facts,
        precisions=precision_rows(by_class),
        curves=picture(precision_curves, curves) if curves else None,
        drawn=len(curves),
        more=len(curves) < sum(row["images"] > 0 for row in by_class),
    )
    write_text(path, page)


def _shown(confused: Confused) -> _Shown:
    images = f"{confused.images:,} image{'s' if confused.images != 1 else ''}"
    image = image_of(np.concatenate(list(confused.pictures), axis=1)) if confused.pictures else None
    return _Shown(label=confused.label, guess=confused.guess, images=images, image=image)
