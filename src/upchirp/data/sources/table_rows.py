"""The rows of a CSV, TSV or TXT file: of each image its path, what its columns of labels hold, and its split."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from upchirp.data.sources.tree import is_image
from upchirp.errors import InputError, reason_of

_PATHS = (
    "path", "filepath", "file_path", "filename", "file_name", "file", "image", "image_path", "image_name", "image_id",
    "img", "images", "id",
)  # fmt: skip
_LABELS = (
    "label", "labels", "tags", "class", "class_name", "category", "target", "species", "breed", "name", "class_id",
)  # fmt: skip
_SPLITS = ("split", "set", "subset", "partition")
"""What the columns are called, whatever their case; the first that is there counts."""
LISTS = ("labels", "tags", "classes", "categories", "targets", "attributes")
"""Columns whose cells may be lists that commas or blanks part; names of single classes may hold these, too."""
_LOOKED_AT = 5
COLUMNS = "expected lines of path,label or path,label,split, or a header with these names"


@dataclass(frozen=True)
class Row:
    """One image of a table."""

    line: int
    """Where it stands in the file, from 1."""
    path: str
    """As it is written."""
    cells: tuple[str, ...]
    """What the columns of labels hold."""
    split: str
    """In lower case; empty where the table has no such column."""


@dataclass(frozen=True)
class Table:
    """A table as it is written."""

    path: Path
    """The file."""
    columns: tuple[str, ...]
    """Names of the columns of labels: one, or one for each class; an empty one where there is no header."""
    rows: list[Row]
    """The images."""


class _Places(NamedTuple):
    """Where columns stand."""

    path: int
    labels: tuple[int, ...]
    split: int | None


def read_table(path: Path, label_column: str | None = None) -> Table:
    """The rows of a table.

    Args:
        path: of the table.
        label_column: the only column of labels; by default it is known by its name, or all others are.

    Raises:
        InputError: it lacks that column, cannot be read, is empty, or a line lacks its path or one of its columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the table {path}: {reason_of(error, path)}") from error
    try:
        lines = list(_cells(text, path.suffix.lower()))
    except csv.Error as error:
        raise InputError(f"cannot read the table {path}: {error}") from error
    if not lines:
        raise InputError(f"the table {path} is empty: {COLUMNS}")
    first = lines[0][1]
    places = _header(path, first, label_column)
    if places is None:
        if label_column is not None:
            raise InputError(f"{path} has no header to find the column {label_column} in: write one")
        places, names = _Places(0, (1,), 2 if len(first) == 3 else None), [""]
    else:
        lines, names = lines[1:], [first[place] for place in places.labels]
    rows = []
    for line, cells in lines:
        last = max(places.path, *places.labels, places.split or 0)
        split = "" if places.split is None or last >= len(cells) else cells[places.split]
        if last >= len(cells) or not cells[places.path] or (places.split is not None and not split):
            raise InputError(f"{path} line {line}: {','.join(cells)!r} lacks its path, label or split: {COLUMNS}")
        rows.append(Row(line, cells[places.path], tuple(cells[place] for place in places.labels), split.lower()))
    if not rows:
        raise InputError(f"the table {path} has a header and no images")
    return Table(path, tuple(names), rows)


def is_label_column(name: str) -> bool:
    """Whether a column of that name is known to hold labels.

    >>> is_label_column("Class Name"), is_label_column("artist")
    (True, False)
    """
    return _plain(name) in _LABELS + LISTS


def _plain(name: str) -> str:
    """The name of a column as the known ones are written."""
    return re.sub(r"[\s-]+", "_", name.lower())


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

    One that parts an image's labels, whose path ends before it, is none.

    >>> _delimiter(["a, b.png;cat", "c.png;dog"]), _delimiter(["a.png cat"]), _delimiter(["a.png,cat;dog"])
    (';', None, ',')
    """
    for mark in "\t;,":
        rows = list(csv.reader(lines, delimiter=mark))
        counts = {len(cells) for cells in rows}
        if len(counts) == 1 and counts != {1} and not any(_goes_on(cells[0]) for cells in rows):
            return mark
    return None


def _goes_on(cell: str) -> bool:
    """Whether a cell begins with an image's path, and does not end with it."""
    return is_image(re.split(r"[\s,]", cell.strip())[0]) and not is_image(cell.strip())


def _header(path: Path, cells: Sequence[str], asked: str | None) -> _Places | None:
    """The columns of path, labels and split if the first line names them; None if it is a row already."""
    names = [_plain(cell) for cell in cells]

    def column(known: Sequence[str], *, but: int | None = None) -> int | None:
        places = [names.index(name) for name in known if name in names]
        return next((place for place in places if place != but), None)

    of_path = column(_PATHS)
    if of_path is None or any(map(is_image, cells)):
        return None
    if asked is not None and (_plain(asked) not in names or names.index(_plain(asked)) == of_path):
        raise InputError(f"{path} has no column {asked} of labels, only {', '.join(cells)}")
    of_label = names.index(_plain(asked)) if asked is not None else column(_LABELS, but=of_path)
    of_split = column(_SPLITS, but=of_label)
    # What pandas writes before all columns, the numbers of its rows, has no name.
    others = tuple(
        place for place, name in enumerate(names) if place not in (of_path, of_split) and name not in ("", "unnamed:_0")
    )
    if not others:
        raise InputError(f"{path} has the columns {', '.join(cells)}: name that of the classes `label`")
    return _Places(of_path, others if of_label is None else (of_label,), of_split)
