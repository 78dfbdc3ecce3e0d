"""The figures of each class as a CSV, whose thresholds predictions can go by."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upchirp.errors import InputError, reason_of
from upchirp.files import whole_file

_FIRST = ("class", "images")


def write_class_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what `SizedEvaluation.by_class` gives: a row for each class, its figures in columns of their names.

    The cell of a figure that a class does not have is empty.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]) if rows else _FIRST, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.8g}" if isinstance(value, float) else value for name, value in row.items()})
    with whole_file(path) as stream:
        # Names of folders need not be UTF-8.
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def check_class_table(path: Path) -> None:
    """Refuse a name that is none of a CSV, and to write over another file than such a table: the data may be a CSV."""
    if path.suffix.lower() != ".csv":
        raise InputError(
            f"the classes are written as CSV, and {path} is called otherwise: let `per_class_file` end in .csv"
        )
    if path.exists() and tuple(_read(path)[0][: len(_FIRST)]) != _FIRST:
        raise InputError(f"{path} is there and is no table of an evaluation: give `per_class_file` another name")


def read_thresholds(path: Path) -> dict[str, float]:
    """The threshold of each class that has one, from what `write_class_table` wrote, or a CSV with two of its columns.

    Returns:
        By the name of a class the least probability that is taken for a yes.

    Raises:
        InputError: the file cannot be read, lacks the columns `class` and `threshold`, names a class twice, or has
            something else than a probability for one.
    """
    columns, rows = _read(path)
    if not {"class", "threshold"} <= set(columns):
        raise InputError(f"{path} has no columns class and threshold: give what `upchirp eval --per-class-file` wrote")
    names, cells = columns.index("class"), columns.index("threshold")
    found: dict[str, float] = {}
    for row in rows:
        if max(names, cells) < len(row) and row[cells].strip():
            if row[names] in found:
                raise InputError(f"{path} has two thresholds for {row[names]}: leave one of them out")
            found[row[names]] = _probability(row[cells], f"{path}: the threshold of {row[names]}")
    return found


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of a CSV's columns, and its rows."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            columns, *rows = list(csv.reader(stream)) or [[]]
    except (OSError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {reason_of(error, path)}") from error
    return columns, rows


def _probability(cell: str, what: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(f"{what} is {cell}: it is a probability, from 0 to 1")
    return value
