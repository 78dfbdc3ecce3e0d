"""What changes, per family, when the input size changes.

Families are told apart by what a module offers, not by its class, so models derived from timm's count too:

- `ResizableInput`: the module says itself;
- a patch embedding that knows its size, with or without a position parameter (ViT, DeiT, EVA, CaiT):
  positions;
- the same with windowed stages (Swin): relative-position tables, windows, masks; a window keeps its share of
  the grid, B/32 for the published models;
- `set_input_size` and nothing we know: timm is asked, and the caller checks that no parameter was replaced.

timm's own resizing of parameters is never used: it replaces the parameter, which the optimizer then does not
know, and interpolates with negative weights. Here a parameter has its new shape before timm is asked to
update the rest.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.grids import GridChange, ResizableInput, apply_change

WINDOW_STRIDE = 32
"""Published Swin models have windows of side B/32 patches; see `swin_window` in the released code."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What one module needs: parameters to resize, then a call that updates everything else."""

    finish: Callable[[], None]
    changes: list[GridChange] = field(default_factory=list)
    trial: bool = True
    """Whether to try it on a copy first; not if the module's own code says that no parameter changes."""


def plan_fits(model: nn.Module, bandwidth: int) -> list[Fit]:
    """What `model` needs to take images of side `bandwidth`; empty if nothing. Changes nothing.

    Raises:
        InputError: a module's patches or windows don't divide `bandwidth`, or its positions are of an unknown
        form.
    """
    fits = (_plan_module(module, bandwidth) for module in _sized_modules(model))
    return [fit for fit in fits if fit is not None]


def apply_fits(fits: list[Fit], optimizer: torch.optim.Optimizer | None = None) -> None:
    """Carry out what `plan_fits` found, with the moments that `optimizer` holds."""
    for fit in fits:
        for change in fit.changes:
            apply_change(change, optimizer)
        fit.finish()


def declared_multiple(model: nn.Module) -> int:
    """Smallest side whose multiples all declared patches and windows divide; 1 if there are none."""
    return math.lcm(*(_multiple(module) for module in _sized_modules(model)))


def declared_size(model: nn.Module) -> int | None:
    """The input side that a module of `model` is set to now, if one says so."""
    for module in (*_sized_modules(model), model):
        size = _current_size(module)
        if size is not None:
            return size[0]
    config = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and config.get("input_size"):
        return int(config["input_size"][-1])
    return None


