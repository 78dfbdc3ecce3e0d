"""Images that a table lists with their labels: a CSV, TSV or TXT file of path, labels and perhaps split."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from upchirp.data.label_sets import LabelSets, labels_by_name
from upchirp.data.sources.layout import TEST_NAMES, TRAIN_NAMES, USUAL, VAL_NAMES, SplitNames
from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.listing import Listing, without_images
from upchirp.data.sources.table_labels import in_order, labels_of_tables
from upchirp.data.sources.table_rows import COLUMNS, Row, is_label_column, read_table
from upchirp.data.sources.tree import PassedOver, image_suffixes
from upchirp.errors import InputError, some


class _Image(NamedTuple):
    """A row, and the names of its classes."""

    row: Row
    names: tuple[str, ...]


class TableSource(ListedSource):
    """Images whose paths and labels a table lists.

    Args:
        root: the folder that the paths start from.
        paths: of the images, in it.
        labels: of the images, indices of `classes`, or of `label_sets` if there are such.
        classes: the names of the classes.
        label_sets: which classes each label stands for, where images have several.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (4, 3)).save(root / "a.png")
    >>> source = TableSource(root, ["a.png"], [1], ("cat", "dog"))
    >>> len(source), source.load(0)[1], source.describe(0).endswith("a.png")
    (1, 1, True)
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int] | npt.NDArray[np.int32],
        classes: Sequence[str],
        label_sets: LabelSets | None = None,
    ) -> None:
        # Paths are whole: no class has a folder of its own.
        folders = [""] * len(classes if label_sets is None else label_sets)
        listing = Listing.of(classes, folders, labels, [os.fsencode(path) for path in paths], PassedOver())
        super().__init__(str(root), listing)
        self.label_sets = label_sets
        """Which classes each label stands for; nothing where each image has one."""

    def describe(self, index: int) -> str:
        """The path of an image; in the table it may be absolute."""
        return os.path.join(self._root, self._listing.path(index))  # noqa: PTH118


def open_table(
    path: Path, splits: SplitNames = USUAL, label_column: str | None = None
) -> tuple[TableSource, TableSource | None, list[str]]:
    """The training images of a table, the validation images if it, or the table beside it, tells them, and notes.

    The columns are path, label and, if there is one, split, in this order, or in any order under a header that names
    them (`filename`, `image_id`, `class`, `breed`, `tags`, `set` and the like are known too). They are parted by
    commas, tabs, semicolons or, in a TXT file of paths and labels only, white space. Paths are absolute, or start from
    the table's folder or one folder in it, and may lack their suffix. Classes are the training images' labels in
    sorted order, numbers by their value.
    Beside a `train.csv` without splits a `val.csv` holds the validation images.

    Images may have several labels, or none: as a list in the column of labels, parted by `;` or `|`, or in one that is
    called `labels` or `tags` by commas or blanks; or as a column of 0 and 1 for each class in place of it, where an
    empty cell is a 0. If each image has exactly one such 1, that is its only label.

    Args:
        path: of the table.
        splits: values of the column of splits, where they are not the usual ones.
        label_column: the column of labels, where its name does not tell.

    Raises:
        InputError: naming the file and the line.
    """
    tables = [read_table(path, label_column)]
    notes = []
    has_splits = bool(tables[0].rows[0].split)
    if not has_splits and (asked := splits.train or splits.val):
        raise InputError(f"{path} has no column of splits to find {asked} in: name one `split`, or leave it out")
    if not has_splits and (beside := _beside(path)) is not None:
        tables.append(read_table(beside, label_column))
        notes.append(f"validation images are those of {beside}")
    labelling = labels_of_tables(tables)
    notes += [labelling.note] if labelling.note else []
    images = [
        [_Image(row, names) for row, names in zip(table.rows, of_table, strict=True)]
        for table, of_table in zip(tables, labelling.names, strict=True)
    ]
    if has_splits:
        train, val, told = _parted(path, images[0], splits)
        notes += told
    else:
        train, val = images[0], images[1] if len(images) > 1 else None
    classes = labelling.order or in_order({name for image in train for name in image.names})
    if len(classes) < 2:
        raise InputError(f"{path} has one class only ({''.join(classes) or 'none'}): {COLUMNS}, of two classes or more")
    column = tables[0].columns[0]
    if label_column is None and labelling.order is None and column and not is_label_column(column):
        notes.append(f"the labels of {path} are those in its column {column}: {len(classes):,} classes")
    listed = [(path, train)] if val is None else [(path, train), (tables[-1].path, val)]
    for of, own in listed:
        _check_known(of, own, classes)
    labels, sets = labels_by_name(
        [[image.names for image in own] for _, own in listed], classes, several=labelling.several
    )
    occurring = {name for image in train for name in image.names}
    notes += without_images([name for name in classes if name not in occurring], len(classes), "training")
    sources = [_source(of, own, each, classes, sets) for (of, own), each in zip(listed, labels, strict=True)]
    return sources[0], sources[1] if len(sources) > 1 else None, notes


