"""Lightning itself, under whichever of its two names it is there."""

import sys
from importlib import import_module
from typing import Any

from upchirp.errors import InputError


def installed() -> Any:
    """Lightning under the name by which it is imported already, or by which it is found."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(names, key=lambda name: name.partition(".")[0] not in sys.modules):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise InputError("upchirp.lightning needs Lightning, which is not installed: pip install 'upchirp[lightning]'")


LIGHTNING = installed()
