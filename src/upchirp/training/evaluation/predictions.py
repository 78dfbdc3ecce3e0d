"""Predictions of an evaluation, image by image: for accuracy by class, confusion and paired comparisons."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from upchirp.errors import InputError, reason_of
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


Answers = TypeVar("Answers", Predictions, LabelScores)


def write_answers(path: Path, answers: Predictions | LabelScores) -> None:
    """Keep what a model answered in a compressed NumPy archive."""
    with whole_file(path) as file:
        np.savez_compressed(file, **{entry.name: getattr(answers, entry.name) for entry in fields(answers)})


def read_answers(kind: type[Answers], path: Path) -> Answers | None:
    """What `write_answers` kept of a kind; nothing if the file is missing, as in folders of earlier versions.

    Raises:
        InputError: a damaged file.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return kind(**{entry.name: kept[entry.name] for entry in fields(kind)})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"cannot read {path} ({reason_of(error, path)}): delete it, and the comparison does without"
        ) from error
