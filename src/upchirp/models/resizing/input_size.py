"""Input size: the one place that changes what it asks of a model, with its optimizer and its moving average.

Nothing is done half: a change is first tried on a copy without values, then made. `sizes.py` says what a model takes.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from upchirp.errors import InputError, first_line
from upchirp.models.meta import unwrap
from upchirp.models.resizing.families import apply_fits, plan_fits
from upchirp.models.resizing.fits import Fit
from upchirp.models.resizing.grids import check_moments
from upchirp.models.resizing.sizes import (
    PROBE_SIZES,
    check_positive,
    failure_at,
    model_name,
    nearest_sizes,
)


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
    Parameters stay the same objects, so the optimizer keeps them; gradients follow as moments do, so that those of
    several bandwidths add up.
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


@contextmanager
def lent_at_size(models: Sequence[nn.Module], size: int, back: int, *, tried: bool = False) -> Iterator[bool]:
    """Fit the very models to another side for a while, for a trainer of another library that knows no copy of them.

    Afterwards every parameter has its values of before again, bit by bit: what resizing made is thrown away, as there
    and back would blur it. What the context changes in parameters of the same shape stays. Gives whether parameters
    were resized, so that `DistributedDataParallel` is wrapped anew afterwards: it has lost sight of them.

    Args:
        models: fitted to `back`.
        size: pixels, in the context.
        back: pixels, before and after.
        tried: `check_sizes` has passed both.

    Raises:
        InputError: a model cannot take the size.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=10)
    >>> _, before = fit_to_bandwidth(vit, 96), vit.pos_embed.detach().clone()
    >>> with lent_at_size([vit], 224, back=96) as resized:
    ...     resized, vit.pos_embed.shape[1], bool(vit.pos_embed.data.zero_().any())
    (True, 197, False)
    >>> torch.equal(vit.pos_embed, before)
    True
    """
    kept = [(parameter, parameter.data, parameter.grad) for model in models for parameter in model.parameters()]
    try:
        yield max(_fit(model, size, None, None, tried=tried) for model in models)
    finally:
        for model in models:
            _fit(model, back, None, None, tried=True)
        for parameter, values, gradient in kept:
            if parameter.data_ptr() != values.data_ptr():
                parameter.data, parameter.grad = values, gradient


def _fit(
    model: nn.Module,
    bandwidth: int,
    optimizer: torch.optim.Optimizer | None,
    ema: nn.Module | None,
    *,
    tried: bool,
) -> bool:
    check_positive(bandwidth)
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
            raise InputError(f"{model_name(model)} cannot be fitted to images of side {bandwidth}: {first_line(error)}")
    elif not tried and not fits:
        _check_left_alone(model, bandwidth)
    apply_fits(fits, optimizer)
    apply_fits(average_fits)
    return resizes


def _is_replicated(model: nn.Module) -> bool:
    """Whether there is a `DistributedDataParallel` around the model, compiled or not."""
    model = getattr(model, "_orig_mod", model)
    return isinstance(model, nn.parallel.DistributedDataParallel)


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
    if error is not None and any(failure_at(model, side) is None for side in PROBE_SIZES if side != size):
        nearest = nearest_sizes(model, size, 1)
        raise InputError(
            f"{model_name(model)} cannot take images of side {size} ({first_line(error)}), and upchirp does not know "
            f"what in it depends on their size: {nearest}; `grid_changes` can make a module take more (see "
            "upchirp.models.ResizableInput)"
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
