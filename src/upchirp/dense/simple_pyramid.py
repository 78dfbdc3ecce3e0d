"""The simple feature pyramid of ViTDet (arXiv 2203.16527, Section 3): every scale from the last map."""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import nn

from upchirp.errors import InputError


class SimplePyramid(nn.Module):
    """Maps at several strides from one: by deconvolutions, as it is, and by max-pooling.

    The pyramid on top gives all of them the same channels.

    Args:
        dim: channels C of the map.
        stride: pixels per cell of the map, a power of 2.
        strides: those wanted, powers of 2.

    Raises:
        InputError: a stride that is no power of 2.

    >>> pyramid = SimplePyramid(64, 16, (4, 8, 16, 32))
    >>> [tuple(map.shape) for map in pyramid(torch.zeros(1, 64, 4, 6))]
    [(1, 16, 16, 24), (1, 32, 8, 12), (1, 64, 4, 6), (1, 64, 2, 3)]
    """

    def __init__(self, dim: int, stride: int, strides: Sequence[int]) -> None:
        super().__init__()
        if stride & (stride - 1):
            raise InputError(f"patches of {stride} pixels make no pyramid: choose a model with patches of 8, 16 or 32")
        scales = [_scale(dim, stride, wanted) for wanted in strides]
        self.scales = nn.ModuleList(layers for layers, _ in scales)
        self.channels = tuple(channels for _, channels in scales)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, C, H, W) to one map per stride."""
        return [layers(x) for layers in self.scales]


def _scale(dim: int, stride: int, wanted: int) -> tuple[nn.Module, int]:
    if wanted == stride:
        return nn.Identity(), dim
    if wanted > stride:
        return nn.MaxPool2d(wanted // stride), dim
    layers: list[nn.Module] = []
    while stride > wanted:
        if layers:
            layers += [LayerNorm2d(dim), nn.GELU()]
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, 2))
        dim, stride = dim // 2, stride // 2
    return nn.Sequential(*layers), dim
