"""Arguments of the wrong kind, told in one line: text for a number, a data set for its length."""

import operator
from collections.abc import Sized
from typing import Any

from upchirp.errors import InputError


def as_whole(name: str, value: Any) -> int:
    """A whole number of Python, NumPy or torch as an int.

    >>> as_whole("batch size", 16)
    16
    >>> as_whole("final size", "224")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: final size is '224': give a whole number
    >>> as_whole("dataset size", ["a.jpg", "b.jpg"])
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: dataset size is a list: give a whole number, such as its length, 2

    Raises:
        InputError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        pass
    if isinstance(value, str | float):
        raise InputError(f"{name} is {value!r}: give a whole number")
    length = f", such as its length, {len(value)}" if isinstance(value, Sized) else ""
    raise InputError(f"{name} is a {type(value).__name__}: give a whole number{length}")


def as_number(name: str, value: Any) -> float:
    """A number of Python, NumPy or torch, as it is if it is Python's.

    >>> as_number("epochs", "10")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: epochs is '10': give a number

    Raises:
        InputError: it is none.
    """
    if isinstance(value, int | float):
        return value
    if isinstance(value, str | bytes):
        raise InputError(f"{name} is {value!r}: give a number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is a {type(value).__name__}: give a number") from None
