"""The parts of a CSWin Transformer. Tokens are (N, H, W, C) throughout."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import DropPath, Mlp, use_fused_attn
from timm.models import checkpoint_seq
from torch import nn
from torch.nn import functional

from upchirp.errors import InputError
from upchirp.models.cswin.stripes import Windows, windows_on


class CrossShapedAttention(nn.Module):
    """Cross-shaped window self-attention with locally-enhanced positional encoding (LePE).

    The heads are split into as many groups as there are `windows`. Each group attends inside windows of its
    own shape: vertical stripes, (H, sw), for the first half of the heads and horizontal ones, (sw, W), for the
    second; or the whole map, (H, W), for all of them. A window with queries Q, keys K and values V becomes

        softmax(Q K^T / sqrt(d)) V + DWConv(V),

    where d is the channels of a head and DWConv, LePE, a depthwise 3x3 convolution that sees zeros outside
    the window (sections "Cross-Shaped Window Self-Attention" and "Locally-Enhanced Positional Encoding").

    Args:
        dim: channels C.
        num_heads: heads, of C / heads channels each.
        windows: rows and columns of the windows of each group of heads; they follow the input size.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout rate of the attention weights.
        proj_drop: dropout rate after the projection.
        dynamic: let the stripes be as long as the map is, and the window that is the whole map as large.
        device: where to create the parameters.
        dtype: their type.

    Raises:
        InputError: the groups don't divide the heads, or the heads the channels.

    >>> attention = CrossShapedAttention(16, 2, windows=((6, 3), (3, 6)))
    >>> attention(torch.zeros(1, 6, 6, 16)).shape
    torch.Size([1, 6, 6, 16])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        windows: Windows,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        dynamic: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        groups = len(windows)
        if num_heads % groups or dim % num_heads:
            raise InputError(
                f"{num_heads} heads cannot share {dim} channels in {groups} equal groups: choose heads that "
                f"are a multiple of {groups} and divide the channels"
            )
        self.windows = windows
        self.dynamic = dynamic
        self.head_dim = dim // num_heads
        self.fused_attn = use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, device=device, dtype=dtype)
        width = dim // groups
        self.lepe = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, device=device, dtype=dtype) for _ in windows
        )
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend; (N, H, W, C) in and out."""
        n, h, w, c = x.shape
        groups = len(self.windows)
        qkv = self.qkv(x).view(n, h, w, 3, groups, c // groups).unbind(4)
        if self.dynamic:
            windows = windows_on(self.windows, h, w)
            parts = [self._attend_padded(qkv[i], windows[i], lepe) for i, lepe in enumerate(self.lepe)]
        else:
            parts = [self._attend(qkv[i], self.windows[i], lepe) for i, lepe in enumerate(self.lepe)]
        x = torch.cat(parts, -1) if groups > 1 else parts[0]
        x = self.proj_drop(self.proj(x))
        return x

    def _attend_padded(self, qkv: torch.Tensor, window: tuple[int, int], lepe: nn.Module) -> torch.Tensor:
        _, h, w, _, _ = qkv.shape
        rows, columns = window
        padded = functional.pad(qkv, (0, 0, 0, 0, 0, -w % columns, 0, -h % rows))
        return self._attend(padded, window, lepe)[:, :h, :w]

    def _attend(self, qkv: torch.Tensor, window: tuple[int, int], lepe: nn.Module) -> torch.Tensor:
        """One group of heads, (N, H, W, 3, C) -> (N, H, W, C), in windows of the given rows and columns."""
        n, h, w, _, c = qkv.shape
        rows, columns = window
        grid = qkv.view(n, h // rows, rows, w // columns, columns, 3, c).permute(5, 0, 1, 3, 2, 4, 6)
        # A copy for vertical stripes only: the others lie in memory one after the other.
        q, k, v = grid.reshape(3, -1, rows * columns, c // self.head_dim, self.head_dim).unbind(0)
        positions: torch.Tensor = lepe(v.reshape(-1, rows, columns, c).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.fused_attn:
            drop = self.attn_drop.p if self.training else 0.0
            x = functional.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        else:
            weights = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            x = self.attn_drop(weights.softmax(-1)) @ v
        x = x.transpose(1, 2).reshape(positions.shape) + positions
        return x.reshape(n, h // rows, w // columns, rows, columns, c).transpose(2, 3).reshape(n, h, w, c)


class CSWinBlock(nn.Module):
    """A pre-norm block: cross-shaped attention, then a two-layer perceptron."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        windows: Windows,
        mlp_ratio: float,
        qkv_bias: bool,
        proj_drop: float,
        attn_drop: float,
        drop_path: float,
        norm_layer: Callable[..., nn.Module],
        act_layer: type[nn.Module],
        dynamic: bool = False,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim, **dd)
        self.attn = CrossShapedAttention(dim, num_heads, windows, qkv_bias, attn_drop, proj_drop, dynamic, **dd)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm_layer(dim, **dd)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, **dd)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) in and out."""
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return x


class ConvEmbed(nn.Module):
    """Tokens by an overlapping convolution: the stem, and the step between two stages."""

    def __init__(
        self,
        in_chans: int,
        dim: int,
        kernel_size: int,
        stride: int,
        padding: int,
        norm_layer: Callable[..., nn.Module],
        **dd: Any,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size, stride, padding, **dd)
        self.norm = norm_layer(dim, **dd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, H / stride, W / stride, dim)."""
        x = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return x


class CSWinStage(nn.Module):
    """Blocks of one resolution, after the convolution that leads to it."""

    def __init__(self, downsample: ConvEmbed | None, blocks: Sequence[CSWinBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) -> (N, H / 2, W / 2, 2 C), or in and out without a convolution."""
        if self.downsample is not None:
            x = self.downsample(x.permute(0, 3, 1, 2))
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return x
