"""The outputs of a model: found out before training, on two images and a copy without values."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.meta import bare_copy, meta_copy, unwrap
from upchirp.models.resizing.families import apply_fits, plan_fits
from upchirp.models.resizing.sizes import model_name
from upchirp.models.structure import known_of


def check_given_model(model: nn.Module) -> None:
    """Raise `InputError` if what is to be trained is no module, or has parameters that no optimizer can train."""
    _check_kind(model)
    if any(parameter.dtype == torch.float16 for parameter in model.parameters()):
        raise InputError(
            f"{model_name(model)} has parameters in float16, in which steps are lost: give `model.float()`, of which "
            "`amp` computes in 16 bits"
        )


def _check_kind(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is {model!r}, no torch.nn.Module: give a module, or a name of timm's in the configuration"
        )


def check_outputs(
    model: nn.Module, size: int, classes: int | None = None, channels: int = 3, *, exactly: bool = False
) -> None:
    """Raise `InputError` if `model` does not map images (N, channels, H, W) to a tensor of (N, classes) that trains it.

    The model is not touched. One that does not take images of the side is left to `check_sizes`.

    Args:
        model: any module.
        size: side of the images, pixels.
        classes: how many outputs are needed; more are allowed.
        channels: of the images.
        exactly: no more are allowed either.

    Raises:
        InputError: says what the model returns or takes instead, and what to do.

    >>> check_outputs(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 32, classes=10)
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: Sequential has 8 outputs for 10 classes: make it with num_classes=10
    """
    _check_kind(model)
    model = unwrap(model)
    name = model_name(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{name} has nothing to train: no parameter requires a gradient")
    known, asked = known_of(model), ("outputs", size, classes, channels, exactly)
    if asked in known:
        return
    by_structure = True
    for training in (True, False):
        outputs = _outputs(model, size, channels, training=training)
        if outputs is None:
            _check_channels(model, name, channels)
            return
        check_given(name, outputs, 2, classes, exactly=exactly, training=training)
        if training and not outputs.requires_grad:
            raise InputError(
                f"{name} has nothing to train: its outputs depend on no parameter that requires a gradient"
            )
        by_structure = by_structure and outputs.is_meta
    if by_structure:
        known[asked] = True


def check_given(
    name: str, outputs: Any, images: int, classes: int | None, *, exactly: bool = False, training: bool = False
) -> None:
    """Raise `InputError` if what a model gave for some images is no tensor of (images, classes).

    Args:
        name: of the model.
        outputs: what it gave.
        images: how many were shown.
        classes: how many outputs are needed; more are allowed.
        exactly: no more are allowed either.
        training: whether the model was in training mode.

    Raises:
        InputError: says what was given instead, and what to do.
    """
    mode = "in training" if training else "in evaluation"
    if not isinstance(outputs, torch.Tensor):
        raise InputError(
            f"{name} returns {_kind(outputs)} {mode}, not a tensor of (images, classes): {_advice(outputs)}"
        )
    if outputs.ndim != 2:
        raise InputError(
            f"{name} returns a tensor of shape {tuple(outputs.shape)} for {images} images {mode}: it must be one of "
            "(images, classes)"
        )
    if classes is not None and (outputs.shape[1] < classes or (exactly and outputs.shape[1] > classes)):
        raise InputError(
            f"{name} has {outputs.shape[1]} outputs for {classes} classes: make it with num_classes={classes}"
        )


def _outputs(model: nn.Module, size: int, channels: int, *, training: bool) -> Any:
    """What a copy returns for two images; None if it does not take them."""
    for copied, device in ((meta_copy, "meta"), (bare_copy, "cpu")):
        try:
            # Two images, as batch norm refuses to train on one value per channel.
            with torch.random.fork_rng(devices=[]), torch.device(device):
                twin = copied(model).to(device)
                apply_fits(plan_fits(twin, size))
                return twin.train(training)(torch.zeros(2, channels, size, size))
        except Exception:
            # Whatever a model of one's own raises without values, it may still run with them.
            continue
    return None


def _check_channels(model: nn.Module, name: str, channels: int) -> None:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        taken = first.in_channels
        raise InputError(
            f"{name} takes images of {taken} channel{'s' if taken > 1 else ''}, here they have {channels}: "
            f"give `in_chans={taken}`, or make the model for {channels}"
        )


def _kind(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, list | tuple) and kind in ("list", "tuple"):
        return f"a {kind} of {len(outputs)}"
    return f"a {kind}"


def _advice(outputs: Any) -> str:
    if (isinstance(outputs, Mapping) and "logits" in outputs) or hasattr(outputs, "logits"):
        more = " (torchvision's take aux_logits=False)" if hasattr(outputs, "aux_logits1") else ""
        taken = ".logits" if hasattr(outputs, "logits") else '["logits"]'
        return f"wrap it in a module whose forward returns model(images){taken}{more}"
    if isinstance(outputs, list):
        return "make it without features_only, or wrap it in a module that returns the logits alone"
    return "wrap it in a module whose forward returns the logits alone"
