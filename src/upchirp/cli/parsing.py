"""Filling dataclasses from flags, by tyro, and from files of settings, with one line for what is wrong."""

import contextlib
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tyro

from upchirp.cli.completion import flags_of
from upchirp.cli.flag_types import REGISTRY
from upchirp.cli.help import full_help, short_help
from upchirp.errors import InputError
from upchirp.training import Regime, TrainConfig, load_config
from upchirp.training.recipes.around_training import AroundTraining
from upchirp.training.recipes.config import flat_names, is_flag, named_model
from upchirp.training.recipes.config_file import CONFIG
from upchirp.training.recipes.other_names import meant

T = TypeVar("T")

# What tyro adds to the line that says what is wrong.
_ENDS = ("For full helptext", "Argument helptext", "Perhaps you meant", "Arguments similar to")


def parse(default: T, words: Sequence[str], *, prog: str, description: str) -> T:
    """Fill a dataclass from flags, over the values that it has.

    Raises:
        InputError: an unknown flag or a value of the wrong type.
    """
    _help(words, prog, description, lambda: default, takes_file=False)
    with _one_line(prog), REGISTRY:
        return tyro.cli(
            type(default),
            args=list(words),
            prog=prog,
            description=description,
            default=default,
            config=(tyro.conf.OmitArgPrefixes,),
        )


def _help(
    words: Sequence[str], prog: str, description: str, defaults: Callable[[], object], *, takes_file: bool
) -> None:
    """Print the help that is asked for, if it is, and end."""
    if "--help-all" in words:
        print(full_help(prog, description, defaults(), takes_file=takes_file))
    elif {"-h", "--help"} & set(words):
        print(short_help(prog, description, defaults()))
    else:
        return
    raise SystemExit(0)


@contextlib.contextmanager
def _one_line(prog: str) -> Iterator[None]:
    """Turn what tyro prints of a mistake into one line.

    Raises:
        InputError: that line.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            yield
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise InputError(_refusal(told.getvalue(), prog)) from None


def parse_training(
    words: Sequence[str],
    *,
    prog: str,
    description: str,
    build: Callable[[Mapping[str, Any], str], T],
    regime: Regime | None = None,
    job: type[AroundTraining] | None = None,
) -> T:
    """Fill a dataclass that holds a `TrainConfig`: the recipe's values, over them `--config`, over them the flags.

    Args:
        words: the arguments.
        prog: shown in messages.
        description: shown by `--help`.
        build: makes the dataclass that flags change from what the file gives, and the name of the file for messages.
        job: settings that the folder of one that is gone on with gives, under those of `--config`.
        regime: the command's own regime, which neither file nor flags may change; by default theirs.
    """
    asked_regime = {} if regime is None else {"regime": regime}
    _help(words, prog, description, lambda: build(asked_regime, "config"), takes_file=True)
    file, rest = first(_File(), words, prog)
    values: dict[str, Any] = {}
    source = "config"
    if file.config:
        values, source = load_config(Path(file.config)), file.config
    deciding, _ = first(_Deciding(pretrained=bool(values.get("pretrained"))), rest, prog)
    asked = {name: value for name, value in vars(deciding).items() if value not in ("", _UNASKED)}
    if job is not None and asked.get("resume") == "auto":
        folder = Path(asked.get("output") or "")
        if (folder / CONFIG).is_file():
            values, source = {**job.stored(folder), **values}, file.config or str(folder / CONFIG)
        elif "data" not in values.keys() | _named(rest):
            raise InputError(f"{folder} holds nothing to go on with: check --output, or give --data for a new one")
    values |= {name: value for name, value in asked.items() if value is not False or name in values}
    if regime is not None and values.setdefault("regime", regime) != regime:
        raise InputError(
            f"{prog} has the regime {regime}, but {source} or a flag gives {values['regime']} and what goes with it: "
            "leave it out"
        )
    if values.get("weights") and "model" not in values:
        values = {**_model_of_weights(values), **values}
    default = build(values, source)
    kept: dict[type, dict[str, Any]] = {TrainConfig: {"given": frozenset(values.keys() & flat_names() | _named(rest))}}
    for made in vars(default).values():
        if job is not None and isinstance(made, job):
            kept[job] = {entry.name: getattr(made, entry.name) for entry in fields(made) if not is_flag(entry)}
    with _keeping(kept):
        return parse(default, rest, prog=prog, description=description)


def _model_of_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model that weights are of, as far as they say so; a file has to."""
    named = named_model(values)
    if not named and Path(values["weights"]).is_file():
        raise InputError(f"{values['weights']} does not say which model it is of: name it by --model")
    return named


@dataclass(frozen=True, kw_only=True)
class _File:
    """The flag that names a file of settings."""

    config: str = ""


_UNASKED = -1.0
"""A number that nobody asks for."""


