"""The model of a run, with the weights that it starts from, and what its own weights say of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.conversion import plain
from upchirp.data import Augmentation, DataIdentity, Source
from upchirp.models import classifier_names, in_classifier
from upchirp.models.meta import unwrap
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.preprocessing import Preprocessing
from upchirp.training.checkpoints.weights import read_weights
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.engine.task import Classification, Task
from upchirp.training.probing.planning import named_model
from upchirp.training.recipes.groups import Start
from upchirp.training.recipes.recipe import Optimization, Recipe
from upchirp.training.recipes.tuning import freeze_for


def make_model(
    start: Start, classes: int, task: Task | None = None, *, optimization: Optimization, seed: int
) -> nn.Module:
    """What a task trains around the model that is named, initialised from the seed; by default it tells classes."""
    task = task or Classification()
    return task.around(_drawn(start, classes, task, optimization=optimization, seed=seed), fresh=True)


def _drawn(start: Start, classes: int, task: Task, *, optimization: Optimization, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return named_model(start, classes, task, drop_path=optimization.drop_path, drop=optimization.drop)


def _load_start(path: Path, model: nn.Module, source: Source, *, final_size: int, new_head: bool) -> list[str]:
    """Load the weights that a new run begins with; returns lines on them."""
    weights = read_weights(path)
    if not new_head:
        weights.check_head(source.classes)
    loaded = load_weights(model, weights, final_size, new_head=new_head)
    resized = "" if loaded.size == final_size else f", resized from {loaded.size} px"
    return [f"starting from {path}{resized}, with {'a new' if new_head else 'its'} head", *loaded.notes(path)]


def describe(start: Start, seen: Augmentation, model: nn.Module, data: DataIdentity, task: Task) -> Description:
    """What is written with the weights of a run."""
    preprocessing = Preprocessing.of(seen, start.final_size)
    several = isinstance(task, MultiLabel)
    known = Description(data=data, multi_label=several, preprocessing=preprocessing)
    made: Any = getattr(model, "default_cfg", None)
    if not isinstance(made, dict) or made.get("architecture") != start.model.partition(".")[0]:
        # A module of the user's own: no name makes it anew.
        return known
    return replace(
        known,
        model=start.model,
        model_kwargs=plain(start.model_kwargs),
        in_chans=start.in_chans,
        final_size=start.final_size,
    )


def start_model(
    start: Start, recipe: Recipe, source: Source, model: nn.Module | None, task: Task, *, seed: int, new: bool
) -> tuple[nn.Module, list[str]]:
    """The model, and what it starts from."""
    notes: list[str] = []
    fresh = start.weights is None and model is None
    if model is None:
        model = _drawn(start, len(source.classes), task, optimization=recipe.optimization, seed=seed)
    elif (inner := unwrap(model)) is not model:
        notes.append(f"{type(model).__name__} is left off: a run compiles by compile=True, and shares out by itself")
        model = inner
    if start.weights is not None and new:
        new_head = not recipe.keep_head
        notes += _load_start(start.weights, model, source, final_size=start.final_size, new_head=new_head)
    if start.head_init_scale != 1 and new and not (start.weights is not None and recipe.keep_head):
        _scale_head(model, start.head_init_scale)
    model = task.around(model, fresh=fresh)
    freeze_for(model, recipe.optimization)
    task.check(model, start.final_size, len(source.classes))
    return model, notes


@torch.no_grad()
def _scale_head(model: nn.Module, factor: float) -> None:
    names = classifier_names(model)
    for name, parameter in model.named_parameters():
        if in_classifier(name, names):
            parameter.mul_(factor)
