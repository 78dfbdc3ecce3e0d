"""`upchirp probe`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from upchirp.cli.display import Display
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import json_text
from upchirp.data.settings import DEFAULT_TIMEOUT
from upchirp.training.parallel.device_name import check_device
from upchirp.training.recipes.eval_groups import EvalData, EvalLoading, Origin
from upchirp.training.recipes.group import group_of

DESCRIPTION = """Say what a model's features are worth as they are: how well nearest neighbours and a linear classifier
tell labels by them. For weights of any training, with labels or without."""


@dataclass(frozen=True, kw_only=True)
class ProbeCommand:
    """Flags of `upchirp probe`: weights and data, or a run folder."""

    weights: Path | None = None
    """.safetensors, a checkpoint, a file of timm's, or a name, timm/NAME.TAG or hf-hub:OWNER/NAME."""
    data: str | None = None
    """Labelled images: any data that `upchirp train --data` takes; by default the run's."""
    run: Path | None = None
    """Run folder: gives model, data and weights where they are not given."""
    model: str | None = None
    """Any timm model by name; by default what the weights file says."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    knn: bool = False
    """Ask the nearest neighbours; without --knn and --linear both are done."""
    linear: bool = False
    """Fit a linear classifier."""
    pooled: Literal["head", "mean"] | None = None
    """`head` takes what the model's classifier is shown, `mean` the mean of a vision transformer's patches; by default
    the mean for weights without a classifier."""
    final_size: int | None = None
    """Input side, pixels; by default that of the weights."""
    most_images: int | None = None
    """Training images at most, evenly spaced; by default all."""
    val_share: float | None = None
    """Share of each class that is tested on where the data has no validation images; by default that of training."""
    batch_size: int = 256
    """Images in one forward pass."""
    workers: int | None = None
    """Loader processes."""
    loader_timeout: float = DEFAULT_TIMEOUT
    """Seconds without a batch from them after which it ends; 0 waits forever."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1 or mps; by default the accelerator if there is one."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_device(self.device)


def run(words: Sequence[str]) -> int:
    """Probe and print, and return the exit code."""
    command = parse(ProbeCommand(), words, prog="upchirp probe", description=DESCRIPTION)
    both = not (command.knn or command.linear)
    console = Console(stderr=True)
    with opening(console):
        from upchirp.training import probe_weights
    with Display(console) as display:
        found = probe_weights(
            Origin(run=command.run, weights=command.weights, model=command.model, model_kwargs=command.model_kwargs),
            EvalData(data=command.data, val_share=command.val_share),
            knn=command.knn or both,
            linear=command.linear or both,
            pooled=command.pooled,
            final_size=command.final_size,
            most_images=command.most_images,
            loading=group_of(EvalLoading, command),
            device=command.device,
            observers=(display,),
        )
    if command.json:
        print(json_text(found))
        return 0
    print(f"{found['images']:,} training and {found['val_images']:,} validation images at {found['size']} px, by "
          f"{found['features']}")  # fmt: skip
    if "knn" in found:
        print(f"{found['knn']['neighbours']} nearest neighbours: top-1 {found['knn']['top1']:.2f} %")
    if "linear" in found:
        linear = found["linear"]
        print(f"linear classifier: top-1 {linear['top1']:.2f} % ({linear['train_top1']:.2f} % of the training images)")
    return 0
