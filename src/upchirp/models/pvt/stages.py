"""Stages of the Pyramid Vision Transformer, each with tokens on a grid half as fine as that of the one before."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import PatchEmbed, calculate_drop_path_rates, trunc_normal_
from timm.models import checkpoint
from torch import nn
from torch.nn import functional

from upchirp.models.pvt.blocks import Block, Grid, to_map


class Stage(nn.Module):
    """Patch embedding, positions and encoder layers at one resolution (Figure 3).

    Args:
        dim: channels of a token.
        grid: rows and columns of tokens.
        stride: pixels of the image per token.
        downsample: makes this stage's tokens from the map of the stage before; None in the first stage, whose
            tokens the model makes.
        class_token: whether a learned token goes before the grid.
        pos_drop: dropout rate after the positions are added.
        drop_paths: stochastic depth rate of each layer; their number is the number of layers.
        device: where the parameters are made.
        dtype: their type.
        layer: the other arguments of `Block`.

    >>> stage = Stage(8, (4, 4), 4, None, class_token=True, pos_drop=0.0, drop_paths=[0.0], num_heads=2)
    >>> stage(torch.zeros(1, 16, 8)).shape
    torch.Size([1, 17, 8])
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        stride: int,
        downsample: PatchEmbed | None,
        *,
        class_token: bool,
        pos_drop: float,
        drop_paths: Sequence[float],
        device: Any = None,
        dtype: Any = None,
        **layer: Any,
    ) -> None:
        super().__init__()
        placed = {"device": device, "dtype": dtype}
        self.grid_size = grid
        self.stride = stride
        self.num_prefix_tokens = int(class_token)
        self.grad_checkpointing = False
        self.downsample = downsample
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim, **placed)) if class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.num_prefix_tokens + grid[0] * grid[1], dim, **placed))
        self.pos_drop = nn.Dropout(pos_drop)
        self.blocks = nn.ModuleList(Block(dim, drop_path=rate, **layer, **placed) for rate in drop_paths)

    def forward(self, x: torch.Tensor, grid: Grid | None = None) -> torch.Tensor:
        """Tokens on the grid before, (B, H' W', C'), to tokens on this one, (B, H W, C), the class token first.

        On another `grid` than the positions have, these are interpolated for this once.
        """
        grid = grid or self.grid_size
        if self.downsample is not None:
            rows, columns = self.downsample.patch_size
            x = self.downsample(to_map(x, (grid[0] * rows, grid[1] * columns)))
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.pos_drop(x + self._positions(grid))
        for block in self.blocks:
            x = checkpoint(block, x, grid) if self.grad_checkpointing else block(x, grid)
        return x

    def _positions(self, grid: Grid) -> torch.Tensor:
        if grid == self.grid_size:
            return self.pos_embed
        prefix = self.num_prefix_tokens
        cells = to_map(self.pos_embed[:, prefix:], self.grid_size)
        cells = functional.interpolate(cells, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([self.pos_embed[:, :prefix], cells.flatten(2).transpose(1, 2)], dim=1)

    def grid_at(self, size: Grid) -> Grid:
        """The grid of this stage for images of height and width `size`."""
        return size[0] // self.stride, size[1] // self.stride

    def set_grid(self, grid: Grid) -> None:
        """Expect tokens on `grid` from now on; the positions have their new shape already."""
        self.grid_size = grid
        if self.downsample is not None:
            rows, columns = self.downsample.patch_size
            self.downsample.set_input_size(img_size=(grid[0] * rows, grid[1] * columns))

    def to_map(self, tokens: torch.Tensor, grid: Grid | None = None) -> torch.Tensor:
        """What `forward` returns as a map (B, C, H, W), without the class token."""
        return to_map(tokens[:, self.num_prefix_tokens :], grid or self.grid_size).contiguous()


def make_stages(
    grid: Grid,
    patch_size: int,
    embed_dims: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    mlp_ratios: Sequence[float],
    sr_ratios: Sequence[int],
    *,
    drop_path_rate: float,
    dynamic: bool,
    norm_layer: Callable[..., nn.Module],
    **shared: Any,
) -> nn.Sequential:
    """All stages of a pyramid, of which the last has the class token; see `PyramidVisionTransformer`.

    Args:
        grid: of the first stage.
        patch_size: pixels per token there; every further stage halves the grid.
        embed_dims: channels of each stage.
        depths: encoder layers of each stage.
        num_heads: heads of each stage.
        mlp_ratios: width of each stage's feed-forward layers, in units of its channels.
        sr_ratios: reduction of keys and values in each stage.
        drop_path_rate: stochastic depth rate of the last layer; it grows linearly from 0 over all layers.
        dynamic: whether images may have any size.
        norm_layer: makes a normalisation for a number of channels.
        shared: what else all stages are made with.
    """
    drop_paths: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
    placed = {name: shared[name] for name in ("device", "dtype")}
    stages = nn.Sequential()
    for stage, dim in enumerate(embed_dims):
        downsample = None
        if stage > 0:
            downsample = PatchEmbed(
                grid, 2, embed_dims[stage - 1], dim, norm_layer=norm_layer, strict_img_size=not dynamic, **placed
            )
            grid = downsample.grid_size
        stages.append(
            Stage(
                dim,
                grid,
                patch_size * 2**stage,
                downsample,
                class_token=stage == len(embed_dims) - 1,
                drop_paths=drop_paths[stage],
                num_heads=num_heads[stage],
                mlp_ratio=mlp_ratios[stage],
                sr_ratio=sr_ratios[stage],
                norm_layer=norm_layer,
                **shared,
            )
        )
    return stages


def init_weights(module: nn.Module) -> None:
    """Start linear layers, positions and class tokens from a narrow normal distribution."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Stage):
        trunc_normal_(module.pos_embed, std=0.02)
        if module.cls_token is not None:
            trunc_normal_(module.cls_token, std=0.02)
