"""The CSWin Transformer with timm's interface."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.layers import ClassifierHead, calculate_drop_path_rates, to_2tuple, trunc_normal_
from timm.models._features import feature_take_indices
from timm.models._input import update_model_input_size
from torch import nn

from upchirp.errors import InputError
from upchirp.models.cswin.blocks import ConvEmbed, CSWinBlock, CSWinStage
from upchirp.models.cswin.checkpoint import checkpoint_filter_fn
from upchirp.models.cswin.stripes import STRIDES, check_stripes, stage_windows, stripe_widths
from upchirp.models.resizing.grids import GridChange


class CSWinTransformer(nn.Module):
    """CSWin Transformer, four stages of strides 4, 8, 16 and 32.

    It is a `ResizableInput`: `fit_to_bandwidth` sets its stripes. Linear layers start from a normal
    distribution of deviation 0.02, truncated, convolutions as PyTorch does it.

    Args:
        img_size: side of the square images, pixels, a multiple of 32.
        in_chans: channels of the images.
        num_classes: outputs of the classifier; 0 for none.
        global_pool: pooling before the classifier; '' for none.
        embed_dim: channels of the first stage, doubled by each further one.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        split_size: stripe width per stage at `img_size`, tokens; 1, 2, B/32 and B/32 if None. Those given keep
            their share of the map at other sizes, as closely as whole stripes allow. The last stage attends
            over its whole map, always.
        mlp_ratio: hidden channels of the perceptrons, in channels.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: dropout rate before the classifier.
        proj_drop_rate: dropout rate after the projections.
        attn_drop_rate: dropout rate of the attention weights.
        drop_path_rate: stochastic depth rate of the last block, from 0 in the first, linear over all.
        norm_layer: normalisation over the channels.
        act_layer: non-linearity of the perceptrons.
        dynamic_img_size: take images of any height and width, with stripes as wide as at `img_size`; maps that
            they don't divide are padded with zeros, as in the authors' segmentation.
        device: where to create the parameters.
        dtype: their type.

    Raises:
        InputError: a size or stripes that don't divide the maps, or heads that don't divide the channels.

    >>> import timm
    >>> model = timm.create_model("cswin_tiny_224", img_size=96, embed_dim=8, depths=(1, 1, 1, 1), num_classes=10)
    >>> model.split_size, tuple(model(torch.zeros(2, 3, 96, 96)).shape)
    ((1, 2, 3, 3), (2, 10))
    >>> model.set_input_size(160)
    >>> model.split_size, tuple(model.forward_features(torch.zeros(2, 3, 160, 160)).shape)
    ((1, 2, 5, 5), (2, 5, 5, 64))
    """

    size_multiple = STRIDES[-1]

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 64,
        depths: Sequence[int] = (1, 2, 21, 1),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        split_size: Sequence[int] | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        act_layer: type[nn.Module] = nn.GELU,
        dynamic_img_size: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        for name, given in (("depths", depths), ("num_heads", num_heads), ("split_size", split_size)):
            if given is not None and len(given) != len(STRIDES):
                raise InputError(f"{name} is {given}: give {len(STRIDES)} values, one per stage")
        side = self._check_side(img_size)
        self._built_with = (None if split_size is None else check_stripes(split_size, side), side)
        self.img_size = (side, side)
        self.split_size = stripe_widths(side, *self._built_with)
        self.dynamic_img_size = dynamic_img_size
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.output_fmt = "NHWC"

        self.patch_embed = ConvEmbed(in_chans, embed_dim, 7, 4, 2, norm_layer, **dd)
        drop_path: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        stages = []
        self.feature_info: list[dict[str, Any]] = []
        stage_arguments = zip(num_heads, drop_path, stage_windows(side, self.split_size), strict=True)
        for i, (heads, rates, windows) in enumerate(stage_arguments):
            dim = embed_dim * 2**i
            downsample = ConvEmbed(dim // 2, dim, 3, 2, 1, norm_layer, **dd) if i > 0 else None
            blocks = [
                CSWinBlock(
                    dim,
                    heads,
                    windows,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    proj_drop=proj_drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=rate,
                    norm_layer=norm_layer,
                    act_layer=act_layer,
                    dynamic=dynamic_img_size,
                    **dd,
                )
                for rate in rates
            ]
            stages.append(CSWinStage(downsample, blocks))
            self.feature_info.append({"num_chs": dim, "reduction": STRIDES[i], "module": f"stages.{i}"})
        self.stages: Any = nn.Sequential(*stages)
        self.num_features = dim
        self.norm = norm_layer(dim, **dd)
        self.head = ClassifierHead(dim, num_classes, pool_type=global_pool, drop_rate=drop_rate, input_fmt="NHWC", **dd)
        self.head_hidden_size = self.head.num_features
        self.apply(_init_weights)

    def _check_side(self, img_size: int | tuple[int, int]) -> int:
        height, width = to_2tuple(img_size)
        if height != width:
            raise InputError(f"{type(self).__name__} cannot take images of {height} x {width}: choose squares")
        self.grid_changes(height)
        return int(height)

    def grid_changes(self, bandwidth: int) -> list[GridChange]:
        """No parameter changes shape (see `ResizableInput`).

        Raises:
            InputError: 32 does not divide `bandwidth`.
        """
        if bandwidth < 1 or bandwidth % self.size_multiple:
            raise InputError(
                f"{type(self).__name__} cannot take images of side {bandwidth}: "
                f"its strides and stripes divide multiples of {self.size_multiple} only"
            )
        return []

    def set_bandwidth(self, bandwidth: int) -> None:
        """Set the stripes for images of side `bandwidth` (see `ResizableInput`)."""
        self.set_input_size(bandwidth)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Set the stripes for images of side `img_size`.

        Raises:
            InputError: 32 does not divide it, or the two sides differ.
        """
        side = self._check_side(img_size)
        self.img_size = (side, side)
        self.split_size = stripe_widths(side, *self._built_with)
        # A pruned model has fewer stages than there are windows.
        for stage, windows in zip(self.stages, stage_windows(side, self.split_size), strict=False):
            for block in stage.blocks:
                block.attn.windows = windows
        # What timm would build this model with.
        update_model_input_size(self, side, split_size=self.split_size if self._built_with[0] else None)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that should not decay; biases and norms are told by their shape."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group the parameters by depth."""
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether to recompute blocks in the backward pass instead of keeping their activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling before it if given."""
        self.num_classes = num_classes
        like = self.patch_embed.proj.weight
        self.head.reset(num_classes, global_pool, in_features=self.num_features, device=like.device, dtype=like.dtype)
        self.head_hidden_size = self.head.num_features
        if global_pool is not None:
            self.global_pool = global_pool

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """The maps after the stages, and the final one.

        Args:
            x: images, (N, C, B, B).
            indices: the stages wanted; the last n if an int, all if None.
            norm: whether the last stage's map is normalised as the classifier sees it.
            stop_early: whether to leave out the stages after the last one wanted.
            output_fmt: layout of the maps, NCHW.
            intermediates_only: whether to leave out the final map, (N, H, W, C).
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt is {output_fmt!r}: only NCHW is there")
        taken, last = feature_take_indices(len(self.stages), indices)
        stages = self.stages[: last + 1] if stop_early else self.stages
        intermediates = []
        x = self._embed(x)
        for i, stage in enumerate(stages):
            x = stage(x)
            is_final = i == len(self.stages) - 1
            if i in taken:
                kept = self.norm(x) if norm and is_final else x
                intermediates.append(kept.permute(0, 3, 1, 2).contiguous())
        if intermediates_only:
            return intermediates
        return self.norm(x) if is_final else x, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what `forward_intermediates` does not need for `indices`; the stages kept are returned."""
        taken: list[int]
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm or shortened:
            self.norm = nn.Identity()
        if shortened:
            self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return taken

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, C, B, B) -> tokens (N, B/32, B/32, 8 * embed_dim)."""
        x = self.norm(self.stages(self._embed(x)))
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Tokens (N, H, W, C) -> (N, num_classes), or the pooled features (N, C)."""
        x = self.head(x, pre_logits=pre_logits)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, C, B, B) -> (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        if not self.dynamic_img_size:
            _check_images(x.shape[-2], x.shape[-1], self.img_size[0])
        x = self.patch_embed(x)
        return x

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; those of the official repository are renamed, whoever asks.

        timm filters names for `pretrained=True` only, not for `checkpoint_path`.
        """
        return super().load_state_dict(checkpoint_filter_fn(state_dict, self), strict, assign)


# Sizes are symbols in a `torch.fx` trace, which cannot be compared.
@torch.fx.wrap
def _check_images(height: int, width: int, side: int) -> None:
    if (height, width) != (side, side):
        raise InputError(
            f"images are {height} x {width} but the model is set to {side} x {side}: call fit_to_bandwidth, or "
            "set_input_size, with their side first"
        )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
