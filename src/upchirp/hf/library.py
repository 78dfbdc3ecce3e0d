"""Hugging Face's transformers itself, with what its `Trainer` needs."""

from importlib import import_module
from typing import Any

from upchirp.errors import InputError


def installed() -> Any:
    """The library, if all of it is there."""
    try:
        import_module("accelerate")
        import_module("transformers.trainer_utils")
        return import_module("transformers")
    except ModuleNotFoundError as error:
        raise InputError(
            "upchirp.hf needs transformers and accelerate, which are not installed: pip install 'upchirp[transformers]'"
        ) from error


TRANSFORMERS = installed()
