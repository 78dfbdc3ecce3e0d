"""How alike the checkpoints of two runs represent the same images (Figure 6)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.compare.alignment import linear_cka
from upchirp.curriculum import Plan
from upchirp.data import Source, SubsetSource
from upchirp.data.sources import Note
from upchirp.errors import InputError
from upchirp.files import write_text
from upchirp.models import create_model
from upchirp.training import EvalData, EvalLoading, EvaluationSet, Observer, load_weights, read_weights
from upchirp.training.assets.data import SCANNING
from upchirp.training.assets.eval_data import beside_run, open_asked
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.weights import Which
from upchirp.training.evaluation.feature_quality import all_features
from upchirp.training.events import Report, noting, reporting
from upchirp.training.folders.held_folder import held_folder
from upchirp.training.folders.run_folder import holds_run, kept_checkpoints, read_plan, read_settings
from upchirp.training.parallel.device import choose_device
from upchirp.training.recipes.config import TrainConfig

SUMMARY, REPORT, FIGURE = "similarity.json", "similarity.html", "similarity.png"


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """What came of it."""

    output: Path
    """Folder with `similarity.json`, `similarity.html` and `similarity.png`."""
    summary: dict[str, Any]
    """The content of `similarity.json`."""


@dataclass(frozen=True)
class _Checkpoints:
    """A run and what it kept of its training."""

    folder: Path
    config: TrainConfig
    plan: Plan
    files: list[Path]

    @property
    def epochs(self) -> list[float]:
        """Compute spent at each checkpoint, equivalent epochs."""
        return [self.plan.spent(checkpoint.step_of(file)) for file in self.files]


def similarity(
    first: Path,
    second: Path,
    *,
    output: Path | None = None,
    data: EvalData = EvalData(),
    images: int = 1024,
    which: Which = "raw",
    loading: EvalLoading = EvalLoading(),
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> Similarity:
    """Compare every checkpoint of one run with every one of another, by linear CKA of their last features.

    Both see the same original images at the final size, whatever they were trained on. What networks answer before
    their classifier is compared.

    Args:
        first: folder of a run that kept its checkpoints (`checkpoint_keep="all"`).
        second: folder of another, or the same.
        output: folder to write; by default a new one under runs/.
        data: which images; by default those that the first run validated on.
        images: how many of them, spread over the classes.
        which: the raw weights of checkpoints, or their averages.
        loading: of the images; a batch of the estimate has as many as a forward pass.
        device: where to compute.
        observers: called with what goes on.

    Raises:
        InputError: a folder without a run or checkpoints, or data that cannot be read.
    """
    if images < 4:
        raise InputError(f"`images` is {images}: it must be 4 or more")
    note, report = noting(observers), reporting(observers)
    runs = [_read(folder) for folder in (first, second)]
    report(SCANNING)
    chosen, _ = beside_run(data, runs[0].config)
    source = _spread(open_asked(data, runs[0].config, runs[0].config.final_size), images)
    target = choose_device(device)
    # Of the second run the inputs are prepared anew, as it may have another size.
    stacks = [_stacked(run, which, source, loading, target, note, report) for run in runs]
    similarities = linear_cka(*stacks, batch_size=loading.batch_size).clamp(0, 1)
    summary = {
        "runs": [
            {
                "folder": str(run.folder),
                "model": run.config.model,
                "curriculum": run.plan.curriculum,
                "steps": [checkpoint.step_of(file) for file in run.files],
                "equivalent_epochs": run.epochs,
            }
            for run in runs
        ],
        "data": chosen.data,
        "images": len(source),
        "which": which,
        "cka": [[round(value, 6) for value in row] for row in similarities.tolist()],
    }
    from upchirp.reports.similarity_html import write_figure, write_report

    with held_folder(output, "similarity") as (folder, _):
        write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        write_figure(summary, folder / FIGURE)
        write_report(summary, folder / REPORT)
    return Similarity(output=folder, summary=summary)


def _told(report: Report, files: Sequence[Path]) -> Iterator[Path]:
    """The files one by one, each told when its turn comes."""
    for place, file in enumerate(files):
        report("comparing checkpoints", place, len(files))
        yield file


def _read(folder: Path) -> _Checkpoints:
    if not holds_run(folder):
        raise InputError(f"{folder} holds no run: give the `output` of a training")
    return _Checkpoints(folder, read_settings(folder), read_plan(folder), kept_checkpoints(folder))


def _spread(source: Source, images: int) -> Source:
    """So many images, evenly over the whole order, which goes class by class."""
    count = min(images, len(source))
    return SubsetSource(source, [k * len(source) // count for k in range(count)])


def _stacked(
    run: _Checkpoints,
    which: Which,
    source: Source,
    loading: EvalLoading,
    device: torch.device,
    note: Note,
    report: Report,
) -> torch.Tensor:
    """What the weights of each checkpoint make of the images, (checkpoints, N, D)."""
    images = EvaluationSet(
        source,
        run.config.final_size,
        run.config.augmentation,
        workers=loading.workers,
        batch_size=loading.batch_size,
        timeout=loading.loader_timeout,
    )
    files = _told(report, run.files)
    found = torch.stack([_features(run, file, which, images, len(source.classes), device) for file in files])
    for line in images.left_out():
        note(line)
    return found


def _features(
    run: _Checkpoints, file: Path, which: Which, images: EvaluationSet, classes: int, device: torch.device
) -> torch.Tensor:
    """What the weights of a checkpoint make of the images, (N, D)."""
    config, stored = run.config, read_weights(file).only(which)
    # It may tell other classes than the images show: what it answers before its classifier is looked at.
    outputs = len(stored.description.classes) or classes
    model: nn.Module = create_model(config.model, num_classes=outputs, final_size=config.final_size, **config.made_with)
    load_weights(model, stored, config.final_size)
    return all_features(model.to(device), images, pooled="head", device=device).values
