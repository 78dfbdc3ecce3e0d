"""Schedules of a search's report: phases as shares of the compute, and what using them costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule of bandwidths, whatever its own axis is."""

    name: str
    """What it is called."""
    shares: tuple[tuple[int, float], ...]
    """Bandwidth and share of the compute of each phase; the shares add up to 1."""
    cost_per_image: float
    """Mean cost of an image relative to one at the final size."""

    def passes(self, equivalent_epochs: float) -> float:
        """Passes over the data that so much compute makes."""
        return equivalent_epochs / self.cost_per_image


def schedule(name: str, axis: str, phases: list[Mapping[str, Any]], relative: Mapping[int, float]) -> Schedule:
    """A schedule from phases on the axis `compute` or `samples`.

    Args:
        name: what it is called.
        axis: what the phases' ends are shares of.
        phases: `end` and `bandwidth` of each.
        relative: cost of an image at each bandwidth, relative to one at the final size.

    >>> half = [{"end": 0.5, "bandwidth": 32}, {"end": 1.0, "bandwidth": 64}]
    >>> schedule("half", "samples", half, {32: 0.25, 64: 1.0}).shares
    ((32, 0.2), (64, 0.8))
    >>> schedule("half", "compute", half, {32: 0.25, 64: 1.0}).cost_per_image
    0.4
    """
    lengths = [last - first for first, last in pairwise([0.0, *(phase["end"] for phase in phases)])]
    costs = [relative[phase["bandwidth"]] for phase in phases]
    if axis == "compute":
        compute, images = lengths, [length / cost for length, cost in zip(lengths, costs, strict=True)]
    else:
        compute, images = [length * cost for length, cost in zip(lengths, costs, strict=True)], lengths
    total = sum(compute)
    merged: list[tuple[int, float]] = []
    for phase, part in zip(phases, compute, strict=True):
        side, share = int(phase["bandwidth"]), part / total
        if merged and merged[-1][0] == side:
            share += merged.pop()[1]
        merged.append((side, share))
    return Schedule(name=name, shares=tuple(merged), cost_per_image=total / sum(images))


def schedules(summary: Mapping[str, Any]) -> list[Schedule]:
    """The found schedule, then the presets.

    Args:
        summary: the content of a search's `summary.json`.
    """
    relative = relative_costs(summary)
    found = schedule("searched", summary["axis"], summary["phases"], relative)
    return [
        found,
        *(schedule(name, preset["axis"], preset["phases"], relative) for name, preset in summary["presets"].items()),
    ]


def relative_costs(summary: Mapping[str, Any]) -> dict[int, float]:
    """Cost of an image at each bandwidth that occurs, relative to the final size."""
    return {int(side): cost for side, cost in summary["relative_cost"].items()}