def window_sizes(model: nn.Module, size: int) -> list[int] | None:
    """Side of the windows of each stage at an input of side `size`; None without windowed stages."""
    embed: Any = _embedding(model)
    ratios = _window_ratios(model)
    return None if ratios is None else [max(1, size // _patch(embed) // ratio) for ratio in ratios]


def _sized_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that depend on the input size."""
    sized = _resizes_itself(module) or _has_set_input_size(module) or _embedding(module) is not None
    if sized:
        yield module
        return
    for child in module.children():
        yield from _sized_modules(child)


def _resizes_itself(module: nn.Module) -> TypeGuard[ResizableInput]:
    # Asked of every module in every call; `isinstance` with a protocol takes milliseconds for a whole model.
    return hasattr(type(module), "grid_changes") and hasattr(type(module), "set_bandwidth")


def _has_set_input_size(module: object) -> bool:
    return callable(getattr(type(module), "set_input_size", None))


def _embedding(module: nn.Module) -> Any:
    """The module's patch embedding that can be set to a size, or the module itself if it is one."""
    for candidate in (module._modules.get("patch_embed"), module):
        if _has_set_input_size(candidate) and hasattr(candidate, "grid_size"):
            return candidate
    return None


def _patch(embed: Any) -> int:
    """Pixels per cell of the grid."""
    return int(embed.feat_ratio()) if hasattr(embed, "feat_ratio") else int(embed.patch_size[0])


def _current_size(module: nn.Module) -> tuple[int, int] | None:
    embed = module if _resizes_itself(module) else _embedding(module)
    size = getattr(embed, "img_size", None)
    if size is None:
        # timm writes the size a model was set to down here when there is no patch embedding to ask.
        traits = getattr(module, "_traits", None)
        size = traits.get("img_size") if isinstance(traits, dict) else None
    if isinstance(size, int):
        return (size, size)
    return None if size is None else (int(size[0]), int(size[1]))


def _takes_any_size(module: Any, embed: Any) -> bool:
    """Whether positions are interpolated in each forward, or there is no fixed grid to begin with."""
    if embed is None:
        return False
    return embed.grid_size is None or (getattr(module, "dynamic_img_size", False) and not _stages(module))


def _stages(module: Any) -> list[Any]:
    layers: Any = getattr(module, "layers", None)
    if not isinstance(layers, nn.Sequential | nn.ModuleList):
        return []
    stages: list[Any] = [layer for layer in layers if getattr(layer, "blocks", None) is not None]
    windowed = all(hasattr(block, "window_size") for stage in stages for block in stage.blocks)
    return stages if windowed else []


def _window_ratios(module: Any) -> list[int] | None:
    """How many windows fit along the patch grid, per stage, counted before any stage down-samples."""
    embed, stages = _embedding(module), _stages(module)
    if embed is None or not stages:
        return None
    splits = [divmod(int(embed.grid_size[0]), int(stage.blocks[0].window_size[0])) for stage in stages]
    if any(rest for _, rest in splits):
        # Padded windows: they cost more and follow no size; the published rule replaces them.
        return [max(1, WINDOW_STRIDE // _patch(embed))] * len(stages)
    return [ratio for ratio, _ in splits]


def _multiple(module: nn.Module) -> int:
    if _resizes_itself(module):
        return int(getattr(module, "size_multiple", 1))
    embed = _embedding(module)
    if embed is None:
        return 1
    ratios = _window_ratios(module)
    if ratios is None:
        return _patch(embed)
    return _patch(embed) * math.lcm(2 ** (len(ratios) - 1), *ratios)


def _plan_module(module: Any, bandwidth: int) -> Fit | None:
    if _resizes_itself(module):
        own = list(module.grid_changes(bandwidth))
        return Fit(lambda: module.set_bandwidth(bandwidth), own, trial=bool(own))
    embed = _embedding(module)
    if _takes_any_size(module, embed):
        return None
    multiple = _multiple(module)
    if bandwidth % multiple:
        raise InputError(
            f"{type(module).__name__} cannot take images of side {bandwidth}: "
            f"its patches or windows divide multiples of {multiple} only"
        )
    size = (bandwidth, bandwidth)
    windows = window_sizes(module, bandwidth)
    if windows is not None:
        return _plan_windows(module, size, windows)
    if _current_size(module) == size:
        return None
    changes = [] if embed is None else _position_changes(module, embed, bandwidth)

    def finish() -> None:
        if embed is not None:
            embed.set_input_size(img_size=size)
        if embed is not module and _has_set_input_size(module):
            module.set_input_size(img_size=size)

    return Fit(finish, changes)


def _position_changes(module: Any, embed: Any, bandwidth: int) -> list[GridChange]:
    positions = getattr(module, "pos_embed", None)
    if not isinstance(positions, nn.Parameter):
        return []
    old_grid = (int(embed.grid_size[0]), int(embed.grid_size[1]))
    side = bandwidth // _patch(embed)
    prefix = positions.shape[1] - old_grid[0] * old_grid[1] if positions.ndim == 3 else -1
    if prefix not in (0, getattr(module, "num_prefix_tokens", 0)):
        raise InputError(
            f"{type(module).__name__} has positions of shape {tuple(positions.shape)} for a grid of "
            f"{old_grid[0]} x {old_grid[1]}, a form upchirp cannot resize: define `grid_changes` "
            "(see upchirp.models.ResizableInput)"
        )
    return [GridChange(positions, old_grid, (side, side), dim=1, prefix=prefix)]


def _plan_windows(module: Any, size: tuple[int, int], windows: list[int]) -> Fit | None:
    stages = _stages(module)
    blocks = [(block, window) for stage, window in zip(stages, windows, strict=True) for block in stage.blocks]
    if _current_size(module) == size and all(tuple(b.window_size) == (w, w) for b, w in blocks):
        return None
    changes = []
    tables = []
    for block, window in blocks:
        attention = block.attn
        table = getattr(attention, "relative_position_bias_table", None)
        if not isinstance(table, nn.Parameter):
            continue
        rows, columns = attention.window_size
        new = 2 * window - 1
        changes.append(GridChange(table, (2 * rows - 1, 2 * columns - 1), (new, new)))
        tables.append((attention, window))
    grid = size[0] // _patch(_embedding(module))
    ratios = [grid // window for window in windows]

    def finish() -> None:
        for attention, window in tables:
            # timm leaves a table alone whose window has the size already, so the window is set here.
            attention.window_size = (window, window)
            attention.window_area = window * window
            attention.relative_position_index = _relative_positions(window, attention)
        for stage, window in zip(stages, windows, strict=True):
            for block in stage.blocks[1::2]:
                # A model built at a window of 1 has no shift to remember; it needs one when windows grow.
                block.target_shift_size = (window // 2, window // 2)
        module.set_input_size(img_size=size, window_ratio=ratios[0] if len(set(ratios)) == 1 else tuple(ratios))

    return Fit(finish, changes)


def _relative_positions(window: int, attention: Any) -> torch.Tensor:
    """Row of the table for each pair of cells: (2w - 1) (y_i - y_j + w - 1) + x_i - x_j + w - 1."""
    device = attention.relative_position_index.device
    cells = torch.arange(window * window, device=device)
    y, x = cells // window, cells % window
    vertical = y[:, None] - y[None, :] + window - 1
    horizontal = x[:, None] - x[None, :] + window - 1
    return vertical * (2 * window - 1) + horizontal
