"""The Pyramid Vision Transformer as timm expects a model to be."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import LayerNorm, PatchEmbed, get_device_dtype, to_2tuple
from timm.models._features import feature_take_indices
from timm.models._input import update_model_input_size
from torch import nn

from upchirp.errors import InputError
from upchirp.models.pvt.blocks import Grid
from upchirp.models.pvt.official import translate_official
from upchirp.models.pvt.stages import init_weights, make_stages
from upchirp.models.resizing.grids import GridChange, apply_change


class PyramidVisionTransformer(nn.Module):
    """A pyramid of four transformer stages, classified by a class token of the last (Section 3).

    It follows timm's conventions, and resizes its positions itself when the input size changes (see
    `upchirp.models.ResizableInput`): each stage has learned positions, on grids 4, 8, 16 and 32 times coarser.

    Args:
        img_size: side of the images, or height and width; multiples of 32 in the published models.
        patch_size: pixels per token of the first stage; every further stage halves the grid.
        in_chans: channels of the images.
        num_classes: outputs of the classifier; 0 for none.
        global_pool: what is classified: `token` the class token, `avg` the mean of the others, empty all.
        embed_dims: channels of each stage; their number is the number of stages.
        depths: encoder layers of each stage.
        num_heads: heads of each stage.
        mlp_ratios: width of each stage's feed-forward layers, in units of its channels.
        sr_ratios: reduction of keys and values in each stage; the last, with the class token, has none.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: dropout rate before the classifier.
        pos_drop_rate: dropout rate after the positions are added.
        proj_drop_rate: dropout rate after attention and in the feed-forward layers.
        attn_drop_rate: dropout rate of the attention weights.
        drop_path_rate: stochastic depth rate of the last layer; it grows linearly from 0 over all layers.
        act_layer: makes the activation of the feed-forward layers.
        norm_layer: makes a normalisation for a number of channels.
        dynamic_img_size: take images of any size that patches and reductions divide, and interpolate positions.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        InputError: patches or reductions don't divide `img_size`, heads don't divide channels, an unknown
            `global_pool`, or arguments for unequal numbers of stages.

    >>> model = PyramidVisionTransformer(64, num_classes=5, embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1))
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 5])
    >>> [tuple(map.shape) for map in model.forward_intermediates(torch.zeros(1, 3, 64, 64))[1]]
    [(1, 8, 16, 16), (1, 16, 8, 8), (1, 40, 4, 4), (1, 64, 2, 2)]
    """

    stages: Any

    def __init__(
        self,
        img_size: int | Grid = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: Callable[..., nn.Module] = LayerNorm,
        dynamic_img_size: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if len({len(option) for option in (embed_dims, depths, num_heads, mlp_ratios, sr_ratios)}) > 1:
            raise InputError(
                "embed_dims, depths, num_heads, mlp_ratios and sr_ratios differ in length: give one value per stage"
            )
        if sr_ratios[-1] != 1:
            raise InputError(f"the last of sr_ratios is {sr_ratios[-1]}: choose 1, the class token is on no grid")
        placed = {"device": device, "dtype": dtype}
        size = to_2tuple(img_size)
        strides = [patch_size * 2**stage for stage in range(len(embed_dims))]
        self.size_multiple = math.lcm(*(stride * ratio for stride, ratio in zip(strides, sr_ratios, strict=True)))
        self._check_size(size)
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.num_prefix_tokens = 1
        self.feature_info = [
            {"num_chs": dim, "reduction": stride, "module": f"stages.{stage}"}
            for stage, (dim, stride) in enumerate(zip(embed_dims, strides, strict=True))
        ]
        self.dynamic_img_size = dynamic_img_size
        self.patch_embed = PatchEmbed(
            size,
            patch_size,
            in_chans,
            embed_dims[0],
            norm_layer=norm_layer,
            strict_img_size=not dynamic_img_size,
            **placed,
        )
        self.stages = make_stages(
            self.patch_embed.grid_size,
            patch_size,
            embed_dims,
            depths,
            num_heads,
            mlp_ratios,
            sr_ratios,
            drop_path_rate=drop_path_rate,
            dynamic=dynamic_img_size,
            pos_drop=pos_drop_rate,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop_rate,
            attn_drop=attn_drop_rate,
            act_layer=act_layer,
            norm_layer=norm_layer,
            **placed,
        )
        self.norm = norm_layer(embed_dims[-1], **placed)
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(num_classes, global_pool)
        self.apply(init_weights)
        self.register_load_state_dict_pre_hook(translate_official)  # type: ignore[no-untyped-call]

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone: positions and the class token."""
        return {name for name, _ in self.named_parameters() if name.endswith(("pos_embed", "cls_token"))}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth, for layer-wise learning rates."""
        last = (r"^norm", (99999,))  # timm's number for "with the group before"
        if coarse:
            return {"stem": r"^patch_embed", "blocks": [(r"^stages\.(\d+)", None), last]}
        start = (r"^stages\.(\d+)\.(?:downsample|pos_embed|cls_token)", (0,))
        return {"stem": r"^patch_embed", "blocks": [start, (r"^stages\.(\d+)\.blocks\.(\d+)", None), last]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether to recompute each encoder layer in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier with `num_classes` outputs in place, none if 0, and change the pooling."""
        if global_pool is not None:
            pools = ("token", "avg", "") if self.num_prefix_tokens else ("avg", "")
            if global_pool not in pools:
                raise InputError(f"global_pool is {global_pool!r}: choose one of {', '.join(map(repr, pools))}")
            self.global_pool = global_pool
        self.num_classes = num_classes
        placed = get_device_dtype(self)  # type: ignore[no-untyped-call]
        self.head = nn.Linear(self.num_features, num_classes, **placed) if num_classes > 0 else nn.Identity()
        self.head.train(self.training)

    def grid_changes(self, bandwidth: int) -> list[GridChange]:
        """The positions of each stage, if `bandwidth` is not the current size.

        Raises:
            InputError: patches and reductions don't divide `bandwidth`.
        """
        return self._changes((bandwidth, bandwidth))

    def set_bandwidth(self, bandwidth: int) -> None:
        """Expect images of side `bandwidth`; the positions have their new shapes already."""
        self._expect((bandwidth, bandwidth))

    def set_input_size(self, img_size: int | Grid | None = None) -> None:
        """Change to images of `img_size`, a side or height and width; parameters stay the same objects.

        `upchirp.models.fit_to_bandwidth` does the same and resizes an optimizer's moments too.

        Raises:
            InputError: patches and reductions don't divide `img_size`.
        """
        size = to_2tuple(self.patch_embed.img_size if img_size is None else img_size)
        for change in self._changes(size):
            apply_change(change)
        self._expect(size)

    def _check_size(self, size: Grid) -> None:
        for side in size:
            if side < 1 or side % self.size_multiple:
                raise InputError(
                    f"{type(self).__name__} cannot take images of side {side}: its patches and spatial reductions "
                    f"divide multiples of {self.size_multiple} only"
                )

    def _changes(self, size: Grid) -> list[GridChange]:
        self._check_size(size)
        return [
            GridChange(stage.pos_embed, stage.grid_size, stage.grid_at(size), dim=1, prefix=stage.num_prefix_tokens)
            for stage in self.stages
            if stage.grid_at(size) != stage.grid_size
        ]

    def _expect(self, size: Grid) -> None:
        self.patch_embed.set_input_size(img_size=size)
        for stage in self.stages:
            stage.set_grid(stage.grid_at(size))
        update_model_input_size(self, size)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """The maps (B, C, H, W) that stages end with, and what `forward_features` returns.

        Args:
            x: images (B, in_chans, H, W).
            indices: which stages: the last n, a list of indices, or all.
            norm: whether the last stage's map is normalised as for the classifier.
            stop_early: whether to leave out stages after the last one wanted.
            output_fmt: `NCHW`, nothing else.
            intermediates_only: whether to return the maps alone.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt is {output_fmt!r}: choose 'NCHW'")
        wanted, last = feature_take_indices(len(self.stages), indices)
        maps = []
        size = self._size_of(x)
        x = self.patch_embed(x)
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            grid = size and stage.grid_at(size)
            x = stage(x, grid)
            normed = self.norm(x) if index == len(self.stages) - 1 else x
            if index in wanted:
                maps.append(stage.to_map(normed if norm else x, grid))
            x = normed
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of `indices`, and the classifier; returns the indices kept."""
        kept, last = feature_take_indices(len(self.stages), indices)
        shorter = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if shorter:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.num_prefix_tokens = 0
        if prune_norm or shorter:
            self.norm = nn.Identity()
        if prune_head or shorter:
            self.reset_classifier(0, "")
        return list(kept)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, in_chans, H, W) to normalised tokens (B, 1 + H/32 W/32, C), the class token first."""
        size = self._size_of(x)
        x = self.patch_embed(x)
        for stage in self.stages:
            x = stage(x, size and stage.grid_at(size))
        tokens: torch.Tensor = self.norm(x)
        return tokens

    def _size_of(self, images: torch.Tensor) -> Grid | None:
        """Height and width of images of any size; none where the model has one of its own."""
        if not self.dynamic_img_size:
            return None
        size = int(images.shape[-2]), int(images.shape[-1])
        self._check_size(size)
        return size

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Tokens to logits (B, num_classes), or to what the classifier is given."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, self.num_prefix_tokens :].mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))
