"""Trained weights into a model: its names and shapes, its classifier, its channels and its input side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models import adapt_input_conv
from torch import nn

from upchirp.errors import InputError
from upchirp.models import LARGEST_WEIGHTS_SIZE, classifier_names, fit_stored, in_classifier, size_of_weights
from upchirp.training.checkpoints.weight_names import find
from upchirp.training.checkpoints.weights import Weights

HEAD_INIT_SCALE = 0.001
"""A new classifier starts this much smaller, so that it does not disturb the features (ConvNeXt's fine-tuning)."""


class Loaded(NamedTuple):
    """What came of loading."""

    size: int
    """The input side that the weights are for, pixels."""
    left_out: tuple[str, ...]
    """Names in the file that belong to none of the model's modules, such as a loss or a projection head."""
    channels: int | None = None
    """Channels that weights for RGB images were adapted to, if they were."""

    def notes(self, path: Path) -> list[str]:
        """Lines on what was adapted and what was left out, if anything was."""
        notes = []
        if self.channels is not None:
            many = f"{self.channels} channel{'s' if self.channels > 1 else ''}"
            notes.append(f"the first layer's weights of {path} are for RGB images, and adapted to {many} as timm does")
        if self.left_out:
            named = f"{self.left_out[0]}{_more(list(self.left_out))} of {path}"
            notes.append(f"left out is what is none of the model's: {named}")
        return notes


def load_weights(model: nn.Module, weights: Weights, final_size: int, *, new_head: bool = False) -> Loaded:
    """Load weights into a model that is made for `final_size`, whatever input side they were trained at.

    Positions and the like are resized from the side that the weights are for (see `fit_stored`). The weights may lie
    in any dictionary of the file and under any common prefix (see `find`).

    Args:
        model: the model, at `final_size`.
        weights: what `read_weights` gave.
        final_size: input side of the model, pixels.
        new_head: leave the file's classifier out and start from a small new one.

    Raises:
        InputError: weights of another model, class count, or an unknown input side, or that are not finite. The model
            is as it was then.
    """
    # A model of one's own may be made for another side.
    fit_stored(model, final_size)
    own = model.state_dict()
    head = classifier_names(model) if new_head else ()
    norms = _swapped_norms(own, weights) if new_head else None
    head += norms[:1] if norms else ()
    expected = {name: tensor for name, tensor in own.items() if not in_classifier(name, head)}
    try:
        found = find(model, weights.parts, list(expected))
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from None
    tensors = _completed(model, found.tensors)
    tensors = {name: tensor for name, tensor in tensors.items() if not in_classifier(name, head)}
    _check_names(model, weights, expected, tensors)
    _check_finite(model, weights.path, tensors)
    tensors, channels = _for_channels(model, weights, expected, tensors)
    size = size_of_weights(model, {name: tensor.shape for name, tensor in tensors.items()}, final_size)
    if size is None:
        raise InputError(_shape_refusal(model, weights, expected, tensors))
    fit_stored(model, size)
    model.load_state_dict(tensors, strict=not new_head)
    fit_stored(model, final_size)
    if new_head:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if in_classifier(name, classifier_names(model)):
                    parameter.mul_(HEAD_INIT_SCALE)
    # That a classifier is left out was asked for, also by a model without one; a projection head is none. So was the
    # norm that another way of pooling has in place of the model's.
    replaced = {f"{layer}.{kind}" for layer in (*head, *(norms or ())) for kind in ("weight", "bias")}
    return Loaded(size, tuple(name for name in found.left_out if name not in replaced), channels)


def _swapped_norms(own: Mapping[str, torch.Tensor], weights: Weights) -> tuple[str, str] | None:
    """The norm before a new head, and the one of the weights that it stands for, where they lie elsewhere; else None.

    Vision transformers of timm have it after pooling or before, by how their head pools. It begins anew with the head,
    as in MAE's fine-tuning.
    """
    ends = {name for part in weights.parts.values() for name in part}
    for mine, other in (("fc_norm", "norm"), ("norm", "fc_norm")):
        has = {norm: any(name.split(".")[-2:] == [norm, "weight"] for name in ends) for norm in (mine, other)}
        if f"{mine}.weight" in own and has[other] and not has[mine]:
            return mine, other
    return None


def _completed(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without what the model works out itself, and with the counters that old files lack."""
    own = model.state_dict()
    derived = dict(model.named_buffers()).keys() - own.keys()
    counters = {name: own[name] for name in own.keys() - tensors.keys() if name.endswith("num_batches_tracked")}
    return {**{name: tensor for name, tensor in tensors.items() if name not in derived}, **counters}


def _for_channels(
    model: nn.Module, weights: Weights, expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], int | None]:
    """The tensors with the first layer's adapted to the model's channels, and their number if they were.

    Raises:
        InputError: they are for other images than RGB ones.
    """
    config: Any = getattr(model, "default_cfg", None) or {}
    first = config.get("first_conv") or ()
    adapted, channels = dict(tensors), None
    for name in (f"{layer}.weight" for layer in ((first,) if isinstance(first, str) else first)):
        if name not in tensors or name not in expected or tensors[name].ndim != 4:
            continue
        there, here = tensors[name].shape[1], expected[name].shape[1]
        if there == here:
            continue
        if there != 3:
            raise InputError(
                f"{weights.path} is for images of {there} channel{'s' if there > 1 else ''}, and `in_chans` is {here}: "
                f"give `in_chans={there}`, or weights for RGB images, which are adapted"
            )
        adapted[name] = adapt_input_conv(here, tensors[name])
        channels = here
    return adapted, channels


def _check_finite(model: nn.Module, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    # Buffers may hold infinite bounds.
    for name, _ in model.named_parameters():
        if name in tensors and not torch.isfinite(tensors[name]).all():
            raise InputError(f"{path}: {name} is not finite: its training diverged; take an earlier checkpoint")


def _check_names(
    model: nn.Module, weights: Weights, expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> None:
    missing = sorted(expected.keys() - tensors.keys())
    heads = _heads(model)
    if missing and all(in_classifier(name, heads) for name in missing):
        raise InputError(f"{weights.path} holds no classifier ({missing[0]}): `upchirp finetune` makes a new one")
    if missing and not [name for name in expected if name in tensors and not name.endswith("num_batches_tracked")]:
        largest = max(weights.parts.values(), key=len)
        named = ", ".join(sorted(largest)[:3])
        raise InputError(
            f"{weights.path} holds none of the model's names ({named}, ... in place of {missing[0]}, ...): "
            f"{weights.other_model}"
        )
    if missing:
        raise InputError(f"{weights.path} lacks {missing[0]}{_more(missing)}: {weights.other_model}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise InputError(
            f"{weights.path} holds {unknown[0]}{_more(unknown)}, unknown to the model: {weights.other_model}"
        )


def _heads(model: nn.Module) -> tuple[str, ...]:
    """The names of the classifier's layers, if the model says which they are."""
    config: Any = getattr(model, "default_cfg", None)
    return classifier_names(model) if isinstance(config, dict) and config.get("classifier") else ()


def _shape_refusal(
    model: nn.Module, weights: Weights, expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> str:
    wrong = sorted(name for name, tensor in tensors.items() if tensor.shape != expected[name].shape)
    heads = _heads(model)
    if of_head := [name for name in wrong if in_classifier(name, heads)]:
        has, needs = (tensor.shape[0] for tensor in (tensors[of_head[0]], expected[of_head[0]]))
        if has != needs:
            return (
                f"{weights.path} is for {has} classes but the data has {needs}: give data with the same classes, or "
                "`upchirp finetune` with a new head"
            )
    name = wrong[0]
    return (
        f"{weights.path}: {name} is {tuple(tensors[name].shape)} but the model needs {tuple(expected[name].shape)}"
        f"{_more(wrong, ' others differ')}: {weights.other_model}, or to an input size above {LARGEST_WEIGHTS_SIZE} px"
    )


def _more(names: list[str], what: str = " more") -> str:
    return f" and {len(names) - 1}{what}" if len(names) > 1 else ""
