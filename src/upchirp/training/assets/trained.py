"""Trained weights from a run or a file, with the settings and the preprocessing that they need, and their model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.data import Augmentation, Source, default_crop_pct
from upchirp.data.sources import Note
from upchirp.errors import InputError
from upchirp.models import check_sizes, classifier_names, create_model
from upchirp.training.checkpoints.description import Description, preprocessing_for
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.named_weights import has_tag, name_of
from upchirp.training.checkpoints.preprocessing import Preprocessing
from upchirp.training.checkpoints.weight_names import find
from upchirp.training.checkpoints.weights import Weights, read_weights
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.folders.run_folder import WEIGHTS, WEIGHTS_EMA, holds_run
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.config_file import CONFIG, load_config
from upchirp.training.recipes.eval_groups import EvalLoading, EvalPreprocessing, Origin
from upchirp.training.recipes.groups import Start


@dataclass(frozen=True, eq=False)
class TrainedWeights:
    """Weights, and what is known of them."""

    config: TrainConfig
    """The settings of the run, or those that the file says."""
    weights: Weights
    told: Preprocessing
    """What the weights themselves say of preprocessing."""
    size: int
    """Input side that they are used at where no other is asked for, pixels."""
    asked: EvalPreprocessing
    """What is asked for beside."""

    @property
    def seen(self) -> Augmentation:
        """The settings of images: as they are asked for, else as the weights say, else as the run has them.

        Raises:
            InputError: nobody has a mean for the channels of the images.
        """
        asked, told, own = self.asked, self.told, self.config.augmentation
        mean, channels = asked.mean or told.mean or own.mean, self.config.in_chans
        if len(mean) != channels:
            raise InputError(
                f"{self.weights.path} is for images of {channels} channel{'s' if channels > 1 else ''}, and the mean "
                f"that is known has {len(mean)} value{'s' if len(mean) > 1 else ''}: give `mean` and `std` to "
                "`upchirp eval`, or train on from the weights"
            )
        return replace(
            own,
            mean=mean,
            std=asked.std or told.std or own.std,
            pixel_type=told.pixel_type or own.pixel_type,
            interpolation=asked.interpolation or told.interpolation or own.interpolation,
        )

    def crop_at(self, size: int) -> float:
        """The share of the resized image that the centre crop keeps at an input side."""
        return self.asked.crop_pct or self.told.crop_at(size) or default_crop_pct(size)

    def network(self, outputs: int, *sizes: int, new_head: bool = False, note: Note) -> nn.Module:
        """The model with the weights, at the first of the input sides that it is to take, in pixels.

        `note` is called with lines on what was adapted and left out.

        Raises:
            InputError: weights of another model, or a side that it cannot take.
        """
        config = self.config
        model = create_model(config.model, num_classes=outputs, final_size=sizes[0], **config.made_with)
        for line in load_weights(model, self.weights, sizes[0], new_head=new_head).notes(self.weights.path):
            note(line)
        check_sizes(model, sizes)
        return model

    def images(self, source: Source, size: int, loading: EvalLoading, ranks: Ranks | None = None) -> EvaluationSet:
        """A source's images, prepared for the weights at an input side in pixels."""
        return EvaluationSet(
            source,
            size,
            self.seen,
            crop_pct=self.crop_at(size),
            workers=loading.workers,
            batch_size=loading.batch_size,
            timeout=loading.loader_timeout,
            ranks=ranks,
        )


def read_trained(origin: Origin, preprocessing: EvalPreprocessing = EvalPreprocessing()) -> TrainedWeights:
    """Read the weights of a run, or of a file, which are the run's average by default, if it has one.

    Raises:
        InputError: a folder that holds no run, or neither weights nor a finished run; see `read_weights`.
    """
    config, path = _named(origin)
    stored = read_weights(path)
    if origin.which is not None:
        stored = stored.only(origin.which)
    told = preprocessing_for(stored.description, origin.model)
    size = config.final_size if origin.run is not None else told.input_size or config.final_size
    return TrainedWeights(config, stored, told, size, preprocessing)


