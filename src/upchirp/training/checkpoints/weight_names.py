"""The place of a model's weights in a file: in which dictionary, and under which prefix of their names."""

import contextlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models import fit_stored
from upchirp.models.meta import meta_copy

Tensors = Mapping[str, torch.Tensor]

_DEPTH = 4
_AVERAGE = re.compile(r"(?:^|[._])(?:ema|teacher)(?:[._]|$)")
"""What dictionaries and modules with averaged weights are called; they are preferred, as timm does."""
_DOMINANT = 0.8


@dataclass(frozen=True, eq=False)
class Found:
    """The tensors of a model, under its own names."""

    tensors: dict[str, torch.Tensor]
    """By the model's names; some may be missing, and some unknown to it."""
    left_out: tuple[str, ...] = ()
    """Names in the same dictionary that belong to none of the model's modules, such as a loss or a projection head."""


def parts(content: object) -> dict[str, dict[str, torch.Tensor]]:
    """All dictionaries of tensors in what a file holds, by the path to them.

    >>> sorted(parts({"epoch": 3, "model": {"weight": torch.zeros(1)}, "ema": {"weight": torch.zeros(1), "n": 1}}))
    ['ema', 'model']
    """
    return dict(_parts(content, "", _DEPTH))


def _parts(content: object, path: str, depth: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    if not isinstance(content, Mapping) or not depth:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    if tensors := {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}:
        yield path, tensors
    for name, value in named.items():
        yield from _parts(value, f"{path}.{name}" if path else name, depth - 1)


def is_average(path: str) -> bool:
    """Whether a dictionary or a module of that name holds averaged weights.

    >>> is_average("state.ema"), is_average("state.model")
    (True, False)
    """
    return bool(_AVERAGE.search(path))


def find(model: nn.Module, dictionaries: Mapping[str, Tensors], expected: Sequence[str]) -> Found:
    """The dictionary and the prefix under which most of a model's names stand, and the tensors there.

    Averages go before what they are averages of. Names that the authors of a model gave are translated by timm's own
    filter for it.

    Raises:
        InputError: the model stands there twice, and nothing says which one is meant.
    """
    wanted = frozenset(expected)
    best: tuple[int, bool, str, dict[str, torch.Tensor], Tensors] | None = None
    for path, tensors in dictionaries.items():
        for prefix, named in _readings(model, tensors, wanted):
            score = len(wanted & named.keys())
            average = is_average(f"{path}.{prefix}")
            if best is None or (score, average) > best[:2]:
                best = score, average, prefix, named, tensors
    if best is None:
        return Found({})
    _, _, prefix, named, tensors = best
    modules = {name.partition(".")[0] for name in (*model.state_dict(), *dict(model.named_buffers()))}
    strangers = {name for name in named if name.partition(".")[0] not in modules}
    # A second copy of the model is no stranger.
    outside = {name for name in tensors if not name.startswith(prefix) and not _split(name, wanted)}
    kept = {name: tensor for name, tensor in named.items() if name not in strangers or not wanted & named.keys()}
    return Found(kept, tuple(sorted(outside | (strangers - kept.keys()))))


def _readings(
    model: nn.Module, tensors: Tensors, wanted: frozenset[str]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Prefixes that the names may have, with the tensors under names without it."""
    prefix = _native_prefix(tensors, wanted)
    native = _without(prefix, tensors)
    yield prefix, native
    if not wanted - native.keys():
        return
    translate = getattr(inspect.getmodule(type(model)), "checkpoint_filter_fn", None)
    if translate is None:
        return
    twin = _at_published_size(model)
    for other in dict.fromkeys([prefix, *_dominant_prefixes(tensors)]):
        with contextlib.suppress(LookupError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError):
            translated = dict(translate(_without(other, tensors), twin))
            if all(isinstance(value, torch.Tensor) for value in translated.values()):
                yield other, translated


def _native_prefix(tensors: Tensors, wanted: frozenset[str]) -> str:
    """What stands before most of the wanted names."""
    counts = Counter(prefix for name in tensors for prefix in _split(name, wanted))
    most = max(counts.values(), default=0)
    tied = [prefix for prefix, count in counts.items() if count == most]
    averages = [prefix for prefix in tied if is_average(prefix)]
    chosen = min(averages or tied, key=len, default="")
    twice = [prefix for prefix in averages or tied if not prefix.startswith(chosen)]
    # Single names, such as norm.weight, stand in every model.
    if twice and 2 * most > len(wanted):
        raise InputError(f"it holds the model twice, as {chosen}* and {twice[0]}*: save the one that you want alone")
    return chosen


def _split(name: str, wanted: frozenset[str]) -> list[str]:
    """What may stand before a wanted name in a name."""
    ends = [0, *(match.end() for match in re.finditer(r"\.", name))]
    return [name[:end] for end in ends if name[end:] in wanted]


def _dominant_prefixes(tensors: Tensors) -> Iterator[str]:
    """Prefixes, ever longer, that most names have."""
    prefix = ""
    while True:
        yield prefix
        rest = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        counts = Counter(name.partition(".")[0] for name in rest if "." in name)
        first, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
        if count < _DOMINANT * len(tensors):
            return
        prefix += f"{first}."


def _without(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _at_published_size(model: nn.Module) -> nn.Module:
    """A copy without values at the side that published weights are for, so that a filter resizes nothing."""
    twin = meta_copy(model)
    config: Any = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and config.get("input_size"):
        with contextlib.suppress(InputError):
            fit_stored(twin, int(config["input_size"][-1]))
    return twin
