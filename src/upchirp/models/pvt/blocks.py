"""Encoder layers of the Pyramid Vision Transformer: attention whose keys and values lie on a coarser grid."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm, Mlp, use_fused_attn
from torch import nn
from torch.nn import functional

from upchirp.errors import InputError

Grid = tuple[int, int]
"""Rows and columns."""


def to_map(tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Tokens (B, H W, C), row by row, as a map (B, C, H, W).

    >>> to_map(torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]), (2, 2))
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


class SpatialReductionAttention(nn.Module):
    """Multi-head attention whose keys and values lie on a coarser grid (Section 3.3, Equations 2-4).

    A convolution with kernel and stride R, then a LayerNorm, turns each R x R patch of tokens into one.

    Args:
        dim: channels of a token.
        num_heads: heads, a divisor of `dim`.
        sr_ratio: R, a divisor of both sides of the grid; 1 is plain attention.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout rate of the attention weights.
        proj_drop: dropout rate of the output.
        norm_layer: makes the normalisation of the reduced tokens.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        InputError: the heads don't divide the channels.

    >>> attention = SpatialReductionAttention(8, num_heads=2, sr_ratio=4)
    >>> attention(torch.zeros(1, 8 * 8, 8), (8, 8)).shape
    torch.Size([1, 64, 8])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        sr_ratio: int = 1,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: Callable[..., nn.Module] = LayerNorm,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        placed = {"device": device, "dtype": dtype}
        if dim % num_heads:
            raise InputError(f"{num_heads} heads do not divide {dim} channels: choose a divisor")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = use_fused_attn()
        self.q = nn.Linear(dim, dim, bias=qkv_bias, **placed)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias, **placed)
        self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio, **placed) if sr_ratio > 1 else None
        self.norm = norm_layer(dim, **placed) if sr_ratio > 1 else None
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, **placed)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Attend among tokens (B, N, C), which lie row by row on `grid` where there is a reduction."""
        batch, tokens, dim = x.shape
        q = self.q(x).reshape(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2)
        if self.sr is not None and self.norm is not None:
            x = self.norm(self.sr(to_map(x, grid)).flatten(2).transpose(1, 2))
        kv = self.kv(x).reshape(batch, -1, 2, self.num_heads, self.head_dim)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            rate = self.attn_drop.p if self.training else 0.0
            x = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        else:
            weights = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1)
            x = self.attn_drop(weights) @ v
        output: torch.Tensor = self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, tokens, dim)))
        return output


class Block(nn.Module):
    """One encoder layer: spatial-reduction attention and a feed-forward layer, each normalised first.

    Args:
        dim: channels of a token.
        num_heads: heads.
        mlp_ratio: width of the feed-forward layer, in units of `dim`.
        sr_ratio: reduction of keys and values.
        qkv_bias: whether queries, keys and values have a bias.
        proj_drop: dropout rate after attention and in the feed-forward layer.
        attn_drop: dropout rate of the attention weights.
        drop_path: stochastic depth rate of both branches.
        act_layer: makes the activation of the feed-forward layer.
        norm_layer: makes a normalisation for a number of channels.
        device: where the parameters are made.
        dtype: their type.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        sr_ratio: int = 1,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: Callable[..., nn.Module] = LayerNorm,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        placed = {"device": device, "dtype": dtype}
        self.norm1 = norm_layer(dim, **placed)
        self.attn = SpatialReductionAttention(
            dim, num_heads, sr_ratio, qkv_bias, attn_drop, proj_drop, norm_layer, **placed
        )
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm_layer(dim, **placed)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, **placed)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Tokens (B, N, C) to tokens of the same shape."""
        x = x + self.drop_path1(self.attn(self.norm1(x), grid))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return x
