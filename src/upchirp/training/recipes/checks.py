"""Checks of single settings."""

import re
from collections.abc import Mapping
from typing import Any

from upchirp.errors import InputError


def at_least(least: int, **values: float | None) -> None:
    """Refuse what is less than a setting may be; None is left open."""
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"`{name}` is {value}: it must be {least} or more")


def check_least(settings: object, least: int, *names: str) -> None:
    """The same for settings of an object, by their names."""
    at_least(least, **{name: getattr(settings, name) for name in names})


def check_seed(seed: int) -> None:
    """Refuse what torch takes for no seed: more than 64 bits."""
    if not -(1 << 63) <= seed < 1 << 64:
        raise InputError(f"`seed` is {seed}: give a whole number from 0 to {(1 << 64) - 1}")


def check_model_kwargs(options: Mapping[str, Any]) -> None:
    """Refuse constructor arguments that settings of their own decide."""
    instead = {
        "num_classes": "it follows from the data",
        "in_chans": "use `in_chans`",
        "final_size": "use `final_size`",
        "img_size": "use `final_size`",
        "drop": "use `drop`",
        "drop_rate": "use `drop`",
        "drop_path": "use `drop_path`",
        "drop_path_rate": "use `drop_path`",
        "checkpoint_path": "use `weights`",
        "pretrained": "use `pretrained`",
        "pretrained_cfg": "use `weights`",
        "pretrained_cfg_overlay": "use `weights`",
        "cache_dir": "set HF_HOME in the environment",
    }
    for name in options:
        if name in instead:
            raise InputError(f"`model_kwargs` cannot set {name}: {instead[name]}")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `45m`, `2h` or `1h30m`.

    >>> parse_duration("1h30m")
    5400.0

    Raises:
        InputError: another form, or nothing at all.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if match is None or not any(match.groups()):
        raise InputError(f"`time_budget` is {text!r}, which is not understood: write it like 90s, 45m, 2h or 1h30m")
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise InputError(f"`time_budget` is {text!r}, no time at all: give more than 0 seconds")
    return total
