"""A feature pyramid on a trained backbone, as torchvision's detectors take it."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from upchirp.dense.feature_maps import FeatureMaps, feature_maps_of
from upchirp.errors import InputError

LARGEST = 32
"""Pixels per cell of the coarsest map of a backbone; coarser levels are made from it."""


class Backbone(nn.Module):
    """torchvision's feature pyramid (FPN) on the maps of a backbone.

    A backbone without batch norm normalises its blocks' inputs, not its maps, so each map gets a layer norm first.

    Args:
        maps: the maps, one for each of `levels` up to stride 32.
        levels: strides of the pyramid, ascending. One above 32 is made by subsampling (Faster R-CNN's), two by
            convolutions (RetinaNet's).
        channels: of every level.

    Raises:
        InputError: other levels.
    """

    def __init__(self, maps: FeatureMaps, levels: Sequence[int], channels: int) -> None:
        super().__init__()
        coarser = [level for level in levels if level > LARGEST]
        if len(coarser) > 2 or list(levels) != [levels[0] * 2**index for index in range(len(levels))]:
            raise InputError(
                f"levels are {tuple(levels)}: choose strides that double, with up to two above {LARGEST}, such as "
                "(4, 8, 16, 32, 64) or (8, 16, 32, 64, 128)"
            )
        extra: dict[int, nn.Module | None] = {0: None, 1: LastLevelMaxPool(), 2: LastLevelP6P7(channels, channels)}
        self.maps = maps
        self.levels = tuple(levels)
        self.out_channels = channels
        self.mean, self.std = maps.mean, maps.std
        plain = any(isinstance(module, _BatchNorm) or "BatchNorm" in type(module).__name__ for module in maps.modules())
        self.norms = nn.ModuleList(nn.Identity() if plain else LayerNorm2d(dim) for dim in maps.channels)
        self.fpn = FeaturePyramidNetwork(list(maps.channels), channels, extra_blocks=extra[len(coarser)])

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Normalised images (N, 3, H, W) to maps (N, channels, H / level, W / level), by torchvision's names."""
        maps = self.maps(images)
        normed = [norm(map) for norm, map in zip(self.norms, maps, strict=True)]
        pyramid: OrderedDict[str, torch.Tensor] = self.fpn(OrderedDict((str(i), map) for i, map in enumerate(normed)))
        return pyramid


def backbone(
    weights: str | Path | None,
    *,
    levels: Sequence[int] = (4, 8, 16, 32, 64),
    channels: int = 256,
    freeze_norm: bool = True,
    **options: Any,
) -> Backbone:
    """A feature pyramid on trained weights, for images of any size: what torchvision's detectors call a backbone.

    Args:
        weights: a run folder, a weights file, or a name of timm's; see `feature_maps_of`.
        levels: strides of the pyramid: (4, 8, 16, 32, 64) for the family of Faster R-CNN, (8, 16, 32, 64, 128) for
            RetinaNet.
        channels: of every level.
        freeze_norm: whether batch norms keep what they were trained to.
        options: `model`, `model_kwargs`, `final_size` and `drop_path`; see `feature_maps_of`.

    Raises:
        InputError: see `feature_maps_of` and `Backbone`.

    >>> pyramid = backbone(None, model="resnet10t", channels=16)
    >>> {name: tuple(map.shape[1:]) for name, map in pyramid(torch.zeros(1, 3, 64, 96)).items()}
    {'0': (16, 16, 24), '1': (16, 8, 12), '2': (16, 4, 6), '3': (16, 2, 3), 'pool': (16, 1, 2)}
    """
    strides = [level for level in levels if level <= LARGEST]
    return Backbone(feature_maps_of(weights, strides=strides, freeze_norm=freeze_norm, **options), levels, channels)
