"""What a search is made of before it begins: the images, the task, and all settings that they decide."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from upchirp.data import Source, as_source, split
from upchirp.data.sources import Note
from upchirp.errors import InputError
from upchirp.search.config import SearchConfig
from upchirp.search.trial_plan import Planner
from upchirp.training import check_model, settle
from upchirp.training.assets.data import open_named_data, without_labels
from upchirp.training.assets.models import without_values
from upchirp.training.engine.task import Task
from upchirp.training.methods.chosen import for_images, task_of
from upchirp.training.parallel.device import choose_device
from upchirp.training.probing.micro_batch import choose_micro_batch
from upchirp.training.recipes.precision import with_amp_dtype


@dataclass(frozen=True)
class Prepared:
    """What a search is made of, by which its cost is known."""

    planner: Planner
    """Makes the plans; has the settings, with what the data decide."""
    train: Source
    val: Source
    """Images to score on."""
    task: Task


def prepare(config: SearchConfig, model: nn.Module | None, data: Any, task: Task | None, note: Note) -> Prepared:
    """Open the images of a search, and settle all that they decide; None of an object leaves it to the settings.

    Raises:
        InputError: images, settings or a model that cannot be searched with.
    """
    training = config.training
    task = task or task_of(training)
    if training.kd_model is not None:
        raise InputError("the trials of a search have no teacher: leave out `kd_model`")
    if model is None:
        check_model(training, labelled=training.facts.labelled)
    whole = as_source(data) if data is not None else open_named_data(training, note, labelled=task.labelled)[0]
    whole = whole if task.labelled else without_labels(whole)
    task = for_images(task, training, [whole])
    training, told = training.with_channels_of(whole)
    for line in told:
        note(line)
    training = replace(training, optimization=with_amp_dtype(training.optimization, choose_device(training.device)))
    train, val = split(whole, config.search_val, training.seed)
    if config.subset < 1:
        train = split(train, config.subset, training.seed)[1]
    if model is None:
        model = without_values(training, len(whole.classes), task)
    task.check(model, training.final_size, len(whole.classes))
    training = settle(replace(training, epochs=config.epochs), len(train), model).config
    choose_micro_batch(training, training.batch_size)
    planner = Planner(replace(config, training=training), model, len(train))
    return Prepared(planner, train, val, task)
