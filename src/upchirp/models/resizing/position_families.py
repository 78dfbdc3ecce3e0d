"""Families with positions of a form of their own that timm cannot resize: MViTv2, PiT, VOLO, CoaT, Visformer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from timm.models.coat import CoaT
from timm.models.crossvit import CrossVit
from timm.models.mvitv2 import MultiScaleVit
from timm.models.pit import PoolingVisionTransformer
from timm.models.visformer import Visformer
from timm.models.volo import VOLO
from torch import nn

from upchirp.errors import InputError
from upchirp.models.resizing.fits import Fit
from upchirp.models.resizing.grids import GridChange


@dataclass(frozen=True)
class DecomposedPositions:
    """One table for vertical offsets and one for horizontal ones, in every block: MViTv2."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "DecomposedPositions | None":
        tables = isinstance(module, MultiScaleVit) and any(True for _ in _offset_tables(module))
        return cls(module) if tables else None

    def multiple(self) -> int:
        """The total stride, and what keeps every table's share of the image whole."""
        size = self.size()
        stride = self._patch() * 2 ** (len(self.module.stages) - 1)
        return math.lcm(stride, *(size // math.gcd(size, _side(table)) for table in _offset_tables(self.module)))

    def size(self) -> int:
        """The first block's tables are for the whole grid of patches."""
        return _side(next(_offset_tables(self.module))) * self._patch()

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """The tables, and positions where a model has them; all else follows the image by itself."""
        size = self.size()
        if size == bandwidth:
            return None
        changes = []
        for table in _offset_tables(self.module):
            new = 2 * (_side(table) * bandwidth // size) - 1
            changes.append(GridChange(table, (len(table), 1), (new, 1)))
        positions = self.module.pos_embed
        if isinstance(positions, nn.Parameter):
            old, side = size // self._patch(), bandwidth // self._patch()
            prefix = self.module.num_prefix_tokens
            changes.append(GridChange(positions, (old, old), (side, side), dim=1, prefix=prefix))
        return Fit(lambda: None, changes)

    def _patch(self) -> int:
        return int(self.module.patch_embed.proj.stride[0])


def _offset_tables(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        for name in ("rel_pos_h", "rel_pos_w"):
            table = module._parameters.get(name)
            if table is not None:
                yield table


def _side(table: nn.Parameter) -> int:
    """Side of the map whose 2s - 1 offsets the table holds."""
    return (len(table) + 1) // 2


@dataclass(frozen=True)
class MapPositions:
    """Positions laid out as a map, not as tokens: PiT (channels first), VOLO (channels last)."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "MapPositions | None":
        known = isinstance(module, PoolingVisionTransformer | VOLO) and isinstance(module.pos_embed, nn.Parameter)
        return cls(module) if known else None

    def multiple(self) -> int:
        """The stride between cells of the map; PiT's patches overlap."""
        return self._stride()

    def size(self) -> int:
        """The side whose patches make the map."""
        side = int(self.module.pos_embed.shape[self._dim()])
        return (side - 1) * self._stride() + self._patch()

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """The positions, and what the patch embedding says about itself."""
        if self.size() == bandwidth:
            return None
        embed, positions, dim = self.module.patch_embed, self.module.pos_embed, self._dim()
        side = (bandwidth - self._patch()) // self._stride() + 1
        old = (positions.shape[dim], positions.shape[dim + 1])

        def finish() -> None:
            if self._is_pit():
                embed.img_size, embed.grid_size = (bandwidth, bandwidth), (side, side)
                embed.height = embed.width = side
            else:
                embed.num_patches = (side * self.module.pooling_scale) ** 2

        return Fit(finish, [GridChange(positions, old, (side, side), dim=dim, flat=False)])

    def _is_pit(self) -> bool:
        return isinstance(self.module, PoolingVisionTransformer)

    def _dim(self) -> int:
        return 2 if self._is_pit() else 1

    def _patch(self) -> int:
        return int(self.module.patch_embed.patch_size[0]) if self._is_pit() else self._stride()

    def _stride(self) -> int:
        embed = self.module.patch_embed
        if self._is_pit():
            return int(embed.conv.stride[0])
        stem = 1 if embed.conv is None else int(embed.conv[0].stride[0])
        return stem * int(embed.proj.stride[0]) * int(self.module.pooling_scale)


@dataclass(frozen=True)
class StagedEmbeddings:
    """A patch embedding before each stage, every one with a size of its own: CoaT, Visformer (with positions)."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "StagedEmbeddings | None":
        return cls(module) if isinstance(module, CoaT | Visformer) else None

    def multiple(self) -> int:
        """What keeps every stage's share of the image whole."""
        size = self.size()
        return math.lcm(*(size // math.gcd(size, int(embed.grid_size[0])) for embed in self._embeddings()))

    def size(self) -> int:
        """What the first embedding is set to, before the stem that Visformer may have."""
        stem = getattr(self.module, "stem", None)
        stride = 1 if stem is None else int(stem[0].stride[0])
        return int(self._embeddings()[0].img_size[0]) * stride

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """Positions, where there are some, and the size of each embedding."""
        size = self.size()
        if size == bandwidth:
            return None
        embeddings = self._embeddings()
        changes = []
        for number, embed in enumerate(embeddings, start=1):
            positions = self.module._parameters.get(f"pos_embed{number}")
            if positions is not None:
                old, side = int(embed.grid_size[0]), int(embed.grid_size[0]) * bandwidth // size
                changes.append(GridChange(positions, (old, old), (side, side), dim=2, flat=False))

        def finish() -> None:
            for embed in embeddings:
                side = int(embed.img_size[0]) * bandwidth // size
                embed.set_input_size(img_size=(side, side))

        return Fit(finish, changes)

    def _embeddings(self) -> list[Any]:
        found = (getattr(self.module, f"patch_embed{number}", None) for number in range(1, 5))
        return [embed for embed in found if embed is not None]


@dataclass(frozen=True)
class Rescaling:
    """A model that scales every image to the sizes of its branches: CrossViT. Smaller images would save nothing."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "Rescaling | None":
        return cls(module) if isinstance(module, CrossVit) else None

    def multiple(self) -> int:
        """Its own size is the only one."""
        return 1

    def size(self) -> int:
        """As the model says."""
        return int(self.module.img_size[0])

    def arguments(self, size: int) -> dict[str, Any]:
        return {"img_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """Nothing at its own size; there is no other."""
        if bandwidth == self.size():
            return None
        raise InputError(
            f"{type(self.module).__name__} scales every image to side {self.size()} itself, so one of side {bandwidth} "
            "saves nothing: choose another model"
        )
