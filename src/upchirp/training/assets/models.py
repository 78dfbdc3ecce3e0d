"""The model of a run, with the weights that it starts from, and what its own weights say of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.layers import DropPath
from torch import nn

from upchirp.conversion import plain
from upchirp.curriculum import Plan
from upchirp.data import DataIdentity, Source
from upchirp.errors import InputError
from upchirp.models import classifier_names, create_model, in_classifier
from upchirp.models.meta import unwrap
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.preprocessing import Preprocessing
from upchirp.training.checkpoints.weights import read_weights
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.engine.task import Classification, Task
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.groups import Start
from upchirp.training.recipes.named import STANDARD_EPOCHS, STANDARD_EPOCHS_CONSTANT
from upchirp.training.recipes.tuning import freeze_for


def make_model(config: TrainConfig, classes: int, task: Task | None = None) -> nn.Module:
    """What a task trains around the model that is named, initialised from the seed; by default it tells classes."""
    task = task or Classification()
    return task.around(_drawn(config, classes, task), fresh=True)


def without_values(start: Start, classes: int, task: Task) -> nn.Module:
    """What a task trains around the model that is named: its shapes, without memory for its weights."""
    with torch.device("meta"):
        return task.around(_named(start, classes, task), fresh=True)


def _drawn(config: TrainConfig, classes: int, task: Task) -> nn.Module:
    torch.manual_seed(config.seed)
    rates = config.optimization
    return _named(config, classes, task, drop_path=rates.drop_path, drop=rates.drop)


def _named(start: Start, classes: int, task: Task, **rates: Any) -> nn.Module:
    """The model that is named, for a task and data of so many classes, with rates of dropout if they are given.

    Raises:
        InputError: no model can be made for the task by name.
    """
    if (outputs := task.outputs(classes)) is not None:
        return create_model(start.model, num_classes=outputs, final_size=start.final_size, **rates, **start.made_with)
    if task.labelled:
        raise InputError("the data set has no `classes`: add the attribute, or pass a model")
    raise InputError(f"a model for {type(task).__name__} cannot be made by name: pass a model")


def drop_path_share(epochs: float, *, passes: bool) -> float:
    """What a budget below the standard one leaves of a model's stochastic-depth rates (Appendix A.1).

    The standard is 200 equivalent epochs, and for baselines and curricula that count `passes` 300 of these.
    """
    return min(1.0, epochs / (STANDARD_EPOCHS_CONSTANT if passes else STANDARD_EPOCHS))


def scale_drop_path(model: nn.Module, plan: Plan) -> None:
    """Lower a model's stochastic-depth rates in proportion to the budget of a plan."""
    passes = plan.axis == "samples" or len(plan.bandwidths) == 1
    epochs = plan.total_samples / plan.dataset_size if passes else plan.equivalent_epochs
    lower_drop_path(model, drop_path_share(epochs, passes=passes))


def lower_drop_path(model: nn.Module, share: float) -> None:
    """Multiply a model's stochastic-depth rates."""
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob *= share


def _load_start(path: Path, model: nn.Module, source: Source, *, final_size: int, new_head: bool) -> list[str]:
    """Load the weights that a new run begins with; returns lines on them."""
    weights = read_weights(path)
    if not new_head:
        weights.check_head(source.classes)
    loaded = load_weights(model, weights, final_size, new_head=new_head)
    resized = "" if loaded.size == final_size else f", resized from {loaded.size} px"
    return [f"starting from {path}{resized}, with {'a new' if new_head else 'its'} head", *loaded.notes(path)]


def describe(config: TrainConfig, model: nn.Module, data: DataIdentity, task: Task) -> Description:
    """What is written with the weights of a run."""
    preprocessing = Preprocessing.of(config.augmentation, config.final_size)
    several = isinstance(task, MultiLabel)
    known = Description(data=data, multi_label=several, preprocessing=preprocessing)
    made: Any = getattr(model, "default_cfg", None)
    if not isinstance(made, dict) or made.get("architecture") != config.model.partition(".")[0]:
        # A module of the user's own: no name makes it anew.
        return known
    return replace(
        known,
        model=config.model,
        model_kwargs=plain(config.model_kwargs),
        in_chans=config.in_chans,
        final_size=config.final_size,
    )


def start_model(
    config: TrainConfig, source: Source, model: nn.Module | None, task: Task, *, new: bool
) -> tuple[nn.Module, list[str]]:
    """The model, and what it starts from if it is `new`."""
    notes: list[str] = []
    fresh = config.weights is None and model is None
    if model is None:
        model = _drawn(config, len(source.classes), task)
    elif (inner := unwrap(model)) is not model:
        notes.append(f"{type(model).__name__} is left off: a run compiles by compile=True, and shares out by itself")
        model = inner
    if config.weights is not None and new:
        new_head = not config.keep_head
        notes += _load_start(config.weights, model, source, final_size=config.final_size, new_head=new_head)
    if config.head_init_scale != 1 and new and not (config.weights is not None and config.keep_head):
        _scale_head(model, config.head_init_scale)
    model = task.around(model, fresh=fresh)
    freeze_for(model, config.optimization)
    task.check(model, config.final_size, len(source.classes))
    return model, notes


@torch.no_grad()
def _scale_head(model: nn.Module, factor: float) -> None:
    names = classifier_names(model)
    for name, parameter in model.named_parameters():
        if in_classifier(name, names):
            parameter.mul_(factor)
