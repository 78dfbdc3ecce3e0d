"""Images that a table lists with their labels: a CSV, TSV or TXT file of path, label and perhaps split."""

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from upchirp.data.sources.layout import TEST_NAMES, TRAIN_NAMES, USUAL, VAL_NAMES, SplitNames
from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.listing import Listing, some
from upchirp.data.sources.tree import PassedOver, image_suffixes, is_image
from upchirp.errors import InputError

_PATHS = (
    "path", "filepath", "file_path", "filename", "file_name", "file", "image", "image_path", "image_name", "image_id",
    "img", "images", "id",
)  # fmt: skip
_LABELS = ("label", "labels", "class", "class_name", "category", "target", "species", "breed", "name", "class_id")
_SPLITS = ("split", "set", "subset", "partition")
"""What the columns are called, whatever their case; the first that is there counts."""
_LOOKED_AT = 5
_COLUMNS = "expected lines of path,label or path,label,split, or a header with these names"


@dataclass(frozen=True)
class Row:
    """One image of a table."""

    line: int
    """Where it stands in the file, from 1."""
    path: str
    """As it is written."""
    label: str
    """The name of the class."""
    split: str
    """In lower case; empty where the table has no such column."""


class TableSource(ListedSource):
    """Images whose paths and labels a table lists.

    Args:
        root: the folder that the paths start from.
        paths: of the images, in it.
        labels: of the images, indices of `classes`.
        classes: the names of the classes.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (4, 3)).save(root / "a.png")
    >>> source = TableSource(root, ["a.png"], [1], ("cat", "dog"))
    >>> len(source), source.load(0)[1], source.describe(0).endswith("a.png")
    (1, 1, True)
    """

    def __init__(self, root: Path, paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        listing = Listing(
            classes=tuple(classes),
            # Paths are whole: no class has a folder of its own.
            folders=("",) * len(classes),
            labels=np.asarray(labels, dtype=np.int32),
            ends=np.cumsum([len(path) for path in encoded], dtype=np.int64),
            names=b"".join(encoded),
            passed_over=PassedOver(),
        )
        super().__init__(str(root), listing)

    def describe(self, index: int) -> str:
        """The path of an image; in the table it may be absolute."""
        return os.path.join(self._root, self._listing.path(index))  # noqa: PTH118


def open_table(path: Path, splits: SplitNames = USUAL) -> tuple[TableSource, TableSource | None, list[str]]:
    """The training images of a table, the validation images if it, or the table beside it, tells them, and notes.

    The columns are path, label and, if there is one, split, in this order, or in any order under a header that names
    them (`filename`, `image_id`, `class`, `breed`, `set` and the like are known too). They are parted by
    commas, tabs, semicolons or, in a TXT file of paths and labels only, white space. Paths are absolute, or start from
    the table's folder or one folder in it, and may lack their suffix. Classes are the training images' labels in
    sorted order, numbers by their value.
    Beside a `train.csv` without splits a `val.csv` holds the validation images.

    Args:
        path: of the table.
        splits: values of the column of splits, where they are not the usual ones.

    Raises:
        InputError: naming the file and the line.
    """
    rows, val_path = read_table(path), path
    notes = []
    by_split: dict[str, list[Row]] = {}
    for row in rows:
        by_split.setdefault(row.split, []).append(row)
    if "" in by_split:
        if asked := splits.train or splits.val:
            raise InputError(f"{path} has no column of splits to find {asked} in: name one `split`, or leave it out")
        train_rows, val_rows = rows, None
        if (beside := _beside(path)) is not None:
            val_path, val_rows = beside, read_table(beside)
            notes.append(f"validation images are those of {beside}")
    else:
        train_names, val_names = (tuple(map(str.lower, names)) for names in (splits.train_names(), splits.val_names()))
        known = {*TRAIN_NAMES, *VAL_NAMES, *train_names, *val_names}
        if unknown := next((row for row in rows if row.split not in known and splits == USUAL), None):
            raise InputError(
                f"{path} line {unknown.line}: unknown split {unknown.split!r}: write train, val or test in that column"
            )
        trains, vals = ([name for name in names if name in by_split] for names in (train_names, val_names))
        if not trains or (splits.val and not vals):
            lacking = splits.val if trains else train_names[0]
            raise InputError(f"{path} has no images of the split {lacking}, only of {some(sorted(by_split))}")
        if set(trains) & set(vals[:1]):
            raise InputError(f"the split {vals[0]} of {path} cannot both train and validate: name two")
        train_rows = [row for name in trains for row in by_split[name]]
        val_rows = by_split[vals[0]] if vals else None
        if vals and not splits.val and vals[0] not in ("val", "validation", "valid"):
            notes.append(f"validation images are those of the split {vals[0]}")
        if left := [name for name in by_split if name not in (*trains, *vals[:1])]:
            notes.append(f"left out is what is neither: {sum(len(by_split[name]) for name in left):,} of {some(left)}")
    classes = _classes(train_rows)
    if len(classes) < 2:
        raise InputError(f"{path} has one class only ({classes[0]}): {_COLUMNS}, of two classes or more")
    train = _source(path, train_rows, classes)
    return train, None if val_rows is None else _source(val_path, val_rows, classes), notes


def read_table(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        InputError: it cannot be read, is empty, or a line lacks its path or label.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the table {path}: {error}") from error
    try:
        lines = list(_cells(text, path.suffix.lower()))
    except csv.Error as error:
        raise InputError(f"cannot read the table {path}: {error}") from error
    if not lines:
        raise InputError(f"the table {path} is empty: {_COLUMNS}")
    columns = _header(path, lines[0][1])
    if columns is None:
        columns = (0, 1, 2 if len(lines[0][1]) == 3 else None)
    else:
        lines = lines[1:]
    rows = []
    for line, cells in lines:
        taken = ["" if column is None or column >= len(cells) else cells[column] for column in columns]
        if not taken[0] or not taken[1] or (columns[2] is not None and not taken[2]):
            raise InputError(f"{path} line {line}: {','.join(cells)!r} lacks its path, label or split: {_COLUMNS}")
        rows.append(Row(line, taken[0], taken[1], taken[2].lower()))
    if not rows:
        raise InputError(f"the table {path} has a header and no images")
    return rows


def _cells(text: str, suffix: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line that is not blank."""
    lines = text.splitlines()
    delimiter = _delimiter([line for line in lines if line.strip()][:_LOOKED_AT])
    if delimiter is None and suffix == ".txt":
        for number, line in enumerate(lines, 1):
            if line.strip():
                # A path may hold blanks, a label not.
                yield number, line.strip().rsplit(None, 1)
        return
    reader = csv.reader(lines, delimiter=delimiter or ",")
    for cells in reader:
        if any(stripped := [cell.strip() for cell in cells]):
            yield reader.line_num, stripped


def _delimiter(lines: Sequence[str]) -> str | None:
    """The mark that parts all of some lines into as many cells, two or more; None if none does.

    >>> _delimiter(["a, b.png;cat", "c.png;dog"]), _delimiter(["a.png cat"])
    (';', None)
    """
    for mark in "\t;,":
        counts = {len(cells) for cells in csv.reader(lines, delimiter=mark)}
        if len(counts) == 1 and counts != {1}:
            return mark
    return None


def _header(path: Path, cells: Sequence[str]) -> tuple[int, int, int | None] | None:
    """The columns of path, label and split if the first line names them; None if it is a row already."""
    names = [re.sub(r"[\s-]+", "_", cell.lower()) for cell in cells]

    def column(known: Sequence[str], *, but: int | None = None) -> int | None:
        places = [names.index(name) for name in known if name in names]
        return next((place for place in places if place != but), None)

    of_path = column(_PATHS)
    if of_path is None or any(map(is_image, cells)):
        return None
    of_label, of_split = column(_LABELS, but=of_path), column(_SPLITS)
    others = [place for place in range(len(names)) if place not in (of_path, of_split)]
    if of_label is None and len(others) == 1:
        of_label = others[0]
    if of_label is None:
        raise InputError(f"{path} has the columns {', '.join(cells)}: name that of the classes `label`")
    return of_path, of_label, of_split


def _classes(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels that occur, sorted; numbers by their value.

    >>> _classes([Row(1, "a", "10", ""), Row(2, "b", "9", "")])
    ('9', '10')
    """
    names = {row.label for row in rows}
    if all(map(_is_number, names)):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _is_number(name: str) -> bool:
    # What is no number has no order among numbers.
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _source(path: Path, rows: Sequence[Row], classes: Sequence[str]) -> TableSource:
    known = {name: label for label, name in enumerate(classes)}
    if unknown := next((row for row in rows if row.label not in known), None):
        raise InputError(f"{path} line {unknown.line}: {unknown.label} is no class of the training images")
    root, suffix = _place(path, rows[0])
    paths = [row.path + suffix for row in rows]
    for row, name in zip(rows, paths, strict=True):
        # As text: a Path for each of a million images would take seconds.
        if not os.path.isfile(os.path.join(root, name)):  # noqa: PTH113, PTH118
            raise InputError(f"{path} line {row.line}: there is no image {root / name}")
    return TableSource(root, paths, [known[row.label] for row in rows], classes)


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
