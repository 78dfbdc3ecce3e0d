"""From settings and data to the task that they ask for, and what there is to say of it."""

from collections.abc import Sequence

from torch import nn

from upchirp.data import LabelSets, Source
from upchirp.data.label_sets import label_sets_of
from upchirp.errors import InputError
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.engine.task import Classification, Task
from upchirp.training.methods.mae import MaskedAutoencoding
from upchirp.training.methods.masked_autoencoder import decoder_note
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.group import group_of
from upchirp.training.recipes.groups import Objective, TaskChoice


def task_of(config: TrainConfig) -> Task:
    """What a model is trained to do: to tell labels, or in the regime `pretrain` what a method without labels asks.

    >>> task_of(TrainConfig(regime="pretrain", mask_ratio=0.6)).mask_ratio
    0.6
    """
    if config.facts.labelled:
        return Classification(config.loss or "cross_entropy", config.in_chans)
    return group_of(MaskedAutoencoding, config)


def for_images(task: Task, objective: Objective, sources: Sequence[Source]) -> Task:
    """The task for the labels that images have: where they have several, each class is told by itself.

    Raises:
        InputError: a loss, or a teacher, that is for one label each.
    """
    if not isinstance(task, Classification) or (sets := _common(sources)) is None:
        return task
    if objective.loss == "cross_entropy":
        raise InputError("`loss='cross_entropy'` is for one label an image, and these have several: leave it out")
    if objective.kd_model is not None:
        raise InputError("`kd_model` teaches shares of one label an image, and these have several: leave it out")
    return MultiLabel(sets, task.channels)


def model_notes(choice: TaskChoice, model: nn.Module) -> list[str]:
    """What to tell of a model that a method is begun with, where its size was left to the method."""
    if choice.asks_for("decoder_depth", "decoder_width") or (note := decoder_note(model)) is None:
        return []
    return [note]


def _common(sources: Sequence[Source]) -> LabelSets | None:
    """What labels stand for: the largest table of sets, which the others begin."""
    tables = [sets for source in sources if (sets := label_sets_of(source)) is not None]
    return max(tables, key=len, default=None)
