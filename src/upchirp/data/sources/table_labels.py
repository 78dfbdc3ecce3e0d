"""The labels of a table's images: one each, a list in a cell, or a column of 0 and 1 for each class."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from upchirp.data.sources.table_rows import COLUMNS, LISTS, Row, Table
from upchirp.errors import InputError

_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false", "")
_MARKS = {";": "`;`", "|": "`|`", ",": "commas", r"\s": "blanks"}
"""What parts a cell, the first that does so, and what it is called."""


class Labelling(NamedTuple):
    """The labels of some tables' images."""

    names: list[list[tuple[str, ...]]]
    """Of each row of each table the names of its classes."""
    order: tuple[str, ...] | None
    """The classes in their order, where columns name them."""
    several: bool
    """Whether images have several labels or none, rather than one each."""
    note: str | None
    """How that was told."""


def labels_of_tables(tables: Sequence[Table]) -> Labelling:
    """The labels of tables that belong together, the first of which tells how they are written.

    Args:
        tables: that of the training images first.

    Raises:
        InputError: naming the file and the line.
    """
    first = tables[0]
    for table in tables[1:]:
        if len(first.columns) > 1 and table.columns != first.columns:
            raise InputError(f"{table.path} has other columns than {first.path}: give both the same classes")
    if len(first.columns) > 1:
        return _from_columns(tables)
    mark = _mark(first.columns[0], {row.cells[0] for table in tables for row in table.rows})
    if mark is None:
        return Labelling([[_only(table, row) for row in table.rows] for table in tables], None, False, None)
    names = [[parted(row.cells[0], mark) for row in table.rows] for table in tables]
    hint = "" if mark in ";|" else " (name the column `label` if each cell is one class)"
    note = f"images of {first.path} have several labels, parted by {_MARKS[mark]}{hint}"
    return Labelling(names, None, True, f"{note}: each class is told by itself")


def parted(cell: str, mark: str) -> tuple[str, ...]:
    r"""The names in a cell, each once.

    >>> parted("cat; dog;cat", ";"), parted("cat dog", r"\s"), parted("", ";")
    (('cat', 'dog'), ('cat', 'dog'), ())
    """
    names = (name.strip() for name in re.split(rf"[{mark}]", cell))
    return tuple(dict.fromkeys(name for name in names if name))


def in_order(names: set[str]) -> tuple[str, ...]:
    """The names of classes, sorted; numbers by their value.

    >>> in_order({"10", "9"})
    ('9', '10')
    """
    if all(map(_is_number, names)):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _mark(column: str, cells: set[str]) -> str | None:
    """What parts the labels of a cell; nothing if each is one label.

    Commas and blanks do so in a column of lists only, and if that makes fewer classes of what the cells hold: names of
    single classes hold more words than there are classes.

    >>> _mark("label", {"cat;dog", "cat"}), _mark("Tags", {"cat,dog", "cat", "dog"}), _mark("tags", {"sea lion", "cat"})
    (';', ',', None)
    """
    for mark in ";|":
        if any(mark in cell for cell in cells):
            return mark
    if column.lower() not in LISTS:
        return None
    filled = cells - {""}
    for mark in (",", r"\s"):
        lists = [parted(cell, mark) for cell in filled]
        if any(len(names) > 1 for names in lists) and len({name for names in lists for name in names}) < len(filled):
            return mark
    return None


def _only(table: Table, row: Row) -> tuple[str, ...]:
    if not row.cells[0]:
        raise InputError(f"{table.path} line {row.line}: {row.path!r} lacks its label: {COLUMNS}")
    return (row.cells[0],)


def _from_columns(tables: Sequence[Table]) -> Labelling:
    """The names of the columns that hold a 1."""
    first = tables[0]
    names = [[_marked(table, row) for row in table.rows] for table in tables]
    if len(set(first.columns)) < len(first.columns):
        raise InputError(f"{first.path} has two columns of one name: give each class a column of its own")
    several = any(len(each) != 1 for of_table in names for each in of_table)
    told = "images have several labels, and each class is told by itself" if several else "each image has one of them"
    note = f"{first.path} has a column for each of {len(first.columns)} classes: {told}"
    return Labelling(names, first.columns, several, note)


def _marked(table: Table, row: Row) -> tuple[str, ...]:
    for column, cell in zip(table.columns, row.cells, strict=True):
        if cell.lower() not in _YES + _NO:
            raise InputError(
                f"{table.path} has the columns {', '.join(table.columns)}: name that of the classes by `label_column`, "
                f"or write 0 or 1 in all of them, one for each class (line {row.line}: {column} is {cell!r})"
            )
    return tuple(name for name, cell in zip(table.columns, row.cells, strict=True) if cell.lower() in _YES)


def _is_number(name: str) -> bool:
    # What is no number has no order among numbers.
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False
