"""Checks that labels count the classes, and that two data sets mean the same by them."""

import numpy as np

from upchirp.data.identity import are_numbers, same_classes
from upchirp.data.images.pillow import DECODE_ERRORS
from upchirp.data.label_sets import label_sets_of
from upchirp.data.sources import Source
from upchirp.data.sources.listing import normal, without_images
from upchirp.data.sources.relabelled import renumbered
from upchirp.data.sources.subset import known_labels
from upchirp.errors import DataFault, InputError, some

_SAMPLED = 16


def validation_for(train: Source, val: Source) -> tuple[Source, list[str]]:
    """The validation images under the labels of the training images, and notes on them.

    Classes are matched by name where both data sets name them. A class may have no validation images.

    Raises:
        InputError: a validation class that the training images lack, one class in all, or a label outside of the
            classes, as far as labels are known without opening all images.

    >>> from upchirp.data import GeneratedSource, SubsetSource
    >>> train, val = (GeneratedSource(split, num_images=8, num_classes=4) for split in ("train", "val"))
    >>> val.classes = val.classes[::-1]
    >>> matched, notes = validation_for(train, val)
    >>> matched.load(0)[1], notes
    (3, ['the validation images have their classes in another order: labels are matched by name'])
    """
    if len(train.classes) == 1:
        raise InputError(f"the data have one class only ({train.classes[0]}): a classifier needs two")
    check_labels(train)
    if val.classes:
        check_labels(val)
    else:
        check_labels(val, len(train.classes) or None)
    ours, theirs = ([normal(name) for name in source.classes] for source in (train, val))
    if same_classes(ours, theirs) or (are_numbers(theirs) and len(theirs) <= len(ours)):
        if (sets := label_sets_of(val)) is not None and sets.classes < len(ours):
            return renumbered(val, range(sets.classes), train.classes), []
        return val, []
    if unknown := [name for name in theirs if name not in ours]:
        missing = [name for name in ours if name not in theirs]
        unused = f", and lack {some(missing)}" if missing else ""
        raise InputError(
            f"the validation images have {len(unknown)} class(es) that the training images lack ({some(unknown)})"
            f"{unused}: give both the same `classes`"
        )
    for split, names in (("training", ours), ("validation", theirs)):
        if len(set(names)) < len(names):
            raise InputError(f"the {split} images have two classes of one name, so that they cannot be matched")
    labels = [ours.index(name) for name in theirs]
    notes = without_images([name for name in ours if name not in theirs], len(ours), "validation")
    if labels != sorted(labels):
        notes.append("the validation images have their classes in another order: labels are matched by name")
    return renumbered(val, labels, train.classes), notes


def unranked(val: Source) -> list[str]:
    """A note on classes that no validation image has, where images have several: mAP says nothing of them.

    Raises:
        InputError: no image has any class.
    """
    sets, labels = label_sets_of(val), known_labels(val)
    if sets is None or labels is None:
        return []
    names = val.classes or tuple(map(str, range(sets.classes)))
    absent = [name for name, images in zip(names, sets.counts(labels), strict=True) if not images]
    if len(absent) == len(names):
        raise InputError("no validation image has any of the classes, so there is no mAP: give some that have")
    if not absent:
        return []
    return [f"{len(absent)} of {len(names)} classes have no validation images, and no part in mAP: {some(absent)}"]


def check_labels(source: Source, classes: int | None = None) -> None:
    """Check all labels that are known without opening an image, else those of a few images.

    Args:
        source: the images.
        classes: how many there are; by default as many as the source names, or any number.

    Raises:
        DataFault: naming an image whose label is outside.
        InputError: label sets of another number of classes than the source names.
    """
    sets = label_sets_of(source)
    if sets is not None and source.classes and sets.classes != len(source.classes):
        raise InputError(
            f"the source of {source.describe(0)} names {len(source.classes)} classes, and its `label_sets` have "
            f"{sets.classes}: give both the same"
        )
    count = len(sets) if sets is not None else classes or len(source.classes) or None
    known = known_labels(source)
    if known is not None:
        outside = np.flatnonzero((known < 0) | (known >= (count or np.inf)))
        indices = outside[:1].tolist()
    else:
        indices = np.unique(np.linspace(0, len(source) - 1, _SAMPLED).astype(int)).tolist() if len(source) else []
    for index in indices:
        try:
            label = source.load(index)[1]
        except InputError:
            raise
        except DECODE_ERRORS:
            continue
        check_label(source, index, label, count)


def check_label(source: Source, index: int, label: int, classes: int | None = None) -> None:
    """Raise unless a label counts one of the classes.

    Args:
        source: where the image is.
        index: which one.
        label: its label.
        classes: how many there are; by default as many as the source names, or any number. Where images have several,
            labels count the sets of them.

    Raises:
        DataFault: naming the image.
    """
    sets = label_sets_of(source)
    count = len(sets) if sets is not None else classes or len(source.classes)
    if label < 0 or (count and label >= count):
        counted = "classes" if sets is None else "sets of classes"
        limits = f"0 to {count - 1}, as there are {count} {counted}" if count else "0 or more"
        hint = "leave out what has no label" if label == -1 else "count the classes from 0"
        raise DataFault(f"{source.describe(index)} has label {label}, and labels must be {limits}: {hint}")
