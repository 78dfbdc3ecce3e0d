"""The YAML file that holds settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from upchirp.errors import InputError
from upchirp.files import read_yaml, write_text
from upchirp.training.recipes.recipe import OWN

CONFIG = "config.yaml"
"""Where a run folder keeps its settings."""


def load_config(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, by their flag names.

    Raises:
        InputError: an unreadable file, or one that is not a mapping.
    """
    data = read_yaml(path, "config")
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected lines of `name: value`, found {type(data).__name__}")
    return data


SETTINGS_OF_BEFORE: Mapping[str, Any] = {"layer_groups": None, "model_ema_warmup": None}
"""What runs did, by the settings' names, before there were these settings; a stored run lacks them."""

_ONCE_WRITTEN_OUT: Mapping[str, Any] = {"opt_betas": [0.9, 0.999], "opt_eps": 1e-8}


def load_stored(path: Path) -> dict[str, Any]:
    """The settings that a run, a search or a comparison stored: all of them, those too that it was begun without."""
    stored = load_config(path)
    if "layer_groups" not in stored and stored.get("mode") == "fast":
        stored["mode"] = "fast_lanczos"
    if "opt_kwargs" not in stored and stored.get("opt", OWN[0]) in OWN:
        # The optimizer's own values were written out.
        stored |= {name: None for name, value in _ONCE_WRITTEN_OUT.items() if stored.get(name) == value}
    return {**SETTINGS_OF_BEFORE, **stored}


def save_config(settings: Mapping[str, Any], path: Path) -> None:
    """Write settings by their flag names; `upchirp train` reads them by its flag for files."""
    write_text(path, yaml.safe_dump(dict(settings), sort_keys=False))
