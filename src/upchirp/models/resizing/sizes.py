"""Input sizes that a model takes: found out before training, on copies without values."""

import itertools
import math
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError, first_line
from upchirp.models.meta import bare_copy, count_forward, meta_copy, run_forward, unwrap
from upchirp.models.resizing.families import apply_fits, declared_multiple, declared_size, plan_fits
from upchirp.models.structure import known_of

PROBE_SIZES = (224, 256, 192, 384)
"""Sides at which a model that declares none is tried."""
_USUAL_SIZES = (28, 32, 64, 96, 128, 160, *PROBE_SIZES)
_NEIGHBOURS_TRIED = 4


def size_multiple(model: nn.Module) -> int:
    """Smallest m such that images whose side is a multiple of m lose no pixel in `model`.

    It is the least common multiple of the stride of the first convolution (if padded), of the pixels per step
    of every convolution whose windows don't overlap (kernel = stride, no padding: such a one drops what is
    left over), and of the patches and windows a transformer declares. It takes one forward pass without
    values, and none for a model of the same structure as one before; the model is not touched.

    >>> from upchirp.models import create_model
    >>> names = ("resnet18", "convnext_atto", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
    >>> [size_multiple(create_model(name)) for name in names]
    [2, 32, 16, 32]
    """
    model = unwrap(model)
    known = known_of(model)
    if "multiple" not in known:
        known["multiple"] = _multiple_of(meta_copy(model))
    return int(known["multiple"])


def _multiple_of(twin: nn.Module) -> int:
    declared = declared_size(twin)
    sizes = PROBE_SIZES if declared is None else (declared, *PROBE_SIZES)
    most: list[int] = []
    for size in sizes:
        found, complete = _convolution_multiples(twin, size)
        if complete:
            most = found
            break
        # A network made for a size not tried here runs as far as its first fixed layer: take what was seen.
        most = max(most, found, key=len)
    return math.lcm(declared_multiple(twin), *most)


def check_sizes(model: nn.Module, sizes: Iterable[int]) -> None:
    """Raise `InputError` if `model` cannot take images of one of the `sizes`; meant to run before training.

    Each size must be a multiple of `size_multiple(model)`, and a forward pass on a copy without values that
    is fitted to the size must succeed. (Where an operator does not run without values, a real copy decides.)

    Raises:
        InputError: names the size, the model and the nearest sizes that work.

    >>> check_sizes(nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.Flatten()), [96, 100])
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: Sequential cannot take images of side 100 (...
    """
    model = unwrap(model)
    multiple = size_multiple(model)
    sizes = list(sizes)
    for size in sizes:
        check_positive(size)
    for size in sorted(set(sizes)):
        hint = ""
        if size % multiple:
            why = f"its strides, patches or windows divide multiples of {multiple} only"
        else:
            error = failure_at(model, size)
            if error is None:
                continue
            why = first_line(error)
            if "ResizableInput" not in why:
                hint = "; `grid_changes` can make a module take more (see upchirp.models.ResizableInput)"
        advice = nearest_sizes(model, size, multiple)
        raise InputError(f"{model_name(model)} cannot take images of side {size} ({why}): {advice}{hint}")


def resized_parameters(model: nn.Module, sizes: Iterable[int]) -> set[str]:
    """The names of the parameters that other input sides resize; the model is not touched.

    >>> from upchirp.models import create_model
    >>> resized_parameters(create_model("vit_tiny_patch16_224", depth=1, embed_dim=24), [96, 224])
    {'pos_embed'}
    """
    twin = meta_copy(unwrap(model))
    before = {name: parameter.shape for name, parameter in twin.named_parameters()}
    found: set[str] = set()
    for size in sizes:
        apply_fits(plan_fits(twin, size))
        found |= {name for name, parameter in twin.named_parameters() if parameter.shape != before[name]}
    return found


def failure_at(model: nn.Module, size: int) -> Exception | None:
    """What goes wrong when a copy of `model` is fitted to `size` and run; None if nothing does."""
    cost = cost_at(model, size)
    return cost if isinstance(cost, Exception) else None


def cost_at(model: nn.Module, size: int) -> int | Exception:
    """Multiply-adds of a copy of `model` that is fitted to `size`, or what goes wrong when it is fitted and run."""
    known = known_of(model)
    if ("cost", size) in known:
        return int(known["cost", size])
    try:
        cost = known["cost", size] = _cost_of(meta_copy(model), size)
    except InputError as error:
        return error
    except Exception as error:
        without_values = error
    else:
        return cost
    if any(parameter.is_meta for parameter in model.parameters()):
        return without_values
    try:
        return _cost_of(bare_copy(model), size)
    except Exception as error:
        return error


def _cost_of(twin: nn.Module, size: int) -> int:
    before = dict(twin.named_parameters())
    apply_fits(plan_fits(twin, size))
    for name, parameter in twin.named_parameters():
        if before.get(name) is not parameter:
            raise InputError(
                f"its own set_input_size replaces parameter {name}, of a form upchirp cannot resize: define "
                "`grid_changes` (see upchirp.models.ResizableInput)"
            )
    return count_forward(twin, size)


def _convolution_multiples(twin: nn.Module, size: int) -> tuple[list[int], bool]:
    """What the convolutions that ran at `size` ask for, and whether the model ran to its end."""
    found: list[int] = []

    def look(convolution: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        stride, kernel = convolution.stride[0], convolution.kernel_size[0]
        padded = convolution.padding not in ((0, 0), "valid")
        if not found:
            # Unpadded and overlapping, as in Inception, the exact sides are no multiples: 299 = 2 * 149 + 1.
            found.append(stride if padded or kernel <= stride else 1)
        if kernel == stride > 1 and not padded:
            found.append(round(size / inputs[0].shape[-2]) * stride)

    hooks = [m.register_forward_pre_hook(look) for m in twin.modules() if isinstance(m, nn.Conv2d)]
    try:
        run_forward(twin, size)
    except Exception:
        return found, False
    finally:
        for hook in hooks:
            hook.remove()
    return found, True


def nearest_sizes(model: nn.Module, size: int, multiple: int) -> str:
    """The nearest sizes that work, below and above."""
    start = size - size % multiple
    declared = declared_size(model)
    usual = [side for side in (declared, *_USUAL_SIZES) if side is not None and side % multiple == 0]
    working = []
    for sign in (-1, 1):
        near = [start + multiple * step * sign for step in range(_NEIGHBOURS_TRIED + 1)]
        candidates = {side for side in (*near, *usual) if side > 0 and (side - size) * sign > 0}
        nearest_first = sorted(candidates, key=lambda side: abs(side - size))
        working += list(itertools.islice((s for s in nearest_first if failure_at(model, s) is None), 1))
    if not working:
        return "no size near it works"
    return f"the nearest that work are {' and '.join(map(str, working))}"


def model_name(model: nn.Module) -> str:
    """The name that timm knows a model by, or its class."""
    config = getattr(model, "default_cfg", None)
    architecture = config.get("architecture") if isinstance(config, dict) else None
    return str(architecture or type(model).__name__)


def check_positive(size: int) -> None:
    """Refuse a side without pixels.

    Raises:
        InputError: it is below 1, or no whole number.
    """
    try:
        operator.index(size)
    except TypeError:
        step = ": it is `step.bandwidth`" if hasattr(size, "bandwidth") else ""
        told = repr(size) if isinstance(size, str | float | tuple) else f"a {type(size).__name__}"
        raise InputError(f"the image side is {told}: give a whole number of pixels{step}") from None
    if size < 1:
        raise InputError(f"an image side of {size} makes no sense: choose 1 pixel or more")
