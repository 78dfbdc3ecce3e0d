"""`upchirp finetune`."""

from collections.abc import Sequence
from dataclasses import dataclass

from upchirp.cli.parsing import first
from upchirp.cli.train import TrainCommand, parse_train, train_by
from upchirp.training import Regime

DESCRIPTION = "Train on from given weights: a new head, layer-wise learning-rate decay, and no curriculum by default."


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(TrainCommand):
    """Flags of `upchirp finetune`: those of `upchirp train` and one more."""

    fixres: bool = False
    """Keep the head and tune only it and the norms, for a --final-size larger than the weights were trained at."""


@dataclass(frozen=True)
class _Deciding:
    fixres: bool = False
    regime: str = ""


def run(words: Sequence[str]) -> int:
    """Fine-tune, and return the exit code."""
    asked, _ = first(_Deciding(), words, "upchirp finetune")
    regime: Regime = "fixres" if asked.fixres else "mae" if asked.regime == "mae" else "finetune"
    return train_by(
        parse_train(FinetuneCommand, words, prog="upchirp finetune", description=DESCRIPTION, regime=regime)
    )
