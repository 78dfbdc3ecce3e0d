"""Numbers as a reader wants them."""

from collections.abc import Mapping
from typing import Any


def duration_text(seconds: float) -> str:
    """Seconds in words.

    >>> duration_text(75)
    '1 min 15 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def budget_text(budget: float) -> str:
    """A budget as a short number.

    >>> budget_text(0.6667), budget_text(1.0)
    ('0.67', '1')
    """
    return f"{round(budget, 2):g}"


def hardware_text(hardware: Mapping[str, Any]) -> str:
    """The machine, in words."""
    parts = [f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']:.0f} GiB of memory"]
    return ", ".join([*parts, hardware["accelerator"] or "no accelerator"])


def shortened(text: str, length: int = 32) -> str:
    """The text with its middle left out if it is longer than `length`.

    >>> shortened("efficienttrain_plus_plus_convnext", 20)
    'efficientt…s_convnext'
    """
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-(length // 2) :]}"