@dataclass(frozen=True, kw_only=True)
class _Deciding:
    """Flags that other settings follow from; empty where they are not given."""

    recipe: str = ""
    model: str = ""
    regime: str = ""
    weights: str | None = ""
    output: str | None = ""
    resume: str | None = ""
    curriculum: str = ""
    warmup_passes: float = _UNASKED
    pretrained: bool = False


def first(unasked: T, words: Sequence[str], prog: str) -> tuple[T, list[str]]:
    """Some flags ahead of all others, by the very rules that those are read by, and the other words.

    Raises:
        InputError: one of them lacks its value.
    """
    if {"-h", "--help", "--help-all"} & set(words):
        return unasked, list(words)
    with _one_line(prog):
        return tyro.cli(type(unasked), args=list(words), default=unasked, return_unknown_args=True)


def _named(words: Sequence[str]) -> set[str]:
    """The settings that some flags name: `--batch-size 64`, `--batch-size=64` and `--no-amp`."""
    flags = {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    return {name.removeprefix("no_") if name not in flat_names() else name for name in flags} & flat_names()


@contextlib.contextmanager
def _keeping(kept: Mapping[type, Mapping[str, Any]]) -> Iterator[None]:
    """Let dataclasses that flags fill have values that no flag says, such as which settings were given."""
    registry = tyro.constructors.ConstructorRegistry()
    asking: set[type] = set()

    @registry.struct_rule
    def _filled(info: tyro.constructors.StructTypeInfo) -> Any:
        kind: Any = info.type
        if kind in asking or kind not in kept:
            return None
        asking.add(kind)
        spec: Any = tyro.constructors.ConstructorRegistry.get_struct_spec(info)
        asking.remove(kind)
        flags = tuple(entry for entry in spec.fields if entry.name not in kept[kind])
        return replace(spec, fields=flags, instantiate=partial(spec.instantiate, **kept[kind]))

    with registry:
        yield


_NUMBERS = {
    "a whole number": r"no type matching \{None\}\|INT could|invalid literal for int\(\)",
    "a number": r"no type matching \{None\}\|FLOAT could|could not convert string to float",
}
"""How tyro begins to say that a value is none, whether or not the flag may be left open."""


def _near(flag: str, known: Collection[str]) -> list[str]:
    """The flags of a command that an unknown one may mean."""
    if flag == "--run" and "--weights" in known:
        return ["--weights RUN/model.safetensors"]
    off = "--no-" if flag.startswith("--no-") else "--"
    names = meant(flag.removeprefix(off), [name.removeprefix("--").replace("-", "_") for name in known])
    return [off + name.replace("_", "-") for name in names]


def _refusal(box: str, prog: str) -> str:
    """The message in tyro's box, without its frame, on one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ ").strip() for line in plain.splitlines()]
    # Where there is no UTF-8, frames are lines of dashes around a title.
    rules = [k for k, line in enumerate(lines) if line and set(line) <= {"─", "-"}]
    titles = {k - 1 for k in rules[:1] if set(lines[k]) == {"-"}}
    dropped = {*rules, *titles}
    lines = [line for k, line in enumerate(lines) if line and k not in dropped and not line.startswith(("╭", "╰"))]
    ends = [k for k, line in enumerate(lines) if line.startswith(_ENDS)]
    message = " ".join(lines[: ends[0]] if ends else lines)
    if ours := re.match(r"Error parsing (?!--)\S+: ", message):
        # What a dataclass says of its values, under the name of a section that no flag has.
        return message[ours.end() :]
    message = re.sub(r"^Missing value for argument '(\S+)'\. Expected 1 values\.", r"\1 needs a value", message)
    if choice := re.match(r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)", message):
        choices = sorted({word.strip("' ,") for word in choice[3].split(", ")} - {"None"})
        return f"{choice[2]} is {choice[1]!r}: choose one of {', '.join(choices)}"
    for expected, said in _NUMBERS.items():
        if number := re.match(rf"Error parsing (--\S+): (?={said}).*: '(.*)'", message):
            return f"{number[1]} is {number[2]!r}: expected {expected}"
    if listed := re.match(r"Error parsing (--\S+): .*Could not find valid parse for arguments: \[(.*?)\]", message):
        expected = "numbers" if "FLOAT" in plain else "whole numbers"
        return f"{listed[1]} is {listed[2]}: expected {expected}"
    message = re.sub(r"^Error parsing (--\S+: )", r"\1", message)
    if unknown := re.match(r"Unrecognized options?: (.*)", message):
        words = unknown[1].split(", ")
        flags = [word.partition("=")[0] for word in words if word.startswith("-")]
        known = flags_of(prog.split()[-1])
        near = [other for flag in flags for other in _near(flag, known)]
        if not flags and Path(words[0]).exists():
            near = [f"{'--run' if '--run' in known else '--data'} {words[0]}"]
        hint = f": did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        message = f"unknown {'flag' if flags else 'word'} {', '.join(flags or words)}{hint}"
    return f"{message or 'the flags could not be read'} (all flags: {prog} --help-all)"