def _parted(
    path: Path, images: Sequence[_Image], splits: SplitNames
) -> tuple[list[_Image], list[_Image] | None, list[str]]:
    """The training and the validation images by their column of splits, and notes."""
    by_split: dict[str, list[_Image]] = {}
    for image in images:
        by_split.setdefault(image.row.split, []).append(image)
    notes = []
    train_names, val_names = (tuple(map(str.lower, names)) for names in (splits.train_names(), splits.val_names()))
    known = {*TRAIN_NAMES, *VAL_NAMES, *train_names, *val_names}
    if unknown := next((row for row, _ in images if row.split not in known and splits == USUAL), None):
        raise InputError(
            f"{path} line {unknown.line}: unknown split {unknown.split!r}: write train, val or test in that column"
        )
    trains, vals = ([name for name in names if name in by_split] for names in (train_names, val_names))
    if not trains or (splits.val and not vals):
        lacking = splits.val if trains else train_names[0]
        raise InputError(f"{path} has no images of the split {lacking}, only of {some(sorted(by_split))}")
    if set(trains) & set(vals[:1]) and not splits.alike:
        raise InputError(f"the split {vals[0]} of {path} cannot both train and validate: name two")
    if vals and not splits.val and vals[0] not in ("val", "validation", "valid"):
        notes.append(f"validation images are those of the split {vals[0]}")
    if left := [name for name in by_split if name not in (*trains, *vals[:1])]:
        notes.append(f"left out is what is neither: {sum(len(by_split[name]) for name in left):,} of {some(left)}")
    return [image for name in trains for image in by_split[name]], by_split[vals[0]] if vals else None, notes


def _check_known(path: Path, images: Sequence[_Image], classes: Sequence[str]) -> None:
    known = set(classes)
    for row, names in images:
        if unknown := next((name for name in names if name not in known), None):
            raise InputError(f"{path} line {row.line}: {unknown} is no class of the training images")


def _source(
    path: Path,
    images: Sequence[_Image],
    labels: npt.NDArray[np.int32],
    classes: tuple[str, ...],
    label_sets: LabelSets | None,
) -> TableSource:
    """The images of a table under their labels."""
    root, suffix = _place(path, images[0].row)
    paths = [row.path + suffix for row, _ in images]
    for (row, _), name in zip(images, paths, strict=True):
        # As text: a Path for each of a million images would take seconds.
        if not os.path.isfile(os.path.join(root, name)):  # noqa: PTH113, PTH118
            raise InputError(f"{path} line {row.line}: there is no image {root / name}")
    return TableSource(root, paths, labels, classes, label_sets)


def _place(path: Path, row: Row) -> tuple[Path, str]:
    """The folder that paths start from, and the suffix that they lack, as the first image's file tells."""
    folder = path.resolve().parent
    inside = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    lacking = ("", ".jpg", ".jpeg", ".png", *sorted(image_suffixes()))
    for suffix in lacking:
        for place in (folder, *inside):
            if os.path.isfile(place / (row.path + suffix)):  # noqa: PTH113
                return place, suffix
    raise InputError(
        f"{path} line {row.line}: there is no image {row.path} in {folder} or a folder in it: paths start from the "
        "table's folder"
    )


def _beside(path: Path) -> Path | None:
    """The table of validation images beside one of training images, by their names."""
    if path.stem.lower() not in TRAIN_NAMES:
        return None
    # A test table of a competition has no labels.
    names = [name for name in VAL_NAMES if name not in TEST_NAMES]
    return next((other for name in names if (other := path.with_stem(name)).is_file()), None)
