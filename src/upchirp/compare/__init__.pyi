"""Several curricula under one rule: the same data, seeds, recipe and budgets."""

from upchirp.compare.alignment import linear_cka
from upchirp.compare.checkpoint_similarity import Similarity, similarity
from upchirp.compare.comparison import Comparison, compare
from upchirp.compare.config import CompareConfig
from upchirp.compare.equal_accuracy import Speedup, Timed, speedup_at_equal_accuracy
from upchirp.compare.uncertainty import Difference, Measured, SeedSpread, difference, seed_spread
from upchirp.compare.variants import Variant
from upchirp.machine import hardware, versions

__all__ = [
    "CompareConfig",
    "Comparison",
    "Difference",
    "Measured",
    "SeedSpread",
    "Similarity",
    "Speedup",
    "Timed",
    "Variant",
    "compare",
    "difference",
    "hardware",
    "linear_cka",
    "seed_spread",
    "similarity",
    "speedup_at_equal_accuracy",
    "versions",
]
