"""What a run counts on its way, beside the state of its training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upchirp.training.run.spent import Spent


@dataclass(kw_only=True)
class Totals:
    """What a run's checkpoint holds beside the state of its training."""

    train_seconds: float = 0.0
    """Training time so far, without evaluations and checkpoints."""
    best_top1: float = -math.inf
    """Best of the evaluations in the last stage, percent; below everything before the first."""
    stale: int = 0
    """Evaluations in the last stage since the best."""
    evaluated: int = 0
    """Step of the latest of them: a run that goes on from there evaluates it again."""
    spent: Spent = field(default_factory=Spent)
    """Where the time went so far."""
    notes: list[str] = field(default_factory=list)
    """What was told so far, each once."""

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Totals":
        """What a checkpoint holds of it; those of earlier versions lack what was not counted then."""
        return cls(
            train_seconds=float(stored["train_seconds"]),
            best_top1=float(stored["best_top1"]),
            stale=int(stored.get("stale", 0)),
            evaluated=int(stored.get("evaluated", 0)),
            spent=Spent(**stored.get("spent", {})),
            notes=list(stored.get("notes", ())),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return {**vars(self), "spent": self.spent.seconds(), "notes": list(self.notes)}
