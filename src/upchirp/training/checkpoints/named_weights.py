"""Trained weights by name: `timm/NAME.TAG` and `hf-hub:OWNER/NAME`, kept in the cache of the Hugging Face hub."""

import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import huggingface_hub
import timm
from huggingface_hub import constants
from timm.models import get_pretrained_cfg

from upchirp.errors import InputError, first_line

_TIMM, _HUB = "timm/", "hf-hub:"
_FILES = ("model.safetensors", "pytorch_model.bin")
_TIMEOUT = 5.0


def is_name(weights: Path) -> bool:
    """Whether weights are named, rather than a file.

    >>> is_name(Path("timm/resnet10t.c3_in1k")), is_name(Path("model.safetensors"))
    (True, False)
    """
    return weights.as_posix().startswith((_TIMM, _HUB)) and not weights.exists()


def has_tag(model: str) -> bool:
    """Whether a model's name names weights too, as in `resnet10t.c3_in1k`."""
    return "." in model


def name_of(model: str) -> Path:
    """The name of a model's weights: of its tag, or of timm's default one.

    >>> name_of("resnet10t").as_posix(), name_of("vit_tiny_patch16_224.augreg_in21k").as_posix()
    ('timm/resnet10t.c3_in1k', 'timm/vit_tiny_patch16_224.augreg_in21k')
    """
    config = timm_config(model)
    return Path(f"{_TIMM}{config.architecture}.{config.tag}")


def timm_config(name: str) -> Any:
    """The configuration by timm of the weights `NAME.TAG`, or of the default tag of `NAME`.

    Raises:
        InputError: timm has no such model, tag or weights.
    """
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        raise InputError(f"timm has no model {model!r}, and so no weights of it: name them timm/NAME.TAG")
    tags = [entry.partition(".")[2] for entry in timm.list_pretrained(f"{model}.*")]
    if not tags:
        raise InputError(f"timm has no pretrained weights of {model}: give a file by `weights`")
    if tag and tag not in tags:
        shown = ", ".join(tags[:5]) + (", ..." if len(tags) > 5 else "")
        raise InputError(f"timm has no weights {tag!r} of {model}: it has {shown}")
    return get_pretrained_cfg(name)


def timm_name(weights: Path) -> str | None:
    """`NAME.TAG` of weights that timm knows by name; None of others."""
    text = weights.as_posix()
    return text.removeprefix(_TIMM) if text.startswith(_TIMM) else None


def fetch(weights: Path, names: tuple[str, ...] = _FILES) -> Path:
    """A file of named weights, by default the one with the tensors: from the cache, else from the hub.

    Raises:
        InputError: it is in neither, or out of reach; says where it is expected.
    """
    if (name := timm_name(weights)) is not None:
        config = timm_config(name)
        if not config.hf_hub_id:
            raise InputError(
                f"{weights.as_posix()} is not on the Hugging Face hub: fetch {config.url} and give the file"
            )
        return _file(config.hf_hub_id, names, weights)
    return _file(weights.as_posix().removeprefix(_HUB), names, weights)


def _file(repository: str, names: tuple[str, ...], weights: Path) -> Path:
    repository, _, revision = repository.partition("@")
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    # The hub's own client tries for a minute before it says that there is no network.
    failure = "there is no way to the hub from here" if _is_offline() else ""
    for name in () if failure else names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision or None))
        except Exception as error:  # The client raises what its libraries raise.
            failure = first_line(error)
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    raise InputError(
        f"cannot fetch {weights.as_posix()} ({failure}): it is expected in {folder}; copy that folder from a machine "
        f"that has it, or give the file itself, {names[0]}, by `weights=FILE`"
    )


def _is_offline() -> bool:
    if constants.HF_HUB_OFFLINE:
        return True
    if urllib.request.getproxies():
        return False
    address = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=_TIMEOUT).close()
    except OSError:
        return True
    return False
