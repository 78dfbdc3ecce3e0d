"""Trained weights from disk into a model: upchirp's own, timm's, or a plain file of tensors."""

import argparse
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import nn

from upchirp.data import same_classes
from upchirp.errors import InputError
from upchirp.models import LARGEST_WEIGHTS_SIZE, classifier_names, fit_stored, in_classifier, size_of_weights
from upchirp.training.checkpoints import checkpoint, named_weights
from upchirp.training.checkpoints.description import Description, read_description
from upchirp.training.checkpoints.weight_names import find, is_average, parts

Which = Literal["average", "raw"]
"""The average of weights, or what it is an average of."""

HEAD_INIT_SCALE = 0.001
"""A new classifier starts this much smaller, so that it does not disturb the features (ConvNeXt's fine-tuning)."""

_READ_ERRORS = (
    AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError,
    zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip
"""What torch and timm raise on files that hold no tensors by name."""


_NO_WEIGHTS = "{} holds no weights: expected tensors by name, as torch.save(model.state_dict(), FILE) writes them"


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name, from one file."""

    path: Path
    """The file."""
    parts: Mapping[str, Mapping[str, torch.Tensor]]
    """All its dictionaries of tensors, by the path to them; of averages and what they are averages of, both."""
    description: Description = field(default_factory=Description)
    """What the file says they are of."""

    def check_head(self, classes: Sequence[str]) -> None:
        """Refuse a classifier for other classes than those of the data, as far as both have names.

        Raises:
            InputError: naming some of them.
        """
        own = self.description.classes
        if len(own) == len(classes) and not same_classes(own, classes):
            first = next(index for index, name in enumerate(own) if name != classes[index])
            raise InputError(
                f"{self.path} is for other classes than the data has (class {first} is {own[first]} there and "
                f"{classes[first]} here): give data with the same classes, or `upchirp finetune` with a new head"
            )

    def only(self, which: Which) -> "Weights":
        """The averages alone, or what they are averages of alone.

        Raises:
            InputError: the file has none of them.
        """
        # Exported weights say by the file's name what they are.
        average = {path: is_average(f"{self.path.stem}.{path}") for path in self.parts}
        kept = {path: tensors for path, tensors in self.parts.items() if average[path] == (which == "average")}
        if not kept:
            other = "raw weights" if which == "average" else "an average"
            raise InputError(f"{self.path} holds {other} only: leave out `which`, or give another file")
        return replace(self, parts=kept)

    @property
    def other_model(self) -> str:
        """What a refusal says of the model that they belong to."""
        model = self.description.model
        return f"it belongs to another model{f', {model}' if model else ''}"


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


def read_weights(path: Path) -> Weights:
    """Read `.safetensors`, an upchirp checkpoint (its average if it holds one), or a file that timm or torch saved.

    `timm/NAME.TAG` and `hf-hub:OWNER/NAME` name weights on the Hugging Face hub, which are downloaded once.

    Nothing in the file is executed: only tensors and plain values are read.

    Raises:
        InputError: a missing, damaged or foreign file.
    """
    if named_weights.is_name(path):
        fetched = read_weights(named_weights.fetch(path))
        return Weights(path, fetched.parts, read_description(path))
    if not path.is_file():
        raise InputError(f"cannot read the weights {path}: there is no such file")
    described = read_description(path)
    try:
        if checkpoint.is_checkpoint(path):
            content: Any = checkpoint.load(path)
            if checkpoint.PARTS in content:
                raise InputError(f"{path} holds its weights in parts: give the .safetensors file of its run")
            if not isinstance(content.get("state"), dict):
                raise InputError(f"{path} holds no training state: give a checkpoint of upchirp or a .safetensors file")
        elif path.suffix == ".safetensors":
            content = load_file(path)
        else:
            # Training scripts keep their arguments in their checkpoints.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(_objects_refusal(path)) from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {path}: {error}") from error
    except _READ_ERRORS as error:
        raise InputError(_NO_WEIGHTS.format(path)) from error
    if isinstance(content, dict) and isinstance(own := content.get("described"), dict):
        # One of our checkpoints, perhaps under another name.
        described = Description.from_dict(own)
    dictionaries = parts(content)
    if not dictionaries:
        raise InputError(_NO_WEIGHTS.format(path))
    return Weights(path, dictionaries, described)


def _objects_refusal(path: Path) -> str:
    """What is said of a file that holds more than tensors and plain values."""
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except _READ_ERRORS:
        # Not even a list of what it asks for can be had.
        return _NO_WEIGHTS.format(path)
    # The model's own class says more than its layers'.
    classes = sorted(needed, key=lambda name: (name.startswith(("torch.", "builtins.")), ".layers." in name, name))
    listed = f" ({', '.join(classes[:2])}{', ...' if len(classes) > 2 else ''})" if classes else ""
    return (
        f"{path} holds Python objects{listed}, such as a whole model, and loading them would run code: if you trust "
        "it, save the weights alone where it was made, torch.save(model.state_dict(), FILE)"
    )


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
    head += _new_norms(own, weights) if new_head else ()
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
    return Loaded(size, found.left_out, channels)


def _new_norms(own: Mapping[str, torch.Tensor], weights: Weights) -> tuple[str, ...]:
    """The norm before a new head where the model has it after pooling and the weights before, or the other way round.

    Vision transformers of timm do so by how their head pools. It begins anew with the head, as in MAE's fine-tuning.
    """
    ends = {name for part in weights.parts.values() for name in part}
    for mine, other in (("fc_norm", "norm"), ("norm", "fc_norm")):
        has = {norm: any(name.split(".")[-2:] == [norm, "weight"] for name in ends) for norm in (mine, other)}
        if f"{mine}.weight" in own and has[other] and not has[mine]:
            return (mine,)
    return ()


def _completed(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without what the model works out itself, and with the counters that old files lack."""
    own = model.state_dict()
    derived = dict(model.named_buffers()).keys() - own.keys()
    counters = {name: own[name] for name in own.keys() - tensors.keys() if name.endswith("num_batches_tracked")}
    return {**{name: tensor for name, tensor in tensors.items() if name not in derived}, **counters}


def _for_channels(
    model: nn.Module,
    weights: Weights,
    expected: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
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
