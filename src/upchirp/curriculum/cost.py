"""The cost of one sample at a bandwidth.

A cost is any function from bandwidth to a positive number; only ratios matter to a plan. So data other than images are
planned too: a bandwidth is then any whole number that says how much is shown (`examples/table_columns.py`).

`pixels` needs no model.
Tables of counted FLOPs or measured seconds are filled elsewhere (`upchirp.models`, `upchirp.training`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from upchirp.errors import InputError

Cost = Callable[[int], float]


def pixels(bandwidth: int) -> float:
    """Number of input pixels, B^2: the cost the paper and its released code plan with.

    >>> pixels(160) / pixels(224)
    0.5102040816326531
    """
    return float(bandwidth * bandwidth)


def name_of(cost: Cost) -> str:
    """The name of a cost, for tables and logs.

    >>> name_of(pixels)
    'pixels'
    """
    return cost.name if isinstance(cost, CostTable) else getattr(cost, "__name__", "cost")


@dataclass(frozen=True)
class CostTable:
    """A cost that was counted or measured, one value for each bandwidth.

    >>> CostTable("seconds", {96: 0.01, 224: 0.04})(224)
    0.04

    Raises:
        InputError: a value that is not positive; on a call, a bandwidth that the table lacks.
    """

    name: str
    """What the values are: `flops`, `seconds`."""
    values: Mapping[int, float] = field(hash=False)
    """Cost of one sample by bandwidth."""

    def __post_init__(self) -> None:
        for bandwidth, value in self.values.items():
            if not value > 0:
                raise InputError(f"{self.name} at bandwidth {bandwidth} is {value}: a cost must be positive")

    def __call__(self, bandwidth: int) -> float:
        """Cost of one sample."""
        if bandwidth not in self.values:
            known = ", ".join(map(str, sorted(self.values)))
            raise InputError(f"no {self.name} known for bandwidth {bandwidth}: the table has {known}")
        return self.values[bandwidth]
