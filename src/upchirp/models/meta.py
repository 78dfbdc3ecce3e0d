"""Copies of a model without its values, to try things on.

What a size does to a model, and what it costs, depends on shapes only. A copy on PyTorch's meta device has
the shapes and none of the memory, so it can be resized and run forward in a fraction of a second, and the
model itself is not touched.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import batch_norm, gelu, layer_norm, silu
from torch.nn.functional import scaled_dot_product_attention as attention
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from upchirp.errors import InputError

_HOOK_TABLES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)

_FILLING = frozenset(
    [
        *(getattr(torch.Tensor, f"{name}_") for name in ("uniform", "normal", "erfinv", "clamp")),
        *(getattr(torch.Tensor, f"{name}_") for name in ("mul", "add", "fill", "zero")),
        *(nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_),
    ]
)


_KEEPING: dict[Any, Callable[..., bool]] = {
    layer_norm: lambda images, shape, *_: tuple(images.shape[-len(shape) :]) == tuple(shape),
    batch_norm: lambda images, mean=None, *_: mean is not None and images.ndim > 1 and images.shape[1] == len(mean),
    **dict.fromkeys((gelu, silu), lambda *_: True),
}
"""Functions that return a tensor of the shape of their first, and whether it fits them; else they say what is wrong."""


class _FillingNothing(TorchFunctionMode):
    """Leaves tensors without values as they are where only values would change."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _FILLING and (filled := args[0] if args else kwargs["tensor"]).is_meta:
            return filled
        return function(*args, **kwargs)


def _products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, **_: Any
) -> torch.Tensor:
    """The two products of attention."""
    scores = query @ key.transpose(-2, -1)
    if attn_mask is not None:
        attn_mask.expand_as(scores)
    return scores @ value


class _ProductsOnly(TorchFunctionMode):
    """Runs a model without values for its shapes and products; norms, activations and softmax have none.

    PyTorch takes such operators apart in Python, half of the time that a model takes to be counted.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _KEEPING and args[:1] and args[0].is_meta and _KEEPING[function](*args):
            # The kernel of layer norms makes its outputs contiguous.
            return torch.empty_like(
                args[0], memory_format=torch.contiguous_format if function is layer_norm else torch.preserve_format
            )
        if function is attention and len(args) in (3, 4) and args[0].is_meta and not kwargs.get("enable_gqa"):
            return _products(*args, **kwargs)
        return function(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build models on the meta device, without the work of initialising what has no values.

    PyTorch takes such a call apart in Python, most of the time that a transformer takes to be built.

    >>> with shapes_only():
    ...     layer = nn.Linear(3, 4)
    >>> layer.weight.is_meta, tuple(nn.init.normal_(layer.weight).shape)
    (True, (4, 3))
    """
    with torch.device("meta"), _FillingNothing():
        yield


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile` and data-parallel wrappers.

    >>> inner = nn.Linear(2, 2)
    >>> unwrap(nn.DataParallel(inner)) is inner
    True

    Raises:
        InputError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(_no_module(model))
    while True:
        inner: Any
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _no_module(given: object) -> str:
    if isinstance(given, str):
        return f"the model is {given!r}, a name: make the model first, as by `timm.create_model({given!r})`"
    return f"the model is a {type(given).__name__}, no torch.nn.Module: give the arguments in their order"


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, in evaluation mode and without hooks; no values are copied.

    Parameters that are shared stay shared. Hooks are left behind because they belong to their owner: one that
    logs activations must not be handed empty ones.

    >>> layer = nn.Linear(3, 4)
    >>> twin = meta_copy(layer)
    >>> twin.weight.device.type, tuple(twin.weight.shape), layer.weight.device.type
    ('meta', (4, 3), 'cpu')
    """
    return _copy(model, lambda values: torch.empty_like(values, device="meta", requires_grad=False))


def bare_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` with its values, in evaluation mode and without hooks."""
    return _copy(model, lambda values: values.detach().clone())


def _copy(model: nn.Module, copy_tensor: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    # Everything listed here is what `deepcopy` finds already copied, so it never reads the originals.
    memo: dict[int, Any] = {}
    for module in model.modules():
        for table in _HOOK_TABLES:
            hooks = getattr(module, table, None)
            if hooks is not None:
                memo[id(hooks)] = OrderedDict()
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, torch.Tensor) and id(value) not in memo:
                twin = copy_tensor(value)
                is_parameter = isinstance(value, nn.Parameter)
                memo[id(value)] = nn.Parameter(twin, value.requires_grad) if is_parameter else twin
    return copy.deepcopy(model, memo).eval()


def input_channels(model: nn.Module) -> int:
    """Channels of the images that `model` takes: as declared, else its first convolution's, else 3."""
    declared = getattr(model, "in_chans", None)
    if isinstance(declared, int):
        return declared
    config = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and config.get("input_size"):
        return int(config["input_size"][0])
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)


def run_forward(model: nn.Module, size: int) -> None:
    """Run `model`, in evaluation mode, on one image of zeros of side `size`, where its parameters live."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.float32 if parameter is None else parameter.dtype
    images = torch.zeros(1, input_channels(model), size, size, device=device, dtype=dtype)
    with torch.no_grad(), device, _ProductsOnly():
        model(images)


def count_forward(model: nn.Module, size: int) -> int:
    """The multiply-adds of `run_forward`; the model is a copy, as its parameters ask for no gradients afterwards.

    PyTorch's counter counts two operations for each multiply-add.
    """
    # With gradients on, the counter follows modules through autograd, which shared tokens can break.
    model.requires_grad_(False)
    # Fused attention is one operator, which the counter knows on some devices only; the plain form is two products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_forward(model, size)
    return int(counter.get_total_flops()) // 2
