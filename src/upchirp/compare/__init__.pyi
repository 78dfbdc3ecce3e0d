"""Several curricula under one rule: the same data, seeds, recipe and budgets."""

from upchirp.compare.comparison import Comparison, compare
from upchirp.compare.config import CompareConfig
from upchirp.compare.environment import hardware, versions
from upchirp.compare.equal_accuracy import Speedup, speedup_at_equal_accuracy

__all__ = ["CompareConfig", "Comparison", "Speedup", "compare", "hardware", "speedup_at_equal_accuracy", "versions"]
