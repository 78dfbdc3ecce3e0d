"""The transformers of torchvision: ViT refuses other sides than its own, Swin pads maps that windows don't divide."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import ShiftedWindowAttention

from upchirp.errors import InputError
from upchirp.models.resizing.fits import Fit
from upchirp.models.resizing.grids import GridChange


@dataclass(frozen=True)
class TorchvisionVit:
    """One position for each patch, after the class token's."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "TorchvisionVit | None":
        return cls(module) if isinstance(module, VisionTransformer) else None

    def multiple(self) -> int:
        """The side of a patch."""
        return int(self.module.patch_size)

    def size(self) -> int:
        """As the model says."""
        return int(self.module.image_size)

    def arguments(self, size: int) -> dict[str, Any]:
        """By torchvision's word."""
        return {"image_size": size}

    def plan(self, bandwidth: int) -> Fit | None:
        """The positions, and what the model says about itself."""
        if self.size() == bandwidth:
            return None
        module, old, side = self.module, self.size() // self.multiple(), bandwidth // self.multiple()

        def finish() -> None:
            module.image_size, module.seq_length = bandwidth, 1 + side * side

        return Fit(finish, [GridChange(module.encoder.pos_embedding, (old, old), (side, side), dim=1, prefix=1)])


@dataclass(frozen=True)
class TorchvisionSwin:
    """Swin and Swin V2 as torchvision has them: every second block is shifted, and nothing knows the image's side."""

    module: Any

    @classmethod
    def of(cls, module: nn.Module) -> "TorchvisionSwin | None":
        return cls(module) if isinstance(module, SwinTransformer) else None

    def multiple(self) -> int:
        """Patches, times the halvings between stages: windows are as wide as the last stage's map."""
        patches, *later = self.module.features
        halvings = sum(not isinstance(part, nn.Sequential) for part in later)
        return int(patches[0].stride[0]) << halvings

    def size(self) -> int:
        """The side at which the windows have their published share."""
        return int(next(self._attentions())[0].window_size[0]) * self.multiple()

    def arguments(self, size: int) -> dict[str, Any]:
        """By torchvision's word."""
        return {"window_size": [size // self.multiple()] * 2}

    def plan(self, bandwidth: int) -> Fit | None:
        """Windows, and the tables over them or the inputs of the small network that stands for them."""
        if self.size() == bandwidth:
            return None
        window, attentions = bandwidth // self.multiple(), list(self._attentions())
        changes = []
        for attention, _ in attentions:
            table = attention._parameters.get("relative_position_bias_table")
            if table is not None:
                rows, columns = (2 * side - 1 for side in attention.window_size)
                changes.append(GridChange(table, (rows, columns), (2 * window - 1, 2 * window - 1)))
            elif window == 1:
                raise InputError(
                    f"Swin V2 cannot take images of side {bandwidth}: its windows would be of one cell, for which it "
                    "knows no positions"
                )

        def finish() -> None:
            for attention, shifted in attentions:
                attention.window_size = [window, window]
                attention.shift_size = [window // 2, window // 2] if shifted else [0, 0]
                with torch.device(attention.qkv.weight.device):
                    attention.define_relative_position_index()
                    if "relative_position_bias_table" not in attention._parameters:
                        attention.define_relative_position_bias_table()

        return Fit(finish, changes)

    def _attentions(self) -> Iterator[tuple[Any, bool]]:
        """The attention of each block, and whether its windows are shifted."""
        for stage in self.module.features:
            blocks = [block for block in stage.children() if isinstance(getattr(block, "attn", None), nn.Module)]
            for number, block in enumerate(blocks):
                if isinstance(block.attn, ShiftedWindowAttention):
                    yield block.attn, number % 2 == 1
