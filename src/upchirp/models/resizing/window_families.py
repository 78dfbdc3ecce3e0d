"""Families with windows or tables of absolute offsets that timm cannot set to a size, or not without replacing them.

They are TinyViT, DaViT, Twins-SVT, GCViT, EfficientViT (MSRA) and LeViT. What timm works out in their constructors is
worked out here again for the new size. Windows keep their share of the grid; at their own size they would be padded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from timm.models.davit import DaVit
from timm.models.efficientvit_msra import EfficientVitMsra
from timm.models.gcvit import GlobalContextVit
from timm.models.levit import Levit as TimmLevit
from timm.models.tiny_vit import TinyVit
from timm.models.twins import Twins
from torch import nn

from upchirp.models.resizing.fits import Fit
from upchirp.models.resizing.grids import GridChange
from upchirp.models.resizing.tables import StandIns, tables_in

WINDOW_STRIDE = 32
"""Published models have windows of side B/32 in their first windowed stage: 7 at 224, 12 at 384."""


@dataclass(frozen=True)
class StagedWindows:
    """Windows without shift in stages: TinyViT, DaViT, Twins-SVT, GCViT."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "StagedWindows | None":
        windowed = isinstance(module, TinyVit | DaVit | Twins | GlobalContextVit)
        return cls(module) if windowed and any(True for _ in _windows_in(module)) else None

    def multiple(self) -> int:
        """Windows of whole cells."""
        return WINDOW_STRIDE

    def size(self) -> int:
        """The size at which the first windows would have their published share."""
        _, _, window = next(_windows_in(self.module))
        return window * WINDOW_STRIDE

    def arguments(self, size: int) -> dict[str, Any]:
        """The windows by each model's own word; GCViT works them out from the size."""
        window = max(1, size // WINDOW_STRIDE)
        if isinstance(self.module, GlobalContextVit):
            return {"img_size": size}
        if isinstance(self.module, DaVit):
            return {"window_size": window}
        if isinstance(self.module, Twins):
            # Told windows of one cell, timm builds another attention.
            return {"wss": (window,) * len(self.module.depths)} if window > 1 else {}
        # The first stage is convolutional; its entry is not used.
        later = [stage.blocks[0].window_size * size // self.size() for stage in self.module.stages[1:]]
        return {"window_sizes": (window, *later)}

    def plan(self, bandwidth: int) -> Fit | None:
        """Windows of the same share, and the tables over them."""
        size = self.size()
        if size == bandwidth:
            return None
        windows = [(holder, name, window * bandwidth // size) for holder, name, window in _windows_in(self.module)]
        tables = [(table, table.window * bandwidth // size) for table in tables_in(self.module)]
        biases = [(m, m.resolution[0] * bandwidth // size) for m in self.module.modules() if _has_biases(m)]
        stand_ins = StandIns([table for table, _ in tables])
        changes = [table.change(window) for table, window in tables]
        changes += [_bias_change(attention, side) for attention, side in biases]

        def finish() -> None:
            for holder, name, window in windows:
                setattr(holder, name, (window, window) if isinstance(getattr(holder, name), tuple) else window)
            with stand_ins.in_place():
                for table, window in tables:
                    table.owner.set_window_size((window, window))
            for attention, side in biases:
                _set_resolution(attention, side)

        return Fit(finish, changes)


def _windows_in(model: nn.Module) -> Iterator[tuple[Any, str, int]]:
    """Every attribute that holds the side of a window; tables, which timm keeps in line, left out."""
    for module in model.modules():
        if not hasattr(type(module), "set_window_size"):
            for name in ("window_size", "ws"):
                window = vars(module).get(name)
                if window is not None:
                    yield module, name, int(window[0] if isinstance(window, tuple) else window)


@dataclass(frozen=True)
class MsraWindows:
    """Cascaded group attention in windows, with a table of absolute offsets: EfficientViT (MSRA)."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "MsraWindows | None":
        return cls(module) if isinstance(module, EfficientVitMsra) else None

    def multiple(self) -> int:
        """Windows of whole cells."""
        return WINDOW_STRIDE

    def size(self) -> int:
        """As the model says."""
        return int(self.module.img_size)

    def arguments(self, size: int) -> dict[str, Any]:
        """The image size, and windows of B/32 in every stage."""
        window = max(1, size // WINDOW_STRIDE)
        return {"img_size": size, "window_size": (window,) * len(self.module.stages)}

    def plan(self, bandwidth: int) -> Fit | None:
        """Windows of B/32 or, where it is smaller, the stage's whole map."""
        window = bandwidth // WINDOW_STRIDE
        windows = []
        side = bandwidth // self.module.patch_embed.patch_size
        for stage in self.module.stages:
            side = -(-side // stage.stride)
            windows += [(block.mixer.m, min(window, side)) for block in stage.blocks]
        if self.size() == bandwidth and all(holder.attn.resolution == new for holder, new in windows):
            return None

        def finish() -> None:
            for holder, new in windows:
                holder.window_resolution = window
                # timm leaves a table alone whose window has the size already.
                _set_resolution(holder.attn, new)
            self.module.set_input_size((bandwidth, bandwidth))

        return Fit(finish, [_bias_change(holder.attn, new) for holder, new in windows])


@dataclass(frozen=True)
class Levit:
    """Attention over whole maps with a table of absolute offsets."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "Levit | None":
        return cls(module) if isinstance(module, TimmLevit) else None

    def multiple(self) -> int:
        """The stride of the stem; maps are halved with care after it."""
        return int(self.module.stem.stride)

    def size(self) -> int:
        """Side of the first map times the stride of the stem."""
        first, _ = next(self._attentions(self.multiple()))
        return int(first.resolution[0]) * self.multiple()

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """The tables, and what they are looked up by."""
        if self.size() == bandwidth:
            return None
        attentions = list(self._attentions(bandwidth))

        def finish() -> None:
            for attention, side in attentions:
                _set_resolution(attention, side)
                if hasattr(attention, "stride") and hasattr(attention.q.down, "resolution"):
                    attention.q.down.resolution = (side, side)

        return Fit(finish, [_bias_change(attention, side) for attention, side in attentions])

    def _attentions(self, size: int) -> Iterator[tuple[Any, int]]:
        """Every attention with the side of the map that goes into it."""
        side = size // self.multiple()
        for stage in self.module.stages:
            reduction = getattr(stage.downsample, "attn_downsample", None)
            if reduction is not None:
                yield reduction, side
                side = -(-side // reduction.stride)
            for block in stage.blocks:
                yield block.attn, side


def _has_biases(module: nn.Module) -> bool:
    return isinstance(getattr(module, "attention_biases", None), nn.Parameter)


def _side(attention: Any) -> int:
    """Side of the map that the table is for: one entry for each absolute offset."""
    return math.isqrt(attention.attention_biases.shape[1])


def _bias_change(attention: Any, side: int) -> GridChange:
    old = _side(attention)
    return GridChange(attention.attention_biases, (old, old), (side, side), dim=1)


def _set_resolution(attention: Any, side: int) -> None:
    attention.resolution = (side, side) if isinstance(attention.resolution, tuple) else side
    queries = -(-side // getattr(attention, "stride", 1))
    indices = attention.attention_bias_idxs.new_empty(queries**2, side**2)
    attention.register_buffer("attention_bias_idxs", indices, persistent=False)
    attention.attention_bias_cache = {}
    attention._init_buffers()
