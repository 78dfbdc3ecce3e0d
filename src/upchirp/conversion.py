"""Settings to plain data and back: what YAML holds, checked and converted to the types of a dataclass."""

from collections.abc import Mapping
from dataclasses import fields
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from upchirp.errors import InputError


def plain(value: Any) -> Any:
    """A setting as YAML and JSON hold it: paths as text, tuples as lists.

    >>> plain({"output": Path("runs"), "scale": (0.08, 1.0)})
    {'output': 'runs', 'scale': [0.08, 1.0]}
    """
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def typed(group: type, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values that belong to one dataclass, checked and converted to its types."""
    hints = get_type_hints(group)
    names = {entry.name for entry in fields(group)}
    return {name: _convert(name, value, hints[name], source) for name, value in values.items() if name in names}


def _convert(name: str, value: Any, hint: Any, source: str) -> Any:
    options = get_args(hint)
    kind = getattr(hint, "__origin__", None)
    if type(None) in options:
        if value is None:
            return None
        others = [option for option in options if option is not type(None)]
        return _convert(name, value, reduce(or_, others), source)
    if get_origin(hint) in (Union, UnionType):
        return _convert_one_of(name, value, options, source)
    wanted = ""
    if kind is Literal:
        if value in options:
            return value
        wanted = f"one of {', '.join(map(str, options))}" if len(options) > 1 else str(options[0])
    elif kind is tuple and options[-1] is Ellipsis:
        if isinstance(value, list | tuple):
            return tuple(_convert(name, item, options[0], source) for item in value)
        wanted = "a list"
    elif kind is tuple:
        if isinstance(value, list | tuple) and len(value) == len(options):
            return tuple(_convert(name, item, option, source) for item, option in zip(value, options, strict=True))
        wanted = f"a list of {len(options)} values"
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
        wanted = "a path"
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        # YAML reads 1e-3, without a dot, as text.
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
        wanted = "a number"
    elif hint is str and isinstance(value, Path):
        return str(value)
    elif hint is bool or hint is int or hint is str:
        if isinstance(value, hint) and (hint is not int or not isinstance(value, bool)):
            return value
        wanted = {bool: "true or false", int: "a whole number", str: "text"}[hint]
    elif isinstance(value, dict):
        return value
    raise InputError(f"{source}: {name} is {value!r}: expected {wanted or 'keys and values'}")


def _convert_one_of(name: str, value: Any, options: tuple[Any, ...], source: str) -> Any:
    """The value as the first of some types that takes it."""
    reasons: list[str] = []
    for option in options:
        try:
            return _convert(name, value, option, source)
        except InputError as error:
            reasons.append(str(error).rpartition("expected ")[2])
    raise InputError(f"{source}: {name} is {value!r}: expected {' or '.join(reasons)}")
