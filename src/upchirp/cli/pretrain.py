"""`upchirp pretrain`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from upchirp.cli.display import Display, say
from upchirp.cli.plan import PlanCommand, price_and_show
from upchirp.cli.train import TrainCommand, parse_train, train_by
from upchirp.errors import InputError
from upchirp.training.parallel.launcher import world_size

if TYPE_CHECKING:
    from upchirp.training import TrainResult

_MOST_IMAGES = 50_000
"""Training images that the nearest neighbours are looked for among."""

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
        return price_and_show(PlanCommand(training=command.training))
    return train_by(command, then=_tell_neighbours)


def _tell_neighbours(result: "TrainResult", console: Console) -> None:
    """Say what the features are worth, as far as the images have labels."""
    from upchirp.training import Origin, probe_weights

    if world_size() > 1:
        return
    try:
        with Display(console) as display:
            origin = Origin(run=result.output)
            knn = probe_weights(origin, linear=False, most_images=_MOST_IMAGES, observers=(display,))["knn"]
    except InputError as error:
        say(console, f"no nearest neighbours are asked: {error}")
        return
    print(f"{knn['neighbours']} nearest neighbours: top-1 {knn['top1']:.2f} %")
