"""The teacher of a run, from its weights."""

from collections.abc import Sequence
from pathlib import Path

import torch

from upchirp.data import Augmentation, same_classes
from upchirp.errors import InputError
from upchirp.training.engine.task import Task
from upchirp.training.methods.distillation import Distillation, Teacher
from upchirp.training.recipes.eval_groups import Origin
from upchirp.training.recipes.groups import Objective
from upchirp.training.run.trained_model import load_trained


def with_teacher(
    task: Task,
    objective: Objective,
    seen: Augmentation,
    classes: Sequence[str],
    device: torch.device,
    autocast: torch.dtype | None,
) -> tuple[Task, list[str]]:
    """A task with the teacher that the settings name, if they name one, and lines on it.

    Raises:
        InputError: weights that cannot be read, or are for other classes; a task without classes.
    """
    if objective.kd_model is None:
        return task, []
    trained = load_trained(Origin(weights=Path(objective.kd_model)))
    named = trained.described.classes
    if trained.outputs != len(classes) or (named and not same_classes(named, classes)):
        raise InputError(
            f"the teacher {objective.kd_model} tells {trained.outputs} classes, which are not the data's "
            f"{len(classes)}: train it on the same classes, for instance by `upchirp finetune`"
        )
    told = trained.described.preprocessing
    if told.channels != seen.channels:
        raise InputError(
            f"the teacher {objective.kd_model} takes images of {told.channels.count} channel(s) of "
            f"{told.channels.type} values, the student of {seen.channels.count} of {seen.channels.type}: they are to "
            "see the same images"
        )
    assert told.input_size is not None and told.mean is not None and told.std is not None
    model = trained.model.to(device).requires_grad_(False)
    teacher = Teacher(model, told.input_size, tuple(told.mean), tuple(told.std), autocast)
    distilled = Distillation(
        task, teacher, seen.mean, seen.std, temperature=objective.kd_temperature, share=objective.kd_alpha
    )
    line = f"learning from {objective.kd_model}, {trained.described.model} at {told.input_size} px, too"
    return distilled, [line, *trained.notes]
