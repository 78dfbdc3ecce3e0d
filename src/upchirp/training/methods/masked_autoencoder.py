"""A masked autoencoder (He et al., 2022) around a vision transformer of timm's: the network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from timm.layers import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from upchirp.errors import InputError
from upchirp.models import count_parameters
from upchirp.training.methods.masks import patch_order, positions
from upchirp.training.recipes.groups import DECODER_HEAD

_ENCODER = "encoder."
_POSITIONS = "pos_embed"


class Seeded(NamedTuple):
    """What the network is shown."""

    images: Tensor
    """Normalised, (N, 3, B, B)."""
    seeds: Tensor
    """One for each image, of its mask: int64, (N,)."""


class Predicted(NamedTuple):
    """What it answers."""

    patches: Tensor
    """What it takes each patch for, (N, patches, width)."""
    hidden: Tensor
    """Which patches it did not see, bool, (N, patches)."""


class MaskedAutoencoder(nn.Module):
    """Predicts what is hidden of an image from the patches that are not.

    The encoder is timm's own and computes visible patches only: a step costs a fraction of a supervised one. Its
    positions, and the decoder's, are fixed sines and cosines that are made anew for the grid of each image, so nothing
    is resized when the bandwidth changes. A model with relative or rotary positions alone keeps to those.

    Args:
        encoder: a plain or EVA-style vision transformer of timm's; it becomes part of this.
        width: numbers that are predicted of a patch.
        mask_ratio: share of the patches that is hidden.
        least_visible: patches that are seen at least, so that fewer are hidden of small images.
        decoder_depth: blocks.
        decoder_width: of their tokens, a multiple of 32.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=0)
    >>> model = MaskedAutoencoder(vit, width=12, mask_ratio=0.75, decoder_depth=1, decoder_width=32)
    >>> predicted = model(Seeded(torch.zeros(2, 3, 224, 224), torch.tensor([1, 2])))
    >>> predicted.patches.shape, predicted.hidden.sum(dim=1)
    (torch.Size([2, 196, 12]), tensor([147, 147]))
    """

    encoder: Any

    def __init__(
        self,
        encoder: nn.Module,
        *,
        width: int,
        mask_ratio: float,
        least_visible: int = 1,
        decoder_depth: int = 8,
        decoder_width: int = 512,
    ) -> None:
        super().__init__()
        check_drops_tokens(encoder)
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.least_visible = least_visible
        tokens = int(self.encoder.embed_dim)
        placed = self.encoder.pos_embed is not None
        if placed and tokens % 4:
            raise InputError(
                f"{type(encoder).__name__} has tokens {tokens} wide, and positions of sines and cosines in two "
                "directions need a multiple of 4"
            )
        self.encoder.pos_embed = None
        self.encoder.patch_drop = _Visible(
            prefix=self.encoder.num_prefix_tokens, placed=placed, tells=isinstance(encoder, Eva)
        )
        self.decoder_embed = nn.Linear(tokens, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder = nn.ModuleList(
            Block(decoder_width, decoder_width // DECODER_HEAD, qkv_bias=True) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.predict = nn.Linear(decoder_width, width)
        for module in (self.decoder_embed, self.decoder, self.predict):
            module.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def default_cfg(self) -> Any:
        """What timm says of the encoder."""
        return self.encoder.default_cfg

    @property
    def patch(self) -> int:
        """The side of a patch, pixels."""
        return patch_side(self.encoder)

    def no_weight_decay(self) -> set[str]:
        """Parameters that an optimizer leaves undecayed, as the encoder names them."""
        names: set[str] = self.encoder.no_weight_decay()
        return {f"{_ENCODER}{name}" for name in names} | {"mask_token"}

    def visible(self, patches: int) -> int:
        """How many of so many patches are seen.

        Raises:
            InputError: all of them, or none.
        """
        visible = max(int(patches * (1 - self.mask_ratio)), self.least_visible)
        if not 0 < visible < patches:
            raise InputError(
                f"{visible} of {patches} patches would be seen, so there is nothing to "
                f"{'predict' if visible else 'predict it from'}: take a larger size, smaller patches, or another "
                "`mask_ratio` or `least_visible`"
            )
        return visible

    def forward(self, shown: Seeded | Tensor) -> Predicted:
        """Predict all patches; of images alone some fixed choice is hidden, for what looks at cost and shapes."""
        if isinstance(shown, Tensor):
            shown = Seeded(shown, torch.zeros(len(shown), dtype=torch.int64, device=shown.device))
        side = shown.images.shape[-1] // self.patch
        patches = side * side
        visible = self.visible(patches)
        with torch.no_grad():
            order = patch_order(shown.seeds, patches)
            # Where each patch stands in the order.
            places = torch.argsort(order, dim=1)
        self.encoder.patch_drop.kept = order[:, :visible]
        seen = self.encoder.fc_norm(self.encoder.forward_features(shown.images))
        self.encoder.patch_drop.kept = None
        return Predicted(self._decode(seen, places, side), places >= visible)

    def _decode(self, seen: Tensor, places: Tensor, side: int) -> Tensor:
        tokens = self.decoder_embed(seen)
        prefix, width = self.encoder.num_prefix_tokens, tokens.shape[-1]
        ahead, visible = tokens[:, :prefix], tokens[:, prefix:]
        masked = self.mask_token.to(tokens.dtype).expand(len(tokens), places.shape[1] - visible.shape[1], -1)
        patches = torch.cat([visible, masked], dim=1).gather(1, places[:, :, None].expand(-1, -1, width))
        patches = patches + positions(side, width, device=tokens.device).to(tokens.dtype)
        tokens = torch.cat([ahead, patches], dim=1)
        for block in self.decoder:
            tokens = block(tokens)
        predicted: Tensor = self.predict(self.decoder_norm(tokens[:, prefix:]))
        # A copy, which the loss would make of half precision anyway: FSDP2 warns of views.
        return predicted.to(torch.float32, copy=True)

    def exported(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's tensors under timm's names, with the positions of its size now, as plain timm loads them."""
        own = {name.removeprefix(_ENCODER): value for name, value in tensors.items() if name.startswith(_ENCODER)}
        if not self.encoder.patch_drop.placed:
            return own
        table = positions(self.encoder.patch_embed.grid_size[0], self.encoder.embed_dim)
        ahead = 0 if self.encoder.no_embed_class else self.encoder.num_prefix_tokens
        return {**own, _POSITIONS: torch.cat([table.new_zeros(ahead, table.shape[1]), table])[None]}


