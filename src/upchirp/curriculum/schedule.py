"""The learning rate, a pure function of progress."""

import math
from dataclasses import dataclass

from upchirp.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Linear warm-up, then a cosine, both over progress, so that stages continue one curve (Table 24).

    >>> shape = LearningRate(warmup=0.1, warmup_lr=0.0, min_lr=0.0)
    >>> shape.at(0.05, ceiling=1.0), shape.at(0.1, ceiling=1.0)
    (0.5, 1.0)

    Raises:
        InputError: a warm-up outside [0, 1) or a negative rate.
    """

    warmup: float = 0.0
    """Share of the run spent warming up; a plan makes it of a number of passes over the data."""
    warmup_lr: float = 1e-6
    """Learning rate at the first step."""
    min_lr: float = 1e-6
    """Learning rate at the end."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise InputError(f"warm-up is {self.warmup}: it is a share of the run, from 0 to below 1")
        if self.warmup_lr < 0 or self.min_lr < 0:
            raise InputError(f"learning rates {self.warmup_lr} and {self.min_lr} must not be negative")

    def at(self, progress: float, *, ceiling: float) -> float:
        """Learning rate at a progress in [0, 1], for a stage whose highest is `ceiling`."""
        if progress < self.warmup:
            return self.warmup_lr + (ceiling - self.warmup_lr) * progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return self.min_lr + (ceiling - self.min_lr) * (1 + math.cos(math.pi * done)) / 2
