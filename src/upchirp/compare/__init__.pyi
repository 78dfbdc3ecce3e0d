"""Several curricula under one rule: the same data, seeds, recipe and budgets."""

from upchirp.compare.comparison import Comparison, compare
from upchirp.compare.config import CompareConfig
from upchirp.compare.equal_accuracy import Speedup, Timed, speedup_at_equal_accuracy
from upchirp.compare.uncertainty import Difference, Measured, SeedSpread, difference, seed_spread
from upchirp.machine import hardware, versions

__all__ = [
    "CompareConfig",
    "Comparison",
    "Difference",
    "Measured",
    "SeedSpread",
    "Speedup",
    "Timed",
    "compare",
    "difference",
    "hardware",
    "seed_spread",
    "speedup_at_equal_accuracy",
    "versions",
]
