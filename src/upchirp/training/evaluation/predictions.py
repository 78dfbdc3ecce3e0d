"""Predictions of an evaluation, image by image: for accuracy by class, confusion and paired comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from upchirp.errors import InputError
from upchirp.files import whole_file
from upchirp.training.engine.label_scores import LabelScores

Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """The label and the first guess of each image, in the order of the data set; images nobody could read are missing.

    They take 12 bytes an image whatever the number of classes is.
    """

    indices: Integers
    """Which images of the data set, rising, (N,)."""
    labels: Integers
    """Their labels, (N,)."""
    guesses: Integers
    """The class with the highest score, (N,)."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Which guesses are right, (N,)."""
        right: npt.NDArray[np.bool_] = self.labels == self.guesses
        return right

    def by_class(self, classes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each class how many of its images were guessed right, and how many there are, (classes,) each.

        >>> made = Predictions(
        ...     indices=np.arange(3, dtype=np.int32),
        ...     labels=np.array([0, 0, 2], np.int32),
        ...     guesses=np.array([0, 1, 2], np.int32),
        ... )
        >>> right, images = made.by_class(3)
        >>> right.tolist(), images.tolist()
        ([1, 0, 1], [2, 0, 1])
        """
        right = np.bincount(self.labels[self.hits], minlength=classes)
        return right, np.bincount(self.labels, minlength=classes)

    def confusions(self) -> list[tuple[int, int, int]]:
        """(label, guess, images) of each pair of classes that was confused, the most frequent first.

        Only pairs that occur are held, so 21,000 classes take no more memory than two.
        """
        wrong = ~self.hits
        pairs, counts = np.unique(np.stack([self.labels[wrong], self.guesses[wrong]]), axis=1, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(pairs[0, k]), int(pairs[1, k]), int(counts[k])) for k in order]

    def matrix(self, classes: int) -> npt.NDArray[np.int64]:
        """How many images of each class (row) were taken for each (column), (classes, classes)."""
        flat = self.labels.astype(np.int64) * classes + self.guesses
        return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Keep predictions in a compressed NumPy archive.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_file(path) as file:
        np.savez_compressed(file, indices=predictions.indices, labels=predictions.labels, guesses=predictions.guesses)


def write_scores(path: Path, scores: LabelScores) -> None:
    """Keep the scores of images with several labels in a compressed NumPy archive.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_file(path) as file:
        np.savez_compressed(file, indices=scores.indices, truth=scores.truth, scores=scores.scores)


def read_scores(path: Path) -> LabelScores | None:
    """What `write_scores` kept; nothing if the file is missing.

    Raises:
        InputError: a damaged file.
    """
    kept = _kept(path, ("indices", "truth", "scores"))
    return None if kept is None else LabelScores(**kept)


def read_predictions(path: Path) -> Predictions | None:
    """What `write_predictions` kept; nothing if the file is missing, as in folders of earlier versions.

    Raises:
        InputError: a damaged file.
    """
    kept = _kept(path, ("indices", "labels", "guesses"))
    return None if kept is None else Predictions(**kept)


def _kept(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]] | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return {name: kept[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"cannot read {path} ({error}): delete it, and the comparison does without") from error
