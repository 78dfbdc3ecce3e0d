"""`upchirp pretrain`."""

from collections.abc import Sequence
from dataclasses import dataclass

from upchirp.cli.plan import price_and_show
from upchirp.cli.train import TrainCommand, parse_train, train_by

DESCRIPTION = """Pre-train a vision transformer on images without labels: most of an image is hidden, and the model
predicts it (MAE, with histograms of gradients as in Table 15, or pixels). `upchirp probe` and `upchirp finetune
--regime mae` make use of it."""


@dataclass(frozen=True, kw_only=True)
class PretrainCommand(TrainCommand):
    """Flags of `upchirp pretrain`: those of `upchirp train` and one more."""

    dry_run: bool = False
    """Print the stages and what they cost, and stop."""


def run(words: Sequence[str]) -> int:
    """Pre-train, and return the exit code."""
    command = parse_train(PretrainCommand, words, prog="upchirp pretrain", description=DESCRIPTION, regime="pretrain")
    if command.dry_run:
        return price_and_show(command.training)
    return train_by(command)
