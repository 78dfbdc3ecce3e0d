"""The labels of a Hugging Face data set: one class a row, or a list of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from upchirp.data.label_sets import LabelSets
from upchirp.data.sources.hugging_face_columns import inner
from upchirp.data.sources.table_labels import in_order
from upchirp.errors import InputError

# No data set has so many classes, and a list of their names would fill the memory.
_MOST_CLASSES = 10_000_000


class ReadLabels(NamedTuple):
    """What a column of labels holds."""

    labels: npt.NDArray[np.int32]
    """Of each image, (images,)."""
    classes: tuple[str, ...]
    """The names of the classes, label 0 first."""
    sets: LabelSets | None = None
    """Which classes each label stands for, where rows hold lists."""


def read_labels(
    dataset: Any, column: str, rows: npt.NDArray[np.int64] | None, classes: tuple[str, ...], what: str
) -> ReadLabels:
    """The labels of a data set's rows.

    Lists hold numbers or names of classes; or, where all are equally long and hold 0 and 1 alone, whether an image has
    each class.

    Args:
        dataset: a `datasets.Dataset`.
        column: of labels.
        rows: numbers of the rows in the data set's table, in their order; by default all.
        classes: names of the classes; by default those of the `ClassLabel`, those that lists of texts hold, or numbers.
        what: they are called in messages.

    Raises:
        InputError: a label is missing, or outside of the classes.
    """
    feature, stored = dataset.features[column], dataset.data.column(column)
    if (values := inner(feature)) is None:
        labels = stored.cast("int64").fill_null(-1).to_numpy()
        labels = labels if rows is None else labels[rows]
        names = classes or tuple(getattr(feature, "names", ()) or ())
        return ReadLabels(*_checked(labels, names, what))
    lists = stored.to_pylist()
    lists = lists if rows is None else [lists[row] for row in rows.tolist()]
    names = classes or tuple(getattr(values, "names", ()) or ())
    return _sets(_numbers(lists, names, what), what)


class _Lists(NamedTuple):
    """The numbers of each row's classes, and the names of all."""

    members: Sequence[Sequence[int]]
    classes: tuple[str, ...]


def _numbers(lists: list[Any], classes: tuple[str, ...], what: str) -> _Lists:
    for row, values in enumerate(lists):
        if values is None or None in values:
            raise InputError(f"{what} are missing in row {row}: an image without labels has an empty list")
    occurring = {value for values in lists for value in values}
    if all(isinstance(value, str) for value in occurring):
        classes = classes or in_order(occurring)
        numbers = {name: number for number, name in enumerate(classes)}
        for row, values in enumerate(lists):
            if unknown := next((name for name in values if name not in numbers), None):
                raise InputError(f"{what}: {unknown} in row {row} is none of the {len(classes)} classes")
        return _Lists([[numbers[name] for name in values] for values in lists], classes)
    lengths = {len(values) for values in lists}
    if occurring <= {0, 1} and len(lengths) == 1 and (length := lengths.pop()) > 1 and len(classes) in (0, length):
        members = [[number for number, has in enumerate(values) if has] for values in lists]
        return _Lists(members, classes or tuple(map(str, range(length))))
    if any(isinstance(value, bool) for value in occurring):
        raise InputError(f"{what} are lists of true and false, of {len(lengths)} lengths: give one for each class")
    flat = np.array([value for values in lists for value in values], np.int64)
    ends = np.cumsum([len(values) for values in lists])
    _, classes = _checked(flat, classes, what, ends)
    return _Lists(lists, classes)


def _sets(read: _Lists, what: str) -> ReadLabels:
    if not read.classes:
        raise InputError(f"{what} are empty lists: choose a split with labels")
    sets = LabelSets.of_images(read.members, len(read.classes))
    return ReadLabels(sets.labels(read.members), read.classes, sets)


def _checked(
    labels: npt.NDArray[np.int64], classes: tuple[str, ...], what: str, ends: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """The labels and the names of all classes; `ends` says where those of each row end, if there are several."""
    if not classes and len(labels):
        largest = int(labels.max())
        if largest >= _MOST_CLASSES:
            raise InputError(f"{what} go up to {largest}: they are no class numbers, name the right column")
        classes = tuple(str(number) for number in range(largest + 1))
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        place = int(outside[0])
        row = place if ends is None else int(np.searchsorted(ends, place, side="right"))
        limits = f"0 to {len(classes) - 1}" if classes else "0 or more"
        raise InputError(
            f"{what} must be {limits}, and {len(outside)} are not or are missing (row {row} has {labels[place]}): "
            "choose a split with labels, or remove these rows"
        )
    return labels.astype(np.int32), classes
