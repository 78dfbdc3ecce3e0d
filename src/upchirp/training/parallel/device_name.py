"""Names of devices, which are checked before torch is imported."""

import re

from upchirp.errors import InputError


def check_device(name: str | None) -> None:
    """Refuse what is no device that anything here computes on; None leaves it open.

    >>> check_device("cuda:1")

    Raises:
        InputError: another name.
    """
    if name is not None and re.fullmatch(r"cpu|mps|cuda(:\d+)?", name) is None:
        raise InputError(f"`device` is {name!r}: give cpu, cuda, cuda:1 for the second of several, or mps")
