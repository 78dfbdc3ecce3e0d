"""Pyramid Vision Transformer, version 1 (Wang et al., ICCV 2021, arXiv 2102.12122), for timm.

Four stages, each a patch embedding that coarsens the grid and a transformer encoder (Section 3.1, Figure 3).
Attention stays affordable on the fine grids because keys and values are read from a grid R times coarser
(Section 3.3, Equations 2-4). Importing this package registers the four models of Table 1 with timm.

| paper, stage i | code |
| --- | --- |
| P_i, patch size | `patch_size` in the first stage, 2 in the others |
| C_i, channels | `embed_dims` |
| L_i, encoder layers | `depths` |
| R_i, reduction ratio | `sr_ratios` |
| N_i, heads | `num_heads` |
| E_i, expansion of the feed-forward layer | `mlp_ratios` |
"""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from upchirp.models.pvt.model import PyramidVisionTransformer
from upchirp.models.pvt.official import checkpoint_filter_fn

__all__ = ["PyramidVisionTransformer", "checkpoint_filter_fn"]


def _cfg(**changes: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "fixed_input_size": True,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        **changes,
    }


default_cfgs = generate_default_cfgs({name: _cfg() for name in ("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large")})


def _create(
    variant: str, pretrained: bool, depths: tuple[int, ...], kwargs: dict[str, Any]
) -> PyramidVisionTransformer:
    kwargs = {"depths": depths, **kwargs}
    out_indices = kwargs.pop("out_indices", tuple(range(len(kwargs["depths"]))))
    model: PyramidVisionTransformer = build_model_with_cfg(
        PyramidVisionTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )
    return model


@register_model
def pvt_tiny(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Tiny: 13 M parameters."""
    return _create("pvt_tiny", pretrained, (2, 2, 2, 2), kwargs)


@register_model
def pvt_small(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Small: 25 M parameters."""
    return _create("pvt_small", pretrained, (3, 4, 6, 3), kwargs)


@register_model
def pvt_medium(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Medium: 44 M parameters."""
    return _create("pvt_medium", pretrained, (3, 4, 18, 3), kwargs)


@register_model
def pvt_large(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Large: 61 M parameters."""
    return _create("pvt_large", pretrained, (3, 8, 27, 3), kwargs)