class _Visible(nn.Module):
    """Stands where timm drops patches at random: adds positions, and lets through the tokens that are to be seen."""

    def __init__(self, *, prefix: int, placed: bool, tells: bool) -> None:
        super().__init__()
        self.prefix = prefix
        """Tokens before the patches, which always are seen."""
        self.placed = placed
        """Whether tokens have positions of their own."""
        self.tells = tells
        """Whether the model asks which patches were kept."""
        self.kept: Tensor | None = None

    def forward(self, tokens: Tensor) -> Any:
        ahead, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        if self.placed:
            side = round(patches.shape[1] ** 0.5)
            patches = patches + positions(side, patches.shape[2], device=patches.device).to(patches.dtype)
        if self.kept is not None:
            patches = patches.gather(1, self.kept[:, :, None].expand(-1, -1, patches.shape[2]))
        seen = torch.cat([ahead, patches], dim=1)
        return (seen, self.kept) if self.tells else seen


def decoder_note(model: nn.Module) -> str | None:
    """What to tell of a decoder that outweighs its encoder, as the published one does in a small model; else None.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
    >>> decoder_note(MaskedAutoencoder(vit, width=12, mask_ratio=0.75, decoder_depth=1)).partition(", so that")[0]
    'the decoder, 1 block of width 512, has 3.3 M parameters and the encoder 0.6 M'
    """
    if not isinstance(model, MaskedAutoencoder):
        return None
    encoder = count_parameters(model.encoder)
    decoder = count_parameters(model) - encoder
    if decoder <= encoder:
        return None
    depth, width = len(model.decoder), model.mask_token.shape[-1]
    narrower = max(model.encoder.embed_dim // DECODER_HEAD, 1) * DECODER_HEAD
    advice = f"`decoder_width={narrower}`" if narrower < width else "a smaller `decoder_depth`"
    return (
        f"the decoder, {depth} block{'' if depth == 1 else 's'} of width {width}, has {decoder / 1e6:.1f} M parameters "
        f"and the encoder {encoder / 1e6:.1f} M, so that most of a step goes into what is not exported: "
        f"8 blocks of 512 are published for ViT-B and larger, try {advice}"
    )


def initialise(module: nn.Module) -> None:
    """Start a layer as MAE does: weights of the linear ones uniform by Xavier's rule, without biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_drops_tokens(model: nn.Module) -> None:
    """Refuse a model whose tokens cannot be left out one by one."""
    known = isinstance(model, VisionTransformer | Eva) and not isinstance(model, VisionTransformerDistilled)
    # Patches of a network of convolutions see into their neighbours.
    if not known or not isinstance(model.patch_embed, PatchEmbed):
        raise InputError(
            f"{type(model).__name__} cannot drop tokens, as hiding patches asks: take a plain or EVA-style vision "
            "transformer, such as vit_small_patch16_224 or eva02_small_patch14_224"
        )


def patch_side(encoder: Any) -> int:
    """The side of a vision transformer's patches, pixels."""
    return int(encoder.patch_embed.patch_size[0])
