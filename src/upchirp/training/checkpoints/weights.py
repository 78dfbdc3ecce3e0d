"""Trained weights from disk: upchirp's own, timm's, or a plain file of tensors."""

import argparse
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from upchirp.data import same_classes
from upchirp.errors import InputError, reason_of
from upchirp.training.checkpoints import checkpoint, named_weights
from upchirp.training.checkpoints.description import Description, check_file, read_description
from upchirp.training.checkpoints.weight_names import is_average, parts

Which = Literal["average", "raw"]
"""The average of weights, or what it is an average of."""

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
    check_file(path)
    described, content = read_description(path), _content(path)
    if isinstance(content, dict) and isinstance(own := content.get("described"), dict):
        # One of our checkpoints, perhaps under another name.
        described = Description.from_dict(own)
    dictionaries = parts(content)
    if not dictionaries:
        raise InputError(_NO_WEIGHTS.format(path))
    return Weights(path, dictionaries, described)


def _content(path: Path) -> Any:
    """What is in a file of any of these kinds."""
    try:
        if checkpoint.is_checkpoint(path):
            return _of_checkpoint(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training scripts keep their arguments in their checkpoints.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(_objects_refusal(path)) from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {path}: {reason_of(error, path)}") from error
    except _READ_ERRORS as error:
        raise InputError(_NO_WEIGHTS.format(path)) from error


def _of_checkpoint(path: Path) -> Mapping[str, Any]:
    content = checkpoint.load(path)
    if checkpoint.PARTS in content:
        raise InputError(f"{path} holds its weights in parts: give the .safetensors file of its run")
    if not isinstance(content.get("state"), dict):
        raise InputError(f"{path} holds no training state: give a checkpoint of upchirp or a .safetensors file")
    return content


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
