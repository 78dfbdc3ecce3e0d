"""Settings in the library's messages, as the command line calls them."""

import ast
import importlib
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from functools import cache

# A setting, and perhaps what it is to be: `batch_size`, `resume='auto'`.
_SETTING = re.compile(r"`([a-z]\w*)(?:=([^`]+))?`")


def with_flags(message: str, values: Collection[str] = ()) -> str:
    """A message in which the library names settings in backticks, with flags in their place.

    Other words in backticks stay as they are.

    Args:
        message: a line for the user.
        values: words that are values in it, although settings are called so, too.

    >>> print(with_flags("no `data` for `upchirp train`: try `resume='auto'`, `model_ema=False` and `sizes=(96, 128)`"))
    no --data for `upchirp train`: try --resume auto, --no-model-ema and --sizes 96 128
    """
    return _SETTING.sub(lambda found: found[0] if found[1] in values else _flag(found), message)


def _flag(setting: re.Match[str]) -> str:
    name, value = setting.groups()
    if name not in _settings():
        return setting[0]
    flag = f"--{name.replace('_', '-')}"
    if value is None or value == "True":
        return flag
    if value == "False":
        return f"--no-{flag.removeprefix('--')}"
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        # It stands for a value, such as FILE.
        return f"{flag} {value}"
    words = map(str, literal) if isinstance(literal, tuple) else [literal if isinstance(literal, str) else value]
    return shlex.join([flag, *words])


@cache
def _settings() -> set[str]:
    """The names of all flags of all commands."""
    # In here, as the commands print by this module.
    from upchirp.cli.commands import COMMANDS

    modules = [importlib.import_module(f"upchirp.cli.{name}") for name in COMMANDS]
    values = {value for module in modules for name, value in vars(module).items() if name.endswith("Command")}
    commands = [value() for value in values if isinstance(value, type) and is_dataclass(value)]
    return {name for command in commands for name in _of(command)}


def _of(command: object) -> Iterator[str]:
    """The names of a dataclass's flags, and of those in it."""
    assert is_dataclass(command)
    for entry in fields(command):
        value = getattr(command, entry.name)
        if is_dataclass(value):
            yield from _of(value)
        elif entry.metadata.get("flag", True):
            yield entry.name
