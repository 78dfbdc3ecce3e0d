"""Facts that were worked out without values, kept for every model of the same structure.

What an input size does to a model, and what it costs, depends on its structure alone: on its modules, their settings
and the shapes of their tensors. A training asks for it several times over, and each trial of a search does so again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

_KEPT = 32
_PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype)
_NOT_STRUCTURE = {
    "training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set",
    # What timm was asked for, defaults left out: the modules tell it.
    "_model_args",
}  # fmt: skip
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")

_lock = threading.Lock()
_known: OrderedDict[Hashable, dict[Hashable, Any]] = OrderedDict()


class _UnknownSetting(Exception):
    """A module holds what cannot be compared, or what must not be kept for longer than its owner does."""


def known_of(model: nn.Module) -> dict[Hashable, Any]:
    """What is known of models of this structure, to be read and added to.

    Values are no part of the structure, nor are hooks, the device, and whether the model is training. Of a model with
    settings that cannot be compared nothing is kept: it has an empty one each time.

    >>> known_of(nn.Linear(3, 4))["answer"] = 42
    >>> known_of(nn.Linear(3, 4)), known_of(nn.Linear(3, 5))
    ({'answer': 42}, {})
    """
    try:
        structure = _of_module(model, {})
    except _UnknownSetting:
        return {}
    with _lock:
        found = _known.setdefault(structure, {})
        _known.move_to_end(structure)
        if len(_known) > _KEPT:
            _known.popitem(last=False)
    return found


def _of_module(module: nn.Module, met: dict[int, int]) -> Hashable:
    """`met` numbers the modules and tensors: one that comes again is shared, which another like it is not."""
    if id(module) in met:
        return met[id(module)]
    met[id(module)] = len(met)
    settings = tuple(
        (name, _of_tensor(value, met) if isinstance(value, torch.Tensor) else _of(value, met))
        for name, value in vars(module).items()
        if name not in _NOT_STRUCTURE and not name.endswith(_HOOKS)
    )
    tensors = tuple(
        (name, None if tensor is None else _of_tensor(tensor, met))
        for table in (module._parameters, module._buffers)
        for name, tensor in table.items()
    )
    children = tuple(
        (name, None if child is None else _of_module(child, met)) for name, child in module._modules.items()
    )
    return _lasting(type(module)), settings, tensors, children


def _of_tensor(tensor: torch.Tensor, met: dict[int, int]) -> Hashable:
    if id(tensor) in met:
        return met[id(tensor)]
    met[id(tensor)] = len(met)
    return type(tensor), tensor.shape, tensor.dtype, tensor.requires_grad


def _of(value: object, met: dict[int, int]) -> Hashable:
    # With its type, as 1, 1.0 and True are equal.
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, list | tuple | torch.Size):
        return type(value), tuple(_of(one, met) for one in value)
    if isinstance(value, dict):
        return type(value), tuple((_of(key, met), _of(one, met)) for key, one in value.items())
    if isinstance(value, partial):
        return partial, _of(value.func, met), _of(value.args, met), _of(value.keywords, met)
    if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        return MethodType, _lasting(value.__func__), _of_module(value.__self__, met)
    if isinstance(value, nn.Module):
        return _of_module(value, met)
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _lasting(value)
    # Among others tensors in lists, whose values stay in a copy without values.
    raise _UnknownSetting


def _lasting(code: Callable[..., object]) -> Hashable:
    """Code of a file, which is there for good. Made inside a function it may hold anything, a whole model included."""
    owner = getattr(code, "__self__", None) if isinstance(code, BuiltinFunctionType) else None
    if "<" in code.__qualname__ or not isinstance(owner, ModuleType | type | None):
        raise _UnknownSetting
    return code
