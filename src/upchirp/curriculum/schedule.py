"""The learning rate, a pure function of progress."""

import math
from dataclasses import dataclass
from typing import Literal

from upchirp.errors import InputError

Shape = Literal["cosine", "linear", "wsd"]
"""How the learning rate falls after its warm-up."""


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Linear warm-up, then a fall, both over progress, so that stages continue one curve.

    With warm-up w, progress t, the ceiling h and the last rate l, the rate is h t / w (from `warmup_lr`) before w, and
    afterwards l + (h - l) f, where by `shape`, with u = (t - w) / (1 - w),

    - `cosine` is f = (1 + cos(pi u)) / 2 (Table 24);
    - `linear` is f = 1 - u;
    - `wsd`, for warm-up, stable, decay, is f = 1 until 1 - d, and then f = 1 - sqrt(v) with v = (t - 1 + d) / d, where
      d is `decay`: Haegele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations" (2024),
      in which a fifth of the run is enough to end where a cosine ends.

    >>> rates = LearningRate(warmup=0.1, warmup_lr=0.0, min_lr=0.0)
    >>> rates.at(0.05, ceiling=1.0), rates.at(0.1, ceiling=1.0)
    (0.5, 1.0)
    >>> wsd = LearningRate(shape="wsd", min_lr=0.0)
    >>> [round(wsd.at(progress, ceiling=1.0), 6) for progress in (0.5, 0.8, 0.85, 1.0)]
    [1.0, 1.0, 0.5, 0.0]

    Raises:
        InputError: a warm-up outside [0, 1), a decay outside (0, 1] or into the warm-up, an unknown shape, or a
            negative rate.
    """

    warmup: float = 0.0
    """Share of the run spent warming up; a plan makes it of a number of passes over the data."""
    warmup_lr: float = 1e-6
    """Learning rate at the first step."""
    min_lr: float = 1e-6
    """Learning rate at the end."""
    shape: Shape = "cosine"
    """How it falls."""
    decay: float = 0.2
    """Share of the run, at its end, in which the rate of wsd falls."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise InputError(f"warm-up is {self.warmup}: it is a share of the run, from 0 to below 1")
        if self.warmup_lr < 0 or self.min_lr < 0:
            raise InputError(f"learning rates {self.warmup_lr} and {self.min_lr} must not be negative")
        if self.shape not in ("cosine", "linear", "wsd"):
            raise InputError(f"unknown shape {self.shape!r} of the learning rate: choose cosine, linear or wsd")
        if not 0 < self.decay <= 1:
            raise InputError(f"`sched_decay` is {self.decay}: it is a share of the run, above 0 up to 1")
        if self.shape == "wsd" and self.warmup + self.decay > 1 + 1e-9:
            raise InputError(
                f"a warm-up of {self.warmup:.3g} of the run and a decay of {self.decay:.3g} are more than all of it: "
                "lower `sched_decay` or `warmup`"
            )

    @property
    def mean_share(self) -> float:
        """The mean of the rate as a share of its ceiling, without warm-up and last rate.

        >>> [LearningRate(shape=shape).mean_share for shape in ("cosine", "linear")]
        [0.5, 0.5]
        """
        return 1 - 2 / 3 * self.decay if self.shape == "wsd" else 0.5

    def at(self, progress: float, *, ceiling: float) -> float:
        """Learning rate at a progress in [0, 1], for a stage whose highest is `ceiling`."""
        if progress < self.warmup:
            return self.warmup_lr + (ceiling - self.warmup_lr) * progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        if self.shape == "cosine":
            return self.min_lr + (ceiling - self.min_lr) * (1 + math.cos(math.pi * done)) / 2
        if self.shape == "linear":
            return self.min_lr + (ceiling - self.min_lr) * (1 - done)
        decayed = max(0.0, (progress - 1 + self.decay) / self.decay)
        return self.min_lr + (ceiling - self.min_lr) * (1 - math.sqrt(decayed))
