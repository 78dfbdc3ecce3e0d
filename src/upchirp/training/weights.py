"""Trained weights from disk into a model: upchirp's own, timm's, or a plain file of tensors."""

import contextlib
import inspect
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors import SafetensorError
from torch import nn

from upchirp.data import same_classes
from upchirp.errors import InputError
from upchirp.models import LARGEST_WEIGHTS_SIZE, classifier_names, fit_stored, in_classifier, size_of_weights
from upchirp.models.meta import meta_copy
from upchirp.training import checkpoint, named_weights
from upchirp.training.description import Description, read_description

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
    tensors: dict[str, torch.Tensor]
    """Parameters and buffers."""
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

    @property
    def other_model(self) -> str:
        """What a refusal says of the model that they belong to."""
        model = self.description.model
        return f"it belongs to another model{f', {model}' if model else ''}"


def read_weights(path: Path) -> Weights:
    """Read `.safetensors`, an upchirp checkpoint (its average if it holds one), or a file that timm or torch saved.

    `timm/NAME.TAG` and `hf-hub:OWNER/NAME` name weights on the Hugging Face hub, which are downloaded once.

    Nothing in the file is executed: only tensors and plain values are read.

    Raises:
        InputError: a missing, damaged or foreign file.
    """
    if named_weights.is_name(path):
        fetched = read_weights(named_weights.fetch(path))
        return Weights(path, fetched.tensors, read_description(path))
    if not path.is_file():
        raise InputError(f"cannot read the weights {path}: there is no such file")
    try:
        if checkpoint.is_checkpoint(path):
            content = checkpoint.load(path)
            if checkpoint.SHARDS in content:
                raise InputError(f"{path} holds its weights in parts: give the .safetensors file of its run")
            state = content.get("state")
            if not isinstance(state, dict):
                raise InputError(f"{path} holds no training state: give a checkpoint of upchirp or a .safetensors file")
            return Weights(path, state["ema"] or state["model"], Description.from_dict(content.get("described", {})))
        # timm looks into the dictionaries that its own and other training scripts wrap weights in.
        tensors = timm.models.load_state_dict(str(path), use_ema=True, weights_only=True)
    except InputError:
        raise
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {path}: {error}") from error
    except _READ_ERRORS as error:
        raise InputError(_NO_WEIGHTS.format(path)) from error
    state = tensors.get("state")
    if isinstance(state, dict) and "model" in state:
        # One of our checkpoints under another name, without its checksum.
        return Weights(path, state["ema"] or state["model"], Description.from_dict(tensors.get("described", {})))
    if not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise InputError(_NO_WEIGHTS.format(path))
    return Weights(path, tensors, read_description(path))


def load_weights(model: nn.Module, weights: Weights, final_size: int, *, new_head: bool = False) -> int:
    """Load weights into a model that is made for `final_size`, whatever input side they were trained at.

    Positions and the like are resized from the side that the weights are for (see `fit_stored`). Files that use
    other names, as the authors of a model published them, are translated by timm's own filter for that model.

    Args:
        model: the model, at `final_size`.
        weights: what `read_weights` gave.
        final_size: input side of the model, pixels.
        new_head: leave the file's classifier out and start from a small new one.

    Returns:
        The input side that the weights are for.

    Raises:
        InputError: weights of another model, class count, or an unknown input side. The model is as it was then.
    """
    # A model of one's own may be made for another side.
    fit_stored(model, final_size)
    tensors = _translated(model, weights.tensors)
    own = model.state_dict()
    head = classifier_names(model) if new_head else ()
    tensors = {name: tensor for name, tensor in tensors.items() if not in_classifier(name, head)}
    expected = {name: tensor for name, tensor in own.items() if not in_classifier(name, head)}
    _check_names(weights, expected, tensors)
    size = size_of_weights(model, {name: tensor.shape for name, tensor in tensors.items()}, final_size)
    if size is None:
        raise InputError(_shape_refusal(model, weights, expected, tensors))
    fit_stored(model, size)
    model.load_state_dict(tensors, strict=not new_head)
    fit_stored(model, final_size)
    if new_head:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if in_classifier(name, head):
                    parameter.mul_(HEAD_INIT_SCALE)
    return size


def check_start(weights: Path | None, *, regime: str, keep_head: bool) -> None:
    """Refuse a training that should start from weights and has none.

    Raises:
        InputError: naming the flag that is missing.
    """
    if weights is not None:
        return
    if regime in ("finetune", "fixres"):
        raise InputError(
            f"the regime {regime} starts from trained weights: name the file by --weights, or give --pretrained for "
            "timm's own"
        )
    if keep_head:
        raise InputError("there is no classifier to keep: name the weights to start from by --weights")


def _translated(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the model's names, where timm knows the names that they have."""
    plain = dict(tensors)
    for prefix in ("_orig_mod.", "model."):
        if all(name.startswith(prefix) for name in plain):
            plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    own = model.state_dict()
    translate = getattr(inspect.getmodule(type(model)), "checkpoint_filter_fn", None)
    if translate is not None and own.keys() - plain.keys():
        try:
            translated = dict(translate(dict(plain), _at_published_size(model)))
        except (LookupError, RuntimeError, ValueError, TypeError, AttributeError):
            translated = plain
        if len(own.keys() & translated.keys()) > len(own.keys() & plain.keys()):
            plain = translated
    # Buffers that a model works out itself are in older files; counters of batch norm are missing in the oldest.
    derived = dict(model.named_buffers()).keys() - own.keys()
    counters = {name: own[name] for name in own.keys() - plain.keys() if name.endswith("num_batches_tracked")}
    return {**{name: tensor for name, tensor in plain.items() if name not in derived}, **counters}


def _at_published_size(model: nn.Module) -> nn.Module:
    """A copy without values at the side that published weights are for, so that a filter resizes nothing."""
    twin = meta_copy(model)
    config: Any = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and config.get("input_size"):
        with contextlib.suppress(InputError):
            fit_stored(twin, int(config["input_size"][-1]))
    return twin


def _check_names(weights: Weights, expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError(f"{weights.path} lacks {missing[0]}{_more(missing)}: {weights.other_model}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise InputError(
            f"{weights.path} holds {unknown[0]}{_more(unknown)}, unknown to the model: {weights.other_model}"
        )


def _shape_refusal(
    model: nn.Module, weights: Weights, expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> str:
    wrong = sorted(name for name, tensor in tensors.items() if tensor.shape != expected[name].shape)
    config: Any = getattr(model, "default_cfg", None)
    heads = classifier_names(model) if isinstance(config, dict) and config.get("classifier") else ()
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
