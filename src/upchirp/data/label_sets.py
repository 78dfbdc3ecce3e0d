"""Several labels for an image: which classes each label stands for."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from upchirp.errors import InputError

AnySource = TypeVar("AnySource")


class LabelSets:
    """Which of the classes each label stands for, where images have several or none.

    An image's label stays one number, that of its set of classes: what carries labels, from loader to selection, is
    the same as with one class for each image, and the task alone looks up what they stand for. A source whose images
    have several labels has them as `label_sets`.

    Args:
        rows: whether a set holds a class, (sets, classes).

    Raises:
        InputError: no table.

    >>> sets = LabelSets.of([(0, 2), ()], classes=3)
    >>> sets.rows.tolist(), sets.counts(np.array([0, 0, 1])).tolist()
    ([[True, False, True], [False, False, False]], [2, 0, 2])
    """

    def __init__(self, rows: npt.ArrayLike) -> None:
        self.rows: npt.NDArray[np.bool_] = np.asarray(rows, dtype=np.bool_)
        """Whether a set holds a class, (sets, classes): a byte for each."""
        if self.rows.ndim != 2:
            raise InputError(f"label sets of shape {self.rows.shape}: give a table, a row of classes for each set")

    @classmethod
    def of(cls, members: Iterable[Iterable[int]], classes: int) -> "LabelSets":
        """Sets by the classes that are in them.

        Args:
            members: the numbers of the classes, for each set.
            classes: how many there are.

        Raises:
            InputError: a number that counts no class.
        """
        listed = [list(each) for each in members]
        rows = np.zeros((len(listed), classes), np.bool_)
        for row, each in zip(rows, listed, strict=True):
            if any(not 0 <= number < classes for number in each):
                raise InputError(f"a label set holds the classes {each}: they count {classes} from 0")
            row[each] = True
        return cls(rows)

    def __len__(self) -> int:
        """The number of sets."""
        return len(self.rows)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.rows.shape[1])

    @property
    def members(self) -> list[list[int]]:
        """The numbers of the classes in each set: plain data, which `of` reads."""
        return [np.flatnonzero(row).tolist() for row in self.rows]

    @property
    def sha256(self) -> str:
        """Tells these sets from others."""
        return hashlib.sha256(repr(self.rows.shape).encode() + np.packbits(self.rows).tobytes()).hexdigest()

    def counts(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """How many images have each class, (classes,), by their labels (images,)."""
        images = np.bincount(labels, minlength=len(self))
        return np.asarray(images @ self.rows.astype(np.int64), dtype=np.int64)

    def rarest(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The rarest class of each image, (images,); the number of classes for an image without any.

        What gives each of these groups its share gives rare classes theirs, which single sets are too many for.
        """
        counts = self.counts(labels)
        # In rising order of images the first class of a row is the rarest one.
        order = np.argsort(counts, kind="stable")
        rarest = np.where(self.rows.any(axis=1), order[np.argmax(self.rows[:, order], axis=1)], self.classes)
        return np.asarray(rarest[labels], dtype=np.int64)

    def renumbered(self, numbers: Sequence[int], classes: int) -> "LabelSets":
        """The same sets of classes that are counted otherwise: `numbers` gives the new one of each, of so many."""
        rows = np.zeros((len(self), classes), np.bool_)
        rows[:, list(numbers)] = self.rows
        return LabelSets(rows)

    def joined(self, other: "LabelSets") -> tuple["LabelSets", tuple[int, ...]]:
        """These sets with those of another table that are not among them, and which of all each of the other's is.

        Raises:
            InputError: they are of other numbers of classes.

        >>> both, numbers = LabelSets.of([(0,), (1,)], 2).joined(LabelSets.of([(0, 1), (1,)], 2))
        >>> both.members, numbers
        ([[0], [1], [0, 1]], (2, 1))
        """
        if other.classes != self.classes:
            raise InputError(f"label sets of {self.classes} and of {other.classes} classes: give both the same classes")
        known = {row.tobytes(): number for number, row in reversed(list(enumerate(self.rows)))}
        new: list[npt.NDArray[np.bool_]] = []
        numbers = []
        for row in other.rows:
            if (key := row.tobytes()) not in known:
                known[key] = len(self) + len(new)
                new.append(row)
            numbers.append(known[key])
        return (LabelSets(np.concatenate([self.rows, new])) if new else self), tuple(numbers)


def one_label_each(source: AnySource, what: str) -> AnySource:
    """The source, unless its images have several labels each.

    Raises:
        InputError: saying what is for images with one.
    """
    if label_sets_of(source) is not None:
        raise InputError(f"{what} is for images with one label each, and these have several")
    return source


def label_sets_of(source: Any) -> LabelSets | None:
    """What the labels of a source stand for, if its images have several; nothing if each has one class."""
    sets: LabelSets | None = getattr(source, "label_sets", None)
    return sets
