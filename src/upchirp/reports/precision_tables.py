"""How well each class is told where images have several, as texts for a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST = 1000
"""Classes that a page can hold."""


@dataclass(frozen=True, kw_only=True)
class PrecisionRow:
    """A class as texts."""

    name: str
    precision: str
    images: str


def precision_rows(by_class: Iterable[Mapping[str, Any]]) -> Sequence[PrecisionRow]:
    """Classes by their average precision, the worst first and those without images last; a thousand at most.

    Args:
        by_class: of each `class` its `images` and its `average_precision` in percent, none if it has no images.

    >>> precision_rows([{"class": "cat", "images": 2, "average_precision": 51.26}])
    [PrecisionRow(name='cat', precision='51.3', images='2')]
    """
    ordered = sorted(by_class, key=lambda row: (not row["images"], row["average_precision"] or 0.0, row["class"]))
    return [
        PrecisionRow(
            name=row["class"],
            precision=f"{row['average_precision']:.1f}" if row["images"] else "–",
            images=f"{row['images']:,}",
        )
        for row in ordered[:_MOST]
    ]
