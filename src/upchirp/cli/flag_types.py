"""Types of flags that tyro does not know, or would read in another way, each with the words that the help shows."""

import ast
from collections.abc import Mapping
from typing import Any, Literal

import tyro

REGISTRY = tyro.constructors.ConstructorRegistry()
"""In whose context tyro knows these types."""


@REGISTRY.primitive_rule
def _name_value_pairs(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """`--model-kwargs layers=[1,1,1] act_layer=silu`, as timm's scripts write it."""
    if info.type != dict[str, Any]:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME=VALUE ...]",
        instance_from_str=lambda words: dict(map(_name_value, words)),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{name}={item}" for name, item in value.items()],
    )


@REGISTRY.primitive_rule
def _number_or_auto(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """`--replay 2` and `--replay auto`, with a message that names the two; `None` where that is the default."""
    kinds = {"auto": (int | Literal["auto"], int | Literal["auto"] | None), "all": (int | Literal["all"],)}
    word = next((word for word, own in kinds.items() if info.type in own), None)
    if word is None:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"INT|{word}",
        instance_from_str=lambda words: words[0] if words[0] == word else _whole_number(words[0], word),
        is_instance=lambda value: value is None or isinstance(value, int) or value == word,
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _numbers_or_auto(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """`--early-batch 4096 2048` and `--early-batch auto`."""
    if info.type != tuple[int, ...] | Literal["auto"] | None:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="INT ...|auto",
        instance_from_str=lambda words: "auto" if words == ["auto"] else tuple(map(_whole_number, words)),
        is_instance=lambda value: value is None or value == "auto" or isinstance(value, tuple),
        str_from_instance=lambda value: ["None"] if value is None else _words(value),
    )


@REGISTRY.primitive_rule
def _number_or_names(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """`--freeze 3` and `--freeze conv1 layer1`."""
    if info.type != int | tuple[str, ...] | None:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="INT|TEXT ...",
        instance_from_str=lambda words: int(words[0]) if len(words) == 1 and words[0].isdigit() else tuple(words),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda value: list(map(str, value)) if isinstance(value, tuple) else [str(value)],
    )


@REGISTRY.primitive_rule
def _name_or_phases(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """`--curriculum linear`; its phases themselves are given by files of settings alone."""
    if info.type != str | dict[str, Any]:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="TEXT",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str | dict),
        str_from_instance=lambda value: [str(value)],
    )


def _whole_number(word: str, other: str = "auto") -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{word!r} is neither a whole number nor {other}") from None


def _words(sizes: tuple[int, ...] | str) -> list[str]:
    return [sizes] if isinstance(sizes, str) else [str(size) for size in sizes]


def _name_value(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"{word!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text
