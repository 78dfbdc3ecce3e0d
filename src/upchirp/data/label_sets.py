"""Several labels for an image: which classes each label stands for."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
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

    @classmethod
    def of_images(cls, members: Iterable[Iterable[int]], classes: int) -> "LabelSets":
        """The sets that some images have, each once, in rising order; `labels` says which of them each image has.

        Args:
            members: the numbers of the classes, for each image.
            classes: how many there are.

        Raises:
            InputError: a number that counts no class.
        """
        return cls.of(sorted(set(map(_as_set, members))), classes)

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

    def labels(self, members: Iterable[Iterable[int]]) -> npt.NDArray[np.int32]:
        """The label of each image by the numbers of its classes, (images,).

        >>> sets = LabelSets.of_images([(2, 0), (), (0, 2)], classes=3)
        >>> sets.members, sets.labels([(2, 0), ()]).tolist()
        ([[], [0, 2]], [1, 0])

        Raises:
            LookupError: an image has a set that is none of these.
        """
        places = {tuple(each): place for place, each in enumerate(self.members)}
        return np.array([places[_as_set(each)] for each in members], np.int32)

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


def _as_set(members: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(members)))


def labels_by_name(
    splits: Sequence[Sequence[Iterable[str]]], classes: Sequence[str], *, several: bool
) -> tuple[list[npt.NDArray[np.int32]], LabelSets | None]:
    """The labels of images, split by split, by the names of their classes.

    Args:
        splits: of each split the names for each of its images.
        classes: names of all classes, label 0 first.
        several: whether images have several labels or none; else each has one.

    Returns:
        Labels of each split, (images,), and what they stand for where images have several.

    Raises:
        LookupError: a name that is no class.

    >>> labels_by_name([[["dog"], ["cat"]], [["dog"]]], ("cat", "dog"), several=False)
    ([array([1, 0], dtype=int32), array([1], dtype=int32)], None)
    """
    numbers = {name: number for number, name in enumerate(classes)}
    members = [[[numbers[name] for name in names] for names in split] for split in splits]
    if not several:
        return [np.array([number for (number,) in split], np.int32) for split in members], None
    sets = LabelSets.of_images(chain(*members), len(classes))
    return [sets.labels(split) for split in members], sets


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
