"""Families with a patch grid or stages that timm can set to a size: ViT, EVA, BEiT; Swin, V1 and V2; MaxViT, CoAtNet.

Windows keep their share of the grid, B/32 for the published models.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.resizing.fits import Fit, has_set_input_size, noted_size, stages_of
from upchirp.models.resizing.grids import GridChange
from upchirp.models.resizing.tables import StandIns, tables_in

WINDOW_STRIDE = 32
"""Published Swin models have windows of side B/32 patches; see `swin_window` in the released code."""


def embedding(module: nn.Module) -> Any:
    """The module's patch embedding that can be set to a size, or the module itself if it is one."""
    for candidate in (module._modules.get("patch_embed"), module):
        if has_set_input_size(candidate) and hasattr(candidate, "grid_size"):
            return candidate
    return None


def _patch(embed: Any) -> int:
    """Pixels per cell of the grid."""
    return int(embed.feat_ratio()) if hasattr(embed, "feat_ratio") else int(embed.patch_size[0])


def _embedded_size(embed: Any) -> int | None:
    size = getattr(embed, "img_size", None)
    return None if size is None else int(size[0])


@dataclass(frozen=True)
class PatchGrid:
    """One grid of patches, with positions, or relative positions over all of it, or both."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "PatchGrid | None":
        return cls(module) if embedding(module) is not None else None

    def multiple(self) -> int:
        """The side of a patch."""
        return _patch(embedding(self.module))

    def size(self) -> int | None:
        """As the patch embedding says."""
        return _embedded_size(embedding(self.module))

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """Positions on the new grid; nothing where they are interpolated in each forward."""
        module, embed = self.module, embedding(self.module)
        if self._takes_any_size() or self.size() == bandwidth:
            return None
        tables = tables_in(module)
        side = bandwidth // _patch(embed)
        _check_windows(module, side)
        stand_ins = StandIns(tables)
        changes = [*_position_changes(module, embed, side), *(table.change(side) for table in tables)]

        def finish() -> None:
            embed.set_input_size(img_size=(bandwidth, bandwidth))
            if embed is not module and has_set_input_size(module):
                with stand_ins.in_place():
                    module.set_input_size(img_size=(bandwidth, bandwidth))

        return Fit(finish, changes)

    def _takes_any_size(self) -> bool:
        """Whether there is no grid to begin with, or positions are interpolated in each forward."""
        if embedding(self.module).grid_size is None or getattr(self.module, "dynamic_img_size", False):
            return True
        # Qwen3's positions lie on a grid of their own.
        return hasattr(self.module, "pos_embed_grid_size")


def _check_windows(module: Any, side: int) -> None:
    """Refuse a grid that the windows of plain blocks (SAM) don't divide: timm would pad it without a mask."""
    for block in getattr(module, "blocks", ()):
        window = getattr(block, "window_size", 0)
        if isinstance(window, int) and window and side % window:
            raise InputError(
                f"{type(module).__name__} would pad its grid of {side} x {side} to windows of {window} x {window}: "
                "define `grid_changes` (see upchirp.models.ResizableInput)"
            )


def _position_changes(module: Any, embed: Any, side: int) -> list[GridChange]:
    positions = getattr(module, "pos_embed", None)
    if not isinstance(positions, nn.Parameter):
        return []
    old_grid = (int(embed.grid_size[0]), int(embed.grid_size[1]))
    prefix = positions.shape[1] - old_grid[0] * old_grid[1] if positions.ndim == 3 else -1
    if prefix not in (0, getattr(module, "num_prefix_tokens", 0)):
        raise InputError(
            f"{type(module).__name__} has positions of shape {tuple(positions.shape)} for a grid of "
            f"{old_grid[0]} x {old_grid[1]}, a form upchirp cannot resize: define `grid_changes` "
            "(see upchirp.models.ResizableInput)"
        )
    return [GridChange(positions, old_grid, (side, side), dim=1, prefix=prefix)]


