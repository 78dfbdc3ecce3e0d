"""CSWin Transformer: attention in vertical and horizontal stripes at once (Dong et al., CVPR 2022).

Written from the paper, arXiv 2107.00652, and registered with timm as `cswin_tiny_224`, `cswin_small_224`,
`cswin_base_224` and `cswin_large_224`. When the input side B changes, the stripes follow: their widths are
1, 2, B/32 and B/32 tokens (1, 2, 7, 7 at 224), and no parameter changes shape.
"""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from upchirp.models.cswin.checkpoint import checkpoint_filter_fn
from upchirp.models.cswin.model import CSWinTransformer

# `register_model` adds the names of the models.
__all__ = ["CSWinTransformer", "checkpoint_filter_fn"]


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "paper_ids": "arXiv:2107.00652",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({f"cswin_{size}_224": _cfg() for size in ("tiny", "small", "base", "large")})


def _create(variant: str, pretrained: bool, architecture: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    model: nn.Module = build_model_with_cfg(
        CSWinTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter", "flatten_sequential": True},
        **{**architecture, **arguments},
    )
    return model


@register_model
def cswin_tiny_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CSWin-T: 22 M parameters."""
    architecture = {"embed_dim": 64, "depths": (1, 2, 21, 1), "num_heads": (2, 4, 8, 16)}
    return _create("cswin_tiny_224", pretrained, architecture, kwargs)


@register_model
def cswin_small_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CSWin-S: 35 M parameters."""
    architecture = {"embed_dim": 64, "depths": (2, 4, 32, 2), "num_heads": (2, 4, 8, 16)}
    return _create("cswin_small_224", pretrained, architecture, kwargs)


@register_model
def cswin_base_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CSWin-B: 78 M parameters."""
    architecture = {"embed_dim": 96, "depths": (2, 4, 32, 2), "num_heads": (4, 8, 16, 32)}
    return _create("cswin_base_224", pretrained, architecture, kwargs)


@register_model
def cswin_large_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CSWin-L: 173 M parameters."""
    architecture = {"embed_dim": 144, "depths": (2, 4, 32, 2), "num_heads": (6, 12, 24, 24)}
    return _create("cswin_large_224", pretrained, architecture, kwargs)
