"""The teacher of a run, from its weights."""

from collections.abc import Sequence
from pathlib import Path

import torch

from upchirp.data import same_classes
from upchirp.errors import InputError
from upchirp.training.assets.trained import load_trained
from upchirp.training.engine.task import Task
from upchirp.training.methods.distillation import Distillation, Teacher
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.eval_groups import Origin
from upchirp.training.recipes.precision import autocast_dtype


def with_teacher(
    task: Task, config: TrainConfig, classes: Sequence[str], device: torch.device
) -> tuple[Task, list[str]]:
    """A task with the teacher that the settings name, if they name one, and lines on it.

    Raises:
        InputError: weights that cannot be read, or are for other classes; a task without classes.
    """
    if config.kd_model is None:
        return task, []
    seen = config.augmentation
    trained = load_trained(Origin(weights=Path(config.kd_model)))
    named = trained.described.classes
    if trained.outputs != len(classes) or (named and not same_classes(named, classes)):
        raise InputError(
            f"the teacher {config.kd_model} tells {trained.outputs} classes, which are not the data's "
            f"{len(classes)}: train it on the same classes, for instance by `upchirp finetune`"
        )
    told = trained.seen
    if told.channels != seen.channels:
        raise InputError(
            f"the teacher {config.kd_model} takes images of {told.channels.count} channel(s) of "
            f"{told.channels.type} values, the student of {seen.channels.count} of {seen.channels.type}: they are to "
            "see the same images"
        )
    model = trained.model.to(device).requires_grad_(False)
    autocast = autocast_dtype(config.optimization, device)
    teacher = Teacher(model, trained.size, told.mean, told.std, autocast)
    distilled = Distillation(
        task, teacher, seen.mean, seen.std, temperature=config.kd_temperature, share=config.kd_alpha
    )
    line = f"learning from {config.kd_model}, {trained.described.model} at {trained.size} px, too"
    return distilled, [line, *trained.notes]
