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
    best_f1: str
    threshold: str
    images: str


def precision_rows(by_class: Iterable[Mapping[str, Any]]) -> Sequence[PrecisionRow]:
    """Classes by their average precision, the worst first and those without images last; a thousand at most.

    Args:
        by_class: of each `class` its `images`, its `average_precision` and its `best_f1` in percent and the `threshold`
            of that; none if it has no images.

    >>> made = {"class": "cat", "images": 2, "average_precision": 51.26, "best_f1": 66.6, "threshold": 0.25}
    >>> precision_rows([made])
    [PrecisionRow(name='cat', precision='51.3', best_f1='66.6', threshold='0.250', images='2')]
    """
    ordered = sorted(by_class, key=lambda row: (not row["images"], row["average_precision"] or 0.0, row["class"]))
    return [
        PrecisionRow(
            name=row["class"],
            precision=f"{row['average_precision']:.1f}" if row["images"] else "–",
            best_f1=f"{row['best_f1']:.1f}" if row["images"] else "–",
            threshold=f"{row['threshold']:.3f}" if row["images"] else "–",
            images=f"{row['images']:,}",
        )
        for row in ordered[:_MOST]
    ]
