"""The texts of `--help` and `--help-all`: the flags that people use, and all of them by what they are about."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from upchirp.cli.flags import with_flags
from upchirp.cli.help_texts import COMMON, EXAMPLES, GROUPS, TAKES
from upchirp.curriculum.presets import BY_OTHERS, PRESETS
from upchirp.training import RECIPES

_COLUMN = 22
_WIDEST = 100

_LISTED = {"recipe": ["auto", *RECIPES], "curriculum": [*PRESETS, *BY_OTHERS], "curricula": [*PRESETS, *BY_OTHERS]}


@dataclass(frozen=True)
class _Flag:
    name: str
    values: str
    text: str

    @property
    def word(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def short_help(prog: str, description: str, defaults: object) -> str:
    """The flags that people use, on one screen."""
    flags = {flag.name.replace("_", "-"): flag for flag in _flags(defaults)}
    lines = [f"usage: {prog} {TAKES.get(prog, '')}[FLAGS]", "", *_wrapped(description, "", 79), ""]
    for name, what in COMMON[prog].items():
        lines.append(f"  {f'{flags[name].word} {_shortened(flags[name].values)}':<{_COLUMN}}{what}")
    lines += ["", *(f"  $ {example}" for example in EXAMPLES[prog]), "", f"All flags: {prog} --help-all"]
    return "\n".join(lines)


def full_help(prog: str, description: str, defaults: object, *, takes_file: bool) -> str:
    """All flags, by what they are about."""
    width = min(_WIDEST, shutil.get_terminal_size((80, 24)).columns) - 1
    flags = {flag.name: flag for flag in _flags(defaults)}
    if takes_file:
        flags["config"] = _Flag("config", "FILE", "Settings as YAML, under the names of the flags; flags win over it.")
    lines = [f"usage: {prog} {TAKES.get(prog, '')}[FLAGS]", "", *_wrapped(description, "", width)]
    groups = {title: [name for name in names.split() if name in flags] for title, names in GROUPS.items()}
    grouped = {name for names in groups.values() for name in names}
    own = [name for name in flags if name not in grouped]
    for title, names in {"this command": own, **groups}.items():
        if names:
            lines += ["", f"{title}:"]
        for name in names:
            flag = flags[name]
            head = f"  {flag.word} {flag.values}".rstrip()
            told = _wrapped(flag.text, " " * (_COLUMN + 2), width)
            if len(head) < _COLUMN + 1 and told:
                lines += [head.ljust(_COLUMN + 2) + told[0].lstrip(), *told[1:]]
            else:
                lines += [*_wrapped(head, "  ", width), *told]
    return "\n".join([*lines, "", "Flags without a value are turned off by --no-NAME."])


def values_of_flags(defaults: object) -> dict[str, str]:
    """What each flag takes, as the help shows it; nothing for one that is on or off."""
    return {flag.word: flag.values for flag in _flags(defaults)}


def _flags(defaults: object) -> Iterator[_Flag]:
    """The flags of a dataclass and of those in it."""
    assert is_dataclass(defaults)
    kind: type[Any] = type(defaults)
    hints, texts = get_type_hints(kind), _docstrings(kind)
    for entry in fields(defaults):
        value = getattr(defaults, entry.name)
        if is_dataclass(value):
            yield from _flags(value)
        elif entry.metadata.get("flag", True):
            values = _values(hints[entry.name])
            text = with_flags(texts.get(entry.name, ""), values.split("|"))
            if entry.name in _LISTED:
                text += f" One of {', '.join(_LISTED[entry.name])}."
            if value is not None and value is not False and value not in ("", (), {}):
                text += f" (default: {_shown(value)})"
            yield _Flag(entry.name, values, text)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return "on" if value is True else f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(hint: Any) -> str:
    """What a flag takes, as its help shows it.

    >>> _values(int | Literal["auto"] | None), _values(tuple[float, float]), _values(Path | None), _values(bool)
    ('INT|auto', 'FLOAT FLOAT', 'PATH', '')
    """
    options = [option for option in get_args(hint) if option is not NoneType]
    if str in options and any(get_origin(option) is dict for option in options):
        # What only a file of settings says.
        return _values(str)
    if get_origin(hint) in (Union, UnionType):
        return "|".join(filter(None, dict.fromkeys(map(_values, options))))
    if get_origin(hint) is Literal:
        return "|".join(map(str, options))
    if get_origin(hint) is tuple:
        return f"{_values(options[0])} ..." if options[-1] is Ellipsis else " ".join(map(_values, options))
    if get_origin(hint) is dict:
        return "NAME=VALUE ..."
    return {bool: "", int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}[hint]


def _shortened(values: str) -> str:
    return values if len(values) <= 9 else values.split("|")[0].split()[0] if "INT" in values else "NAME"


def _docstrings(kind: type[Any]) -> dict[str, str]:
    """The text under each field of a dataclass."""
    texts: dict[str, str] = {}
    name = ""
    definitions = [ast.parse(inspect.getsource(base)).body[0] for base in kind.__mro__ if is_dataclass(base)]
    for node in (node for each in definitions if isinstance(each, ast.ClassDef) for node in each.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            texts[name] = " ".join(str(node.value.value).split())
            name = ""
    return texts


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
