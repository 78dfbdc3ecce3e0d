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
    if type(None) in options:
        if value is None:
            return None
        others = [option for option in options if option is not type(None)]
        return _convert(name, value, reduce(or_, others), source)
    if get_origin(hint) in (Union, UnionType):
        return _convert_one_of(name, value, options, source)
    if getattr(hint, "__origin__", None) is tuple:
        return _convert_tuple(name, value, options, source)
    found, wanted = _taken_as(value, hint, options)
    if wanted:
        raise InputError(f"{source}: {name} is {value!r}: expected {wanted}")
    return found


def _convert_one_of(name: str, value: Any, options: tuple[Any, ...], source: str) -> Any:
    """The value as the first of some types that takes it."""
    reasons: list[str] = []
    for option in options:
        try:
            return _convert(name, value, option, source)
        except InputError as error:
            reasons.append(str(error).rpartition("expected ")[2])
    raise InputError(f"{source}: {name} is {value!r}: expected {' or '.join(reasons)}")


def _convert_tuple(name: str, value: Any, options: tuple[Any, ...], source: str) -> tuple[Any, ...]:
    """The value as a tuple of one type, of any length, or of one type for each of its values."""
    is_list, any_length = isinstance(value, list | tuple), options[-1] is Ellipsis
    if not is_list or not (any_length or len(value) == len(options)):
        wanted = "a list" if any_length else f"a list of {len(options)} values"
        raise InputError(f"{source}: {name} is {value!r}: expected {wanted}")
    kinds = [options[0]] * len(value) if any_length else options
    return tuple(_convert(name, item, kind, source) for item, kind in zip(value, kinds, strict=True))


def _taken_as(value: Any, hint: Any, options: tuple[Any, ...]) -> tuple[Any, str]:
    """The value as a type that is made of no others, and what was expected instead if it is none of it."""
    if get_origin(hint) is Literal:
        wanted = f"one of {', '.join(map(str, options))}" if len(options) > 1 else str(options[0])
        return value, "" if value in options else wanted
    if hint is Path:
        return (Path(value), "") if isinstance(value, str | Path) else (value, "a path")
    if hint is float:
        # YAML reads 1e-3, without a dot, as text.
        try:
            return (value, "a number") if isinstance(value, bool) else (float(value), "")
        except (TypeError, ValueError):
            return value, "a number"
    if hint is str:
        return str(value), "" if isinstance(value, str | Path) else "text"
    if hint is bool:
        return value, "" if isinstance(value, bool) else "true or false"
    if hint is int:
        return value, "" if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    return value, "" if isinstance(value, dict) else "keys and values"
