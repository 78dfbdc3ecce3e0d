"""How well a model does class by class, and what it takes for what, as texts for a page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upchirp.reports.page import png_source

MOST_CELLS = 24
"""Classes up to which the matrix is a table that can be read."""
MOST_PIXELS = 1000
"""Classes up to which it is a picture; beyond, only pairs are told."""
_WORST, _PAIRS = 12, 15


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Guesses counted by class."""

    right: NDArray[np.int64]
    """Images of each class that are guessed right, (classes,)."""
    images: NDArray[np.int64]
    """Images of each class, (classes,)."""
    classes: Sequence[str] = ()
    """Names of the classes, label 0 first."""
    confusions: Sequence[tuple[int, int, int]] = ()
    """(label, guess, images), the most frequent first."""
    matrix: NDArray[np.int64] | None = None
    """Images of each class (row) that were taken for each (column), (classes, classes)."""

    def name(self, label: int) -> str:
        """The name of a class."""
        return self.classes[label] if label < len(self.classes) else f"class {label}"


@dataclass(frozen=True, kw_only=True)
class ClassTables:
    """The parts of a page that tell them."""

    worst: Sequence["_Class"]
    """The classes of lowest accuracy."""
    classes: Sequence["_Class"]
    """All of them, if those are not all and a page can hold them."""
    pairs: Sequence["_Pair"]
    """What was confused most often."""
    cells: Sequence[Sequence["_Cell"]]
    """The matrix, if it is small."""
    labels: Sequence[str]
    """The names of its rows and columns."""
    map: str | None
    """The matrix as a picture, if it is large."""


def class_tables(scores: ClassScores) -> ClassTables:
    """The texts of all tables."""
    return ClassTables(
        worst=_worst(scores),
        classes=_all_classes(scores),
        pairs=_pairs(scores),
        cells=_cells(scores),
        labels=[scores.name(label) for label in range(len(scores.images))],
        map=_map(scores),
    )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two classes that were confused."""

    label: str
    guess: str
    images: str
    share: str


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One cell of the matrix."""

    share: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Class:
    """A class as texts."""

    name: str
    accuracy: str
    images: str


def _class(scores: ClassScores, label: int) -> _Class:
    right, images = int(scores.right[label]), int(scores.images[label])
    return _Class(name=scores.name(label), accuracy=f"{100 * right / images:.1f}", images=f"{right} of {images}")


def _by_accuracy(scores: ClassScores) -> list[int]:
    """Classes that have validation images, the worst first."""
    right, images = scores.right.tolist(), scores.images.tolist()
    return sorted((k for k in range(len(images)) if images[k]), key=lambda k: (right[k] / images[k], k))


def _worst(scores: ClassScores) -> list[_Class]:
    return [_class(scores, label) for label in _by_accuracy(scores)[:_WORST]]


def _all_classes(scores: ClassScores) -> list[_Class]:
    """Every class, if the worst ones are not all of them and a page can hold them."""
    ordered = _by_accuracy(scores)
    return [_class(scores, label) for label in ordered] if _WORST < len(ordered) <= MOST_PIXELS else []


def _pairs(scores: ClassScores) -> list[_Pair]:
    return [
        _Pair(
            label=scores.name(label),
            guess=scores.name(guess),
            images=f"{count} of {int(scores.images[label])}",
            share=f"{100 * count / int(scores.images[label]):.0f}",
        )
        for label, guess, count in scores.confusions[:_PAIRS]
    ]


def _shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row as shares of its class."""
    shares: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def _cells(scores: ClassScores) -> list[list[_Cell]]:
    """The matrix as a table, if it is small."""
    if scores.matrix is None or len(scores.matrix) > MOST_CELLS:
        return []
    counts = scores.matrix.tolist()
    return [
        [_Cell(share=f"{share:.2f}", text=str(count) if count else "") for share, count in zip(row, own, strict=True)]
        for row, own in zip(_shares(scores.matrix).tolist(), counts, strict=True)
    ]


def _map(scores: ClassScores) -> str | None:
    """The matrix as a picture, a pixel for each pair, if it is too large for a table."""
    if scores.matrix is None or len(scores.matrix) <= MOST_CELLS:
        return None
    # See-through where nothing is, so that it suits dark pages too; the root makes rare confusions visible.
    pixels = np.zeros((*scores.matrix.shape, 4), np.uint8)
    pixels[..., :3] = (38, 140, 204)
    pixels[..., 3] = np.rint(255 * np.sqrt(_shares(scores.matrix)))
    return png_source(pixels)