def _named(origin: Origin) -> tuple[TrainConfig, Path]:
    """The settings, and the file of the weights."""
    run, weights, model = origin.run, origin.weights, origin.model
    if weights is None and run is None and model is not None and has_tag(model):
        weights = name_of(model)
    values: dict[str, Any] = {}
    if run is not None:
        if run.is_file():
            raise InputError(f"{run} is a file, and `run` names a folder: give the file by `weights`")
        if not holds_run(run):
            raise InputError(f"{run} holds no run: give the `output` of a training")
        values = load_config(run / CONFIG)
    elif weights is None:
        missing = "nothing to evaluate" if model is None else "no weights"
        raise InputError(f"{missing}: give `run`, or `weights` with `data`")
    else:
        values = {"weights": str(weights)}
    if model is not None:
        values |= {"model": model, "model_kwargs": {}}
    if origin.model_kwargs:
        # Of files that do not say it.
        channels = {name: value for name, value in origin.model_kwargs.items() if name == "in_chans"}
        others = {name: value for name, value in origin.model_kwargs.items() if name != "in_chans"}
        values |= {**channels, **({"model_kwargs": others} if others or not channels else {})}
    config = TrainConfig.from_flat(values, source=str(run / CONFIG) if run is not None else "weights")
    if weights is None and run is not None:
        names = {"average": (WEIGHTS_EMA,), "raw": (WEIGHTS,), None: (WEIGHTS_EMA, WEIGHTS)}[origin.which]
        weights = next((run / name for name in names if (run / name).exists()), None)
        if weights is None and origin.which == "average" and (run / WEIGHTS).exists():
            raise InputError(f"{run} keeps no average of its weights: leave out `which`")
    if weights is None:
        raise InputError("no weights: give `weights`, or a `run` that is finished")
    return config, weights


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A model with its weights, for one input side."""

    model: nn.Module
    """The network, in evaluation mode, on the CPU."""
    outputs: int
    """How many classes it tells apart."""
    size: int
    """The side of its images, pixels."""
    seen: Augmentation
    """The settings of its images."""
    crop_pct: float
    """The share of the resized image that the centre crop keeps."""
    described: Description
    """What it is: its name, final size, classes where the weights name them, and the whole preprocessing."""
    notes: tuple[str, ...]


def load_trained(
    origin: Origin, *, final_size: int | None = None, preprocessing: EvalPreprocessing = EvalPreprocessing()
) -> TrainedModel:
    """The model of a run or of a weights file."""
    at_least(1, final_size=final_size)
    trained = read_trained(origin, preprocessing)
    config, stored, seen = trained.config, trained.weights, trained.seen
    size = final_size or trained.size
    crop_pct = trained.crop_at(size)
    outputs = _outputs(stored, config, size)
    notes: list[str] = []
    network = trained.network(outputs, size, note=notes.append)
    if not stored.description.classes:
        notes.append(f"{stored.path} names no classes: they are numbered")
    described = Description(
        model=config.model,
        model_kwargs=config.model_kwargs,
        in_chans=config.in_chans,
        final_size=size,
        data=stored.description.data,
        multi_label=stored.description.multi_label,
        preprocessing=Preprocessing.of(seen, size, crop_pct),
    )
    return TrainedModel(
        model=network.eval(),
        outputs=outputs,
        size=size,
        seen=seen,
        crop_pct=crop_pct,
        described=described,
        notes=tuple(notes),
    )


def _outputs(weights: Weights, start: Start, size: int) -> int:
    """How many classes the weights tell apart."""
    if weights.description.classes:
        return len(weights.description.classes)
    with torch.device("meta"):
        shaped = create_model(start.model, num_classes=2, final_size=size, **start.made_with)
    tensors = find(shaped, weights.parts, list(shaped.state_dict())).tensors
    for name in classifier_names(shaped):
        if f"{name}.weight" in tensors:
            return len(tensors[f"{name}.weight"])
    raise InputError(f"{weights.path} holds no classifier: `upchirp finetune` trains one")
