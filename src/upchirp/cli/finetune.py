"""`upchirp finetune`."""

from collections.abc import Sequence
from dataclasses import dataclass

from upchirp.cli.train import TrainCommand, train_command
from upchirp.errors import InputError

DESCRIPTION = (
    """Train on from given weights: a new head, layer-wise learning-rate decay, and no curriculum by default."""
)


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(TrainCommand):
    """Flags of `upchirp finetune`: those of `upchirp train` and one more."""

    fixres: bool = False
    """Keep the head and tune only it and the norms, for a --final-size larger than the weights were trained at."""


def run(words: Sequence[str]) -> int:
    """Fine-tune, and return the exit code."""
    fixres = "--fixres" in words
    if fixres and any(word.partition("=")[0] == "--regime" for word in words):
        raise InputError("--fixres is a regime of its own: leave --regime out")
    return train_command(
        FinetuneCommand,
        words,
        prog="upchirp finetune",
        description=DESCRIPTION,
        regime="fixres" if fixres else "finetune",
    )
