"""The description of weights in a file, a checkpoint or a run folder: the model, the data, the preprocessing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upchirp.data import DataIdentity
from upchirp.errors import InputError
from upchirp.training.checkpoints import checkpoint, named_weights
from upchirp.training.checkpoints.preprocessing import Preprocessing

_SET_OTHERWISE = {"img_size", "num_classes", "in_chans", "drop_rate", "drop_path_rate"}
"""Arguments of timm's constructors that follow from other settings, or are for training only."""

PROBLEM_TYPE = "multi_label_classification"
"""What transformers calls it in a `config.json`."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What weights are of, as far as it is known.

    >>> Description.from_dict(Description(model="resnet18", final_size=64).to_dict()).model
    'resnet18'
    """

    model: str | None = None
    """The model's name, if timm makes it by a name."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    in_chans: int = 3
    """Channels of the images."""
    final_size: int | None = None
    """Input side that the weights are for, pixels."""
    data: DataIdentity = field(default_factory=DataIdentity)
    """What they were trained on."""
    multi_label: bool = False
    """Whether each class is told by itself, so that an image may have several."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

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
        if self.in_chans != 3:
            made["in_chans"] = self.in_chans
        return made if self.final_size is None else {**made, "final_size": self.final_size}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` reads."""
        kind = {"multi_label": True} if self.multi_label else {}
        data, preprocessing = self.data.to_dict(), self.preprocessing.to_dict()
        return {**self.settings, **kind, "data": data, "preprocessing": preprocessing}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Description":
        """Read what `to_dict` gave, in this version or an earlier one.

        Raises:
            LookupError, TypeError: something else.
        """
        known = {
            name: data[name]
            for name in ("model", "model_kwargs", "in_chans", "final_size", "multi_label")
            if name in data
        }
        return cls(
            **known,
            data=DataIdentity.from_dict(data.get("data", {"classes": ()})),
            preprocessing=Preprocessing.from_dict(data.get("preprocessing", {})),
        )

    @classmethod
    def of_timm(cls, config: Mapping[str, Any]) -> "Description":
        """Read a `config.json` as timm writes it; nothing of one that is not timm's."""
        architecture = config.get("architecture")
        if not isinstance(architecture, str):
            return cls()
        # Older ones have everything at the top.
        inner = config.get("pretrained_cfg", config)
        preprocessing = Preprocessing.of_timm(inner)
        names = config.get("label_names") or inner.get("label_names") or ()
        arguments = config.get("model_args") or {}
        return cls(
            model=architecture,
            model_kwargs={name: value for name, value in arguments.items() if name not in _SET_OTHERWISE},
            in_chans=_channels(inner.get("input_size"), arguments),
            final_size=preprocessing.input_size,
            data=DataIdentity(classes=tuple(map(str, names)) if isinstance(names, list | tuple) else ()),
            multi_label=config.get("problem_type") == PROBLEM_TYPE,
            preprocessing=preprocessing,
        )


def _channels(size: Any, arguments: Mapping[str, Any]) -> int:
    """Channels of the images that timm's configuration tells of."""
    told = arguments.get("in_chans", size[0] if isinstance(size, list | tuple) and len(size) == 3 else 3)
    return told if isinstance(told, int) else 3


def read_description(path: Path) -> Description:
    """What a weights file says of itself, or a `config.json` beside it, as timm writes one, or timm of a name.

    Raises:
        InputError: a damaged file, or an unknown name.
    """
    if named_weights.is_name(path):
        name = named_weights.timm_name(path)
        if name is None:
            return _beside(named_weights.fetch(path, ("config.json",)))
        return Description.of_timm(named_weights.timm_config(name).to_dict())
    try:
        if described := checkpoint.stored_description(path):
            return Description.from_dict(described)
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds a description that is not upchirp's: {error!r}") from error
    return _beside(path)


_IN_FOLDERS = ("model_ema.safetensors", "model.safetensors")
"""What a run, or an export, calls its weights; the average goes first."""


def check_file(path: Path) -> None:
    """Refuse weights that are no file: a run's folder is told by the weights in it.

    Raises:
        InputError: naming the file to give instead, if there is one.
    """
    if path.is_dir():
        exported = [path / name for name in _IN_FOLDERS if (path / name).is_file()]
        inside = [*exported, *reversed(list(checkpoint.checkpoints(path / "checkpoints")))]
        wanted = f"the weights in it, {inside[0]}" if inside else "a file of weights"
        raise InputError(f"{path} is a folder: give {wanted}")
    if not path.is_file():
        raise InputError(f"cannot read the weights {path}: there is no such file")


def preprocessing_for(described: Description, model: str | None) -> Preprocessing:
    """How images are prepared for described weights: as they say, else as the tag of `model` says.

    Raises:
        InputError: an unknown tag.
    """
    told = described.preprocessing
    if told == Preprocessing() and model is not None and named_weights.has_tag(model):
        return Preprocessing.of_timm(named_weights.timm_config(model).to_dict())
    return told


def _beside(path: Path) -> Description:
    """What `config.json` in the file's folder says."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Description()
    try:
        return Description.of_timm(config) if isinstance(config, dict) else Description()
    except (LookupError, TypeError, ValueError, AttributeError):
        # Another program's file by the same name.
        return Description()
