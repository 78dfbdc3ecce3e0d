"""The one place for what an input size asks of a model.

`size_multiple` and `check_sizes` are asked before training, `fit_to_bandwidth` at every change of bandwidth.
Nothing is done half: a change is first tried on a copy without values, then made.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.meta import bare_copy, count_forward, meta_copy, run_forward, unwrap
from upchirp.models.resizing.families import apply_fits, declared_multiple, declared_size, plan_fits
from upchirp.models.resizing.fits import Fit
from upchirp.models.resizing.grids import check_moments
from upchirp.models.structure import known_of

_PROBE_SIZES = (224, 256, 192, 384)
_USUAL_SIZES = (28, 32, 64, 96, 128, 160, *_PROBE_SIZES)
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
    sizes = _PROBE_SIZES if declared is None else (declared, *_PROBE_SIZES)
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
    for size in sorted(set(sizes)):
        _check_positive(size)
        hint = ""
        if size % multiple:
            why = f"its strides, patches or windows divide multiples of {multiple} only"
        else:
            error = failure_at(model, size)
            if error is None:
                continue
            why = _first_line(error)
            if "ResizableInput" not in why:
                hint = "; `grid_changes` can make a module take more (see upchirp.models.ResizableInput)"
        advice = _advice(model, size, multiple)
        raise InputError(f"{model_name(model)} cannot take images of side {size} ({why}): {advice}{hint}")


def fit_to_bandwidth(
    model: nn.Module,
    bandwidth: int,
    optimizer: torch.optim.Optimizer | None = None,
    ema: nn.Module | None = None,
) -> bool:
    """Make `model` take images of side `bandwidth`, in place, with its optimizer and its moving average.

    Positions and relative-position tables are interpolated bilinearly (`align_corners=False`), class tokens
    kept, the optimizer's moments likewise, and windows keep their share of the grid: B/32 wide for Swin
    (released code; Section 6.1) and most others. `docs/models.md` lists the families.
    Parameters stay the same objects, so the optimizer keeps them; gradients of resized ones are cleared.
    Models that need nothing (ResNet, ConvNeXt, CAFormer) and calls at the current size cost next to nothing
    and change nothing. `torch.compile` wrappers are looked through. Under `DistributedDataParallel` fit the module
    inside, and wrap it anew when parameters were resized. A module of one's own joins in by `ResizableInput`.

    Args:
        model: the model, on any device; a timm model or any `nn.Module`.
        bandwidth: side of the images from now on, pixels.
        optimizer: the optimizer that holds the model's parameters.
        ema: a copy of the model, or a wrapper with one as its `module`, such as timm's `ModelEmaV3`.

    Returns:
        Whether parameters were resized.

    Raises:
        InputError: the model cannot take the size or has positions of an unknown form, parameters are
            sharded or to be resized inside `DistributedDataParallel`, or the optimizer keeps state that we cannot
            resize. Nothing has been changed then.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=10)
    >>> positions = vit.pos_embed
    >>> fit_to_bandwidth(vit, 96), fit_to_bandwidth(vit, 96)
    (True, False)
    >>> tuple(positions.shape), vit.pos_embed is positions, tuple(vit(torch.zeros(1, 3, 96, 96)).shape)
    ((1, 37, 24), True, (1, 10))
    """
    return _fit(model, bandwidth, optimizer, ema, tried=False)


def fit_to_tried(
    model: nn.Module, bandwidth: int, optimizer: torch.optim.Optimizer | None = None, ema: nn.Module | None = None
) -> bool:
    """`fit_to_bandwidth` for a size that `check_sizes` has passed: no copy is tried, and a sharded model has none."""
    return _fit(model, bandwidth, optimizer, ema, tried=True)


@contextmanager
def at_size(model: nn.Module, size: int) -> Iterator[nn.Module]:
    """Give the model as it is for images of another side, such as the final one in the middle of a curriculum.

    The model itself stays as it is: what a size changes in it is changed in a copy, which ends with the context.
    `torch.compile` and data-parallel wrappers are left off.

    Args:
        model: on any device, fitted to any side.
        size: pixels.

    Raises:
        InputError: the model cannot take the size.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=10)
    >>> _ = fit_to_bandwidth(vit, 96)
    >>> with at_size(vit, 224) as whole:
    ...     tuple(whole(torch.zeros(1, 3, 224, 224)).shape), vit.pos_embed.shape[1]
    ((1, 10), 37)
    """
    plain = unwrap(model)
    if plan_fits(plain, size):
        plain = copy.deepcopy(plain)
    fit_to_bandwidth(plain, size)
    yield plain


def _fit(
    model: nn.Module,
    bandwidth: int,
    optimizer: torch.optim.Optimizer | None,
    ema: nn.Module | None,
    *,
    tried: bool,
) -> bool:
    _check_positive(bandwidth)
    model, given = unwrap(model), model
    fits = plan_fits(model, bandwidth)
    resizes = any(fit.changes for fit in fits)
    if resizes and _is_replicated(given):
        # Its buckets would keep the old shapes, and fail in the next backward pass.
        raise InputError(
            f"{model_name(model)} inside DistributedDataParallel cannot be fitted to {bandwidth} px, as parameters are "
            "resized: fit the module inside and wrap it anew, `if upchirp.fit_to_bandwidth(module, bandwidth, "
            "optimizer): model = DistributedDataParallel(module)`"
        )
    average = None if ema is None else _averaged_model(ema, model)
    average_fits = [] if average is None else plan_fits(average, bandwidth)
    _check_parameters(model, fits, optimizer)
    if not tried and any(fit.tried_first for fit in fits):
        error = failure_at(model, bandwidth)
        if error is not None:
            raise InputError(
                f"{model_name(model)} cannot be fitted to images of side {bandwidth}: {_first_line(error)}"
            )
    elif not tried and not fits:
        _check_left_alone(model, bandwidth)
    apply_fits(fits, optimizer)
    apply_fits(average_fits)
    return resizes


def _is_replicated(model: nn.Module) -> bool:
    """Whether there is a `DistributedDataParallel` around the model, compiled or not."""
    model = getattr(model, "_orig_mod", model)
    return isinstance(model, nn.parallel.DistributedDataParallel)


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


def _check_positive(size: int) -> None:
    if size < 1:
        raise InputError(f"an image side of {size} makes no sense: choose 1 pixel or more")


_seen: WeakKeyDictionary[nn.Module, set[int]] = WeakKeyDictionary()
"""The sides at which models that need nothing were tried: once each, as a loop asks before every step."""


def _check_left_alone(model: nn.Module, size: int) -> None:
    """Refuse a size that a model runs into although nothing is known here that depends on it, such as own positions.

    A model that does not run on plain images at all, or at no size tried, is left to its owner.
    """
    sizes = _seen.setdefault(model, set())
    if size in sizes:
        return
    error = failure_at(model, size)
    if error is not None and any(failure_at(model, side) is None for side in _PROBE_SIZES if side != size):
        raise InputError(
            f"{model_name(model)} cannot take images of side {size} ({_first_line(error)}), and upchirp does not know "
            f"what in it depends on their size: {_advice(model, size, 1)}; `grid_changes` can make a module take more "
            "(see upchirp.models.ResizableInput)"
        )
    sizes.add(size)


def _check_parameters(model: nn.Module, fits: list[Fit], optimizer: torch.optim.Optimizer | None) -> None:
    changes = [change for fit in fits for change in fit.changes]
    if not changes:
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for change in changes:
        name = names.get(id(change.parameter))
        if name is None:
            raise InputError(
                f"{model_name(model)} asks to resize a tensor that is none of its parameters: let `grid_changes` "
                "return the parameters themselves"
            )
        if hasattr(change.parameter, "device_mesh"):
            raise InputError(f"parameter {name} is sharded: unshard the model before it changes size")
        if optimizer is not None:
            check_moments(change, name, optimizer)


def _averaged_model(ema: nn.Module, model: nn.Module) -> nn.Module:
    """The copy of `model` inside an averaging wrapper."""
    average = unwrap(ema)
    while not isinstance(average, type(model)):
        inner: Any = getattr(average, "module", None)
        if not isinstance(inner, nn.Module):
            raise InputError(
                f"the moving average is a {type(ema).__name__} without a {type(model).__name__} inside: give "
                "a copy of the model, or a wrapper that has one as its `module`"
            )
        average = unwrap(inner)
    return average


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


def _advice(model: nn.Module, size: int, multiple: int) -> str:
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


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
