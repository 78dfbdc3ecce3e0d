"""The families of modules that depend on the input size, and what they make of a whole model.

A module of one's own says so itself (`ResizableInput`). timm's families are told apart by what a module offers, not
by its class, so models derived from them count too; only where timm cannot set a model to a size, its class decides.

timm's own resizing of parameters is never used: it replaces the parameter, which the optimizer then does not
know, and interpolates with negative weights. Here a parameter has its new shape before timm is asked to
update the rest.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard
from weakref import WeakSet

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.resizing.fits import Family, Fit
from upchirp.models.resizing.grid_families import Partitions, PatchGrid, SetByTimm, Windows
from upchirp.models.resizing.grids import ResizableInput, apply_change
from upchirp.models.resizing.position_families import DecomposedPositions, MapPositions, Rescaling, StagedEmbeddings
from upchirp.models.resizing.torchvision_families import TorchvisionSwin, TorchvisionVit
from upchirp.models.resizing.window_families import Levit, MsraWindows, StagedWindows

_FAMILIES: tuple[Callable[[nn.Module], Family | None], ...] = (
    Levit.of,
    MsraWindows.of,
    StagedWindows.of,
    DecomposedPositions.of,
    MapPositions.of,
    StagedEmbeddings.of,
    Rescaling.of,
    TorchvisionVit.of,
    TorchvisionSwin.of,
    Windows.of,
    Partitions.of,
    PatchGrid.of,
    SetByTimm.of,
)
"""The first that knows a module speaks for it."""


def plan_fits(model: nn.Module, bandwidth: int) -> list[Fit]:
    """What `model` needs to take images of side `bandwidth`; empty if nothing. Changes nothing.

    Raises:
        InputError: a module's patches or windows don't divide `bandwidth`, or its positions are of an unknown
        form.
    """
    fits = (_plan(part, bandwidth) for part in _sized_parts(model))
    return [fit for fit in fits if fit is not None]


def apply_fits(fits: list[Fit], optimizer: torch.optim.Optimizer | None = None) -> None:
    """Carry out what `plan_fits` found, with the moments that `optimizer` holds."""
    for fit in fits:
        for change in fit.changes:
            apply_change(change, optimizer)
        fit.finish()


def declared_multiple(model: nn.Module) -> int:
    """Smallest side whose multiples all declared patches and windows divide; 1 if there are none."""
    return math.lcm(*(_multiple(part) for part in _sized_parts(model)))


def declared_size(model: nn.Module) -> int | None:
    """The input side that a module of `model` is set to now, if one says so."""
    for part in _sized_parts(model):
        size = _size(part)
        if size is not None:
            return size
    config = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and config.get("input_size"):
        return int(config["input_size"][-1])
    return None


def build_arguments(model: nn.Module, size: int) -> dict[str, Any]:
    """What timm's constructor is given so that a model like `model` is made for images of side `size`."""
    family = None if _resizes_itself(model) else _family(model)
    return {"img_size": size} if family is None else family.arguments(size)


def _sized_parts(module: nn.Module) -> Iterator[ResizableInput | Family]:
    """The outermost modules that depend on the input size."""
    part = module if _resizes_itself(module) else _family(module)
    if part is not None:
        yield part
        return
    for child in module.children():
        yield from _sized_parts(child)


_of_no_family: WeakSet[nn.Module] = WeakSet()
"""Modules that were shown to all families: a loop asks before every step, and a whole model takes a millisecond."""


def _family(module: nn.Module) -> Family | None:
    if module in _of_no_family:
        return None
    family = next((family for of in _FAMILIES if (family := of(module)) is not None), None)
    if family is None:
        _of_no_family.add(module)
    return family


def _resizes_itself(module: object) -> TypeGuard[ResizableInput]:
    # Asked of every module in every call; `isinstance` with a protocol takes milliseconds for a whole model.
    return hasattr(type(module), "grid_changes") and hasattr(type(module), "set_bandwidth")


def _multiple(part: Any) -> int:
    return int(getattr(part, "size_multiple", 1)) if _resizes_itself(part) else part.multiple()


def _size(part: Any) -> int | None:
    if not _resizes_itself(part):
        size: int | None = part.size()
        return size
    own = getattr(part, "img_size", None)
    return int(own[0]) if isinstance(own, tuple | list) else own


def _plan(part: Any, bandwidth: int) -> Fit | None:
    if _resizes_itself(part):
        own = list(part.grid_changes(bandwidth))
        return Fit(lambda: part.set_bandwidth(bandwidth), own, tried_first=bool(own))
    multiple = part.multiple()
    if bandwidth % multiple:
        raise InputError(
            f"{type(part.module).__name__} cannot take images of side {bandwidth}: "
            f"its patches or windows divide multiples of {multiple} only"
        )
    fit: Fit | None = part.plan(bandwidth)
    return fit
