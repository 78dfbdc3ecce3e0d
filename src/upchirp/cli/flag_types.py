"""Types of flags that tyro does not know, or would read in another way, each with the words that the help shows."""

import ast
from collections.abc import Callable, Mapping
from typing import Any, Literal

import tyro

REGISTRY = tyro.constructors.ConstructorRegistry()
"""In whose context tyro knows these types."""


def _teach(
    *types: Any,
    metavar: str,
    nargs: Literal[1, "*"],
    read: Callable[[list[str]], Any],
    holds: Callable[[Any], bool],
    write: Callable[[Any], list[str]],
) -> None:
    """Let tyro know types by how their words are read and written, and which values are theirs."""

    @REGISTRY.primitive_rule
    def _spec(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if info.type not in types:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=nargs, metavar=metavar, instance_from_str=read, is_instance=holds, str_from_instance=write
        )


def _teach_number_or(word: str, *types: Any) -> None:
    _teach(
        *types,
        metavar=f"INT|{word}",
        nargs=1,
        read=lambda words: word if words == [word] else _whole_number(words[0], word),
        holds=lambda value: value is None or isinstance(value, int) or value == word,
        write=lambda value: [str(value)],
    )


def _whole_number(word: str, other: str = "auto") -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{word!r} is neither a whole number nor {other}") from None


def _name_value(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"{word!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


# `--model-kwargs layers=[1,1,1] act_layer=silu`, as timm's scripts write it.
_teach(
    dict[str, Any],
    metavar="[NAME=VALUE ...]",
    nargs="*",
    read=lambda words: dict(map(_name_value, words)),
    holds=lambda value: isinstance(value, Mapping),
    write=lambda value: [f"{name}={item}" for name, item in value.items()],
)
# `--replay 2` and `--replay auto`, with a message that names the two; `None` where that is the default.
_teach_number_or("auto", int | Literal["auto"], int | Literal["auto"] | None)
# `--checkpoint-keep 3` and `--checkpoint-keep all`.
_teach_number_or("all", int | Literal["all"])
# `--early-batch 4096 2048` and `--early-batch auto`.
_teach(
    tuple[int, ...] | Literal["auto"] | None,
    metavar="INT ...|auto",
    nargs="*",
    read=lambda words: "auto" if words == ["auto"] else tuple(map(_whole_number, words)),
    holds=lambda value: value is None or value == "auto" or isinstance(value, tuple),
    write=lambda value: list(map(str, value)) if isinstance(value, tuple) else [str(value)],
)
# `--freeze 3` and `--freeze conv1 layer1`.
_teach(
    int | tuple[str, ...] | None,
    metavar="INT|TEXT ...",
    nargs="*",
    read=lambda words: int(words[0]) if len(words) == 1 and words[0].isdigit() else tuple(words),
    holds=lambda value: value is None or isinstance(value, int | tuple),
    write=lambda value: list(map(str, value)) if isinstance(value, tuple) else [str(value)],
)
# `--curriculum linear`; its phases themselves are given by files of settings alone.
_teach(
    str | dict[str, Any],
    metavar="TEXT",
    nargs=1,
    read=lambda words: words[0],
    holds=lambda value: isinstance(value, str | dict),
    write=lambda value: [str(value)],
)