@dataclass(frozen=True)
class Windows:
    """Stages of shifted windows over a grid of patches: Swin, Swin V2, Swin V2 CR."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "Windows | None":
        stages = stages_of(module)
        windowed = all(hasattr(block, "window_size") for stage in stages for block in stage.blocks)
        return cls(module) if stages and windowed and embedding(module) is not None else None

    def multiple(self) -> int:
        """Patches times windows, each stage's counted on the patch grid, and times the halvings between stages."""
        ratios = self._ratios()
        return _patch(embedding(self.module)) * math.lcm(2 ** (len(ratios) - 1), *ratios)

    def size(self) -> int | None:
        """As the patch embedding says."""
        return _embedded_size(embedding(self.module))

    def arguments(self, size: int) -> dict[str, Any]:
        """The image size and the windows, one number where all stages agree."""
        windows = self._windows(size)
        return {"img_size": size, "window_size": windows[0] if len(set(windows)) == 1 else tuple(windows)}

    def plan(self, bandwidth: int) -> Fit | None:
        """Tables, where there are some, windows and masks."""
        module, stages, windows = self.module, stages_of(self.module), self._windows(bandwidth)
        blocks = [(block, window) for stage, window in zip(stages, windows, strict=True) for block in stage.blocks]
        if self.size() == bandwidth and all(tuple(b.window_size) == (w, w) for b, w in blocks):
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
        grid = bandwidth // _patch(embedding(module))
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
            ratio = ratios[0] if len(set(ratios)) == 1 else tuple(ratios)
            module.set_input_size(img_size=(bandwidth, bandwidth), window_ratio=ratio)

        return Fit(finish, changes)

    def _ratios(self) -> list[int]:
        """How many windows fit along the patch grid, per stage, counted before any stage down-samples."""
        embed, stages = embedding(self.module), stages_of(self.module)
        splits = [divmod(int(embed.grid_size[0]), int(stage.blocks[0].window_size[0])) for stage in stages]
        if any(rest for _, rest in splits):
            # Padded windows: they cost more and follow no size; the published rule replaces them.
            return [max(1, WINDOW_STRIDE // _patch(embed))] * len(stages)
        return [ratio for ratio, _ in splits]

    def _windows(self, size: int) -> list[int]:
        patch = _patch(embedding(self.module))
        return [max(1, size // patch // ratio) for ratio in self._ratios()]


def _relative_positions(window: int, attention: Any) -> torch.Tensor:
    """Row of the table for each pair of cells: (2w - 1) (y_i - y_j + w - 1) + x_i - x_j + w - 1."""
    device = attention.relative_position_index.device
    cells = torch.arange(window * window, device=device)
    y, x = cells // window, cells % window
    vertical = y[:, None] - y[None, :] + window - 1
    horizontal = x[:, None] - x[None, :] + window - 1
    return vertical * (2 * window - 1) + horizontal


@dataclass(frozen=True)
class Partitions:
    """Convolutions, then attention in windows and grids, or over whole maps: MaxViT, CoAtNet."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "Partitions | None":
        return cls(module) if has_set_input_size(module) and hasattr(module, "partition_ratio") else None

    def multiple(self) -> int:
        """The total stride, and what keeps every window's share of the image whole."""
        stride = int(self.module.stem.stride) * 2 ** len(self.module.stages)
        size = self.size()
        shares = (size // math.gcd(size, side) for side in self._sides())
        return math.lcm(stride, *shares)

    def size(self) -> int:
        """As the model says."""
        return int(self.module.img_size[0])

    def arguments(self, size: int) -> dict[str, Any]:
        """The image size: partitions follow it."""
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """Tables, partitions and what they are looked up by."""
        module, size = self.module, self.size()
        if size == bandwidth:
            return None
        tables = tables_in(module)
        stand_ins = StandIns(tables)
        windows = {
            name: (side * bandwidth // size,) * 2
            for name, side in (("window_size", self._partition(True)), ("grid_size", self._partition(False)))
            if side is not None
        }

        def finish() -> None:
            with stand_ins.in_place():
                module.set_input_size(img_size=(bandwidth, bandwidth), **windows)

        return Fit(finish, [table.change(table.window * bandwidth // size) for table in tables])

    def _partition(self, windows: bool) -> int | None:
        """Side of the windows, or of the grids, that the image is partitioned into; both where they are one."""
        for module in self.module.modules():
            if hasattr(module, "partition_size") and getattr(module, "partition_block", windows) == windows:
                return int(module.partition_size[0])
        return None

    def _sides(self) -> list[int]:
        """Sides of all windows over which relative positions are known."""
        partitions = [side for side in (self._partition(True), self._partition(False)) if side is not None]
        positions = (m.rel_pos.window_size[0] for m in self.module.modules() if getattr(m, "rel_pos", None) is not None)
        return [*partitions, *(int(side) for side in positions)]


@dataclass(frozen=True)
class SetByTimm:
    """A module that timm can set to a size, of a form unknown here; refused if that replaces a parameter."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "SetByTimm | None":
        return cls(module) if has_set_input_size(module) else None

    def multiple(self) -> int:
        """Nothing is known."""
        return 1

    def size(self) -> int | None:
        """As timm wrote down."""
        return noted_size(self.module)

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """No parameter that we know of."""
        if self.size() == bandwidth:
            return None
        return Fit(lambda: self.module.set_input_size(img_size=(bandwidth, bandwidth)))
