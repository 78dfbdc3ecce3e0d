"""Weights of the official CSWin repository under the names used here."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

_RENAMES = (
    (r"^stage1_conv_embed\.0\.", "patch_embed.proj."),
    (r"^stage1_conv_embed\.2\.", "patch_embed.norm."),
    (r"^merge(\d)\.conv\.", r"stages.\1.downsample.proj."),
    (r"^merge(\d)\.norm\.", r"stages.\1.downsample.norm."),
    (r"^(stage\d\.\d+)\.attns\.(\d)\.get_v\.", r"\1.attn.lepe.\2."),
    (r"^(stage\d\.\d+)\.(qkv|proj)\.", r"\1.attn.\2."),
    (r"^head\.", "head.fc."),
)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """Name the weights of the official repository as here; weights named as here pass unchanged.

    A `state_dict_ema`, `state_dict` or `model` wrapper is taken off.

    >>> official = {"stage1_conv_embed.2.bias": 0, "stage3.20.attns.1.get_v.weight": 1, "merge2.conv.bias": 2}
    >>> checkpoint_filter_fn({"model": official}, nn.Identity())
    {'patch_embed.norm.bias': 0, 'stages.2.blocks.20.attn.lepe.1.weight': 1, 'stages.2.downsample.proj.bias': 2}
    """
    for wrapper in ("state_dict_ema", "state_dict", "model"):
        if isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    if not any(name.startswith("stage1_conv_embed.") for name in state_dict):
        return state_dict
    return {_rename(name): values for name, values in state_dict.items()}


def _rename(name: str) -> str:
    for pattern, ours in _RENAMES:
        name = re.sub(pattern, ours, name)
    return re.sub(r"^stage(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks.", name)
