"""Checkpoints of the authors' own repository, whose parameters have other names."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.resizing.grids import resize_grid

_NUMBERED = re.compile(r"(patch_embed|pos_embed|block)(\d+)\b(.*)")


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, torch.Tensor]:
    """Bring a checkpoint into the names and position grids of `model`; timm's hook for pretrained weights.

    Official names become ours (`block2.0.attn.q` is `stages.1.blocks.0.attn.q`), our own stay, the wrappers
    `model` and `state_dict` come off, and positions of another size are interpolated bilinearly.

    Args:
        state_dict: parameters by name, or a checkpoint that holds them.
        model: a `PyramidVisionTransformer` with all its stages.

    Raises:
        InputError: positions of another size are not on a square grid.

    >>> from upchirp.models import create_model
    >>> model = create_model("pvt_tiny", final_size=64, depths=(1, 1, 1, 1))
    >>> ours = checkpoint_filter_fn({"model": {"pos_embed4": torch.zeros(1, 1 + 7 * 7, 512)}}, model)
    >>> {name: tuple(value.shape) for name, value in ours.items()}
    {'stages.3.pos_embed': (1, 5, 512)}
    """
    for wrapper in ("model", "state_dict"):
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            state_dict = inner
    stages: Any = model.stages
    ours = {_own_name(name, len(stages)): value for name, value in state_dict.items()}
    for number, stage in enumerate(stages):
        name = f"stages.{number}.pos_embed"
        if name in ours and ours[name].shape[1] != stage.pos_embed.shape[1]:
            ours[name] = _resized(name, ours[name], stage)
    return ours


def translate_official(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let `load_state_dict` take official names: timm gives `checkpoint_path` to it unfiltered.

    A checkpoint in our own names is left as it is, so that a wrong size there stays an error.
    """
    if f"{prefix}pos_embed1" not in state_dict:
        return
    official = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
    named = {name.removeprefix(prefix): value for name, value in official.items()}
    state_dict.update({prefix + name: value for name, value in checkpoint_filter_fn(named, module).items()})


def _own_name(name: str, stages: int) -> str:
    if name == "cls_token":
        return f"stages.{stages - 1}.cls_token"
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return name
    kind, stage, rest = match[1], int(match[2]) - 1, match[3]
    if kind == "patch_embed":
        return f"stages.{stage}.downsample{rest}" if stage else f"patch_embed{rest}"
    return f"stages.{stage}.{'blocks' if kind == 'block' else kind}{rest}"


def _resized(name: str, positions: torch.Tensor, stage: Any) -> torch.Tensor:
    cells = positions.shape[1] - stage.num_prefix_tokens
    side = math.isqrt(max(cells, 0))
    if side == 0 or side * side != cells:
        raise InputError(f"{name} of the checkpoint has {cells} positions, not a square grid: resize it beforehand")
    return resize_grid(positions, (side, side), stage.grid_size, dim=1, prefix=stage.num_prefix_tokens)
