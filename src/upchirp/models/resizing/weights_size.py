"""The input size that stored weights are for, and a model that is brought to it."""

from collections.abc import Mapping

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.meta import meta_copy, unwrap
from upchirp.models.resizing.families import apply_fits, plan_fits
from upchirp.models.resizing.sizes import size_multiple

LARGEST_WEIGHTS_SIZE = 1024
"""Weights are looked at as made for an input side up to this, pixels."""


def size_of_weights(model: nn.Module, shapes: Mapping[str, torch.Size], current: int) -> int | None:
    """The input side at which tensors of these shapes fit `model`; `current` if that is one, None if there is none.

    Args:
        model: made for images of side `current`.
        shapes: shapes of parameters and buffers, by name.
        current: pixels.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", final_size=96, depth=1, embed_dim=24)
    >>> size_of_weights(vit, {"pos_embed": torch.Size((1, 1 + 14 * 14, 24))}, 96)
    224
    """
    twin = meta_copy(unwrap(model))
    wrong = {name for name, tensor in twin.state_dict().items() if name in shapes and tensor.shape != shapes[name]}
    if not wrong:
        return current
    before = {name: twin.get_parameter(name).shape for name in wrong & dict(twin.named_parameters()).keys()}
    multiple = size_multiple(twin)
    for size in range(multiple, LARGEST_WEIGHTS_SIZE + 1, multiple):
        try:
            fit_stored(twin, size)
        except InputError:
            continue
        own = twin.state_dict()
        if all(own[name].shape == shapes[name] for name in wrong):
            return size
        if size != current and any(name not in before or own[name].shape == before[name] for name in wrong):
            # What the side does not change, no other side will fit.
            return None
    return None


def fit_stored(model: nn.Module, size: int) -> None:
    """Bring what `model` stores to an input side, so that weights for that side can be loaded into it.

    Positions that the model interpolates in each forward (timm's `dynamic_img_size`), and that a change of bandwidth
    therefore leaves alone, are resized too: weights hold them for one side.

    Raises:
        InputError: the model cannot take the size.
    """
    interpolating = [module for module in model.modules() if getattr(module, "dynamic_img_size", False)]
    for module in interpolating:
        module.dynamic_img_size = False  # type: ignore[assignment]
    try:
        apply_fits(plan_fits(model, size))
    finally:
        for module in interpolating:
            module.dynamic_img_size = True  # type: ignore[assignment]
