"""What a weights file, a checkpoint or a run folder says of its weights: the model and the data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from upchirp.data import DataIdentity
from upchirp.errors import InputError
from upchirp.training import checkpoint
from upchirp.training.conversion import plain


@dataclass(frozen=True, kw_only=True)
class Description:
    """What weights are of, as far as it is known.

    >>> Description.from_dict(Description(model="resnet18", final_size=64).to_dict()).model
    'resnet18'
    """

    model: str | None = None
    """The model's name, if timm makes it by a name."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for its constructor."""
    final_size: int | None = None
    """Input side that the weights are for, pixels."""
    data: DataIdentity = field(default_factory=DataIdentity)
    """What they were trained on."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, output 0 first; empty where they are not known."""
        return self.data.classes

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that make the model anew; none if no name makes it."""
        if self.model is None:
            return {}
        made: dict[str, Any] = {"model": self.model}
        if self.model_kwargs:
            made["model_kwargs"] = dict(self.model_kwargs)
        return made if self.final_size is None else {**made, "final_size": self.final_size}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` reads."""
        return {**self.settings, "data": self.data.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Description":
        """Read what `to_dict` gave, in this version or an earlier one.

        Raises:
            LookupError, TypeError: something else.
        """
        known = {name: data[name] for name in ("model", "model_kwargs", "final_size") if name in data}
        return cls(**known, data=DataIdentity.from_dict(data.get("data", {"classes": ()})))


def describe(
    model: nn.Module, name: str, model_kwargs: Mapping[str, Any], final_size: int, data: DataIdentity
) -> Description:
    """The description of a model that was made by `name`, or is a module of the user's own."""
    made: Any = getattr(model, "default_cfg", None)
    if not isinstance(made, dict) or made.get("architecture") != name.partition(".")[0]:
        return Description(data=data)
    return Description(model=name, model_kwargs=plain(model_kwargs), final_size=final_size, data=data)


def read_description(path: Path) -> Description:
    """What a weights file says of itself, or a `config.json` beside it, as timm writes one.

    Raises:
        InputError: a damaged file.
    """
    try:
        if described := checkpoint.read_description(path):
            return Description.from_dict(described)
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds a description that is not upchirp's: {error!r}") from error
    return _beside(path)


def _beside(path: Path) -> Description:
    """What `config.json` in the file's folder says."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Description()
    architecture = config.get("architecture") if isinstance(config, dict) else None
    return Description(model=architecture) if isinstance(architecture, str) else Description()
