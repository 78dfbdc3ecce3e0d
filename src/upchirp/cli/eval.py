"""`upchirp eval`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from upchirp.cli.parsing import parse
from upchirp.training import evaluate_weights

DESCRIPTION = "Evaluate the weights of a run, or a weights file, on the validation images."


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Flags of `upchirp eval`: a run folder, or a model with its weights and data."""

    run: Path | None = None
    """Run folder: gives model, data, final size and weights where they are not given."""
    model: str | None = None
    """Any timm model by name."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    weights: Path | None = None
    """A .safetensors file or a checkpoint; by default the run's, its average if there is one."""
    data: str | None = None
    """Any data that `upchirp train --data` takes."""
    final_size: int | None = None
    """Input side, pixels."""
    crop_pct: float | None = None
    """Share of the resized image that the centre crop keeps; by default the paper's rule."""
    batch_size: int = 256
    """Images in one forward pass."""
    workers: int = 2
    """Loader processes."""
    device: Literal["cpu", "cuda", "mps"] | None = None
    """Where to evaluate; by default the accelerator if there is one."""
    json: bool = False
    """Print JSON."""


def run(words: Sequence[str]) -> int:
    """Evaluate and print, and return the exit code."""
    command = parse(EvalCommand, words, prog="upchirp eval", description=DESCRIPTION, default=EvalCommand())
    options = {name: value for name, value in vars(command).items() if name != "json"}
    result = evaluate_weights(**options)
    if command.json:
        print(json.dumps(result.to_dict()))
    else:
        Console().print(
            f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, loss {result.loss:.4f} on {result.images} images",
            highlight=False,
        )
    return 0
