"""What a run trains, and on what: its images, recipe, task and model, before there is a plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from upchirp.data import DataIdentity, Source, Transform
from upchirp.training.assets.data import enlarged_note, open_sources
from upchirp.training.assets.models import describe, start_model
from upchirp.training.assets.teacher import with_teacher
from upchirp.training.checkpoints.description import Description
from upchirp.training.engine.task import Task
from upchirp.training.events import Report
from upchirp.training.methods.chosen import for_images, model_notes
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.probing.micro_batch import choose_micro_batch
from upchirp.training.recipes.defaults import Settled, choose_recipe, chooses_batch_size
from upchirp.training.recipes.precision import amp_note, with_amp_dtype
from upchirp.training.run.beginning import Beginning


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a program gives a training as objects; None leaves it to the settings."""

    model: nn.Module | None
    """Maps (N, channels, B, B) to what the task compares with the labels."""
    data: tuple[Any, Any] | None
    task: Task
    transforms: Mapping[str, Transform]
    """What is done with finished batches, by name."""

    @property
    def objects(self) -> bool:
        """Whether there are any that no command can give."""
        return self.model is not None or self.data is not None or bool(self.transforms)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run trains, and on what."""

    settled: Settled
    """The settings; of a run that begins, with the recipe that its data choose."""
    train: Source
    val: Source
    identity: DataIdentity
    """What these images are, to know them again."""
    task: Task
    """What the model is trained to do, by a teacher if one is named."""
    model: nn.Module
    """What is trained, with the weights that it starts from; on the host."""
    own_model: bool
    """Whether the model is the user's."""
    description: Description
    made_for: Callable[[Settled], nn.Module]
    """Makes the model as for another recipe from the start: it gives the model its drop path."""
    notes: tuple[str, ...]


def material_of(
    settled: Settled, beginning: Beginning, given: Given, device: torch.device, ranks: Ranks, report: Report
) -> Material:
    """Open a run's images, choose its recipe by them, and make its model.

    All ranks call it together.

    Raises:
        InputError: images, a teacher or a model that cannot be had, or do not go together.
    """
    notes, resuming, loaded = list[str](), beginning.resuming, beginning.loaded
    train, val = ranks.together(lambda: open_sources(settled.config, given.data, given.task, notes, report))
    task = ranks.together(lambda: for_images(given.task, settled.config, [train, val]))
    config, told = ranks.from_first(lambda: settled.config.with_channels_of(train))
    notes += told
    scaled, asked = config.parallel != "fsdp", config.optimization
    optimization = ranks.from_first(lambda: with_amp_dtype(asked, device, scaled=scaled))
    settled = replace(settled, config=replace(config, optimization=optimization))
    if not resuming:
        notes += ranks.from_first(lambda: enlarged_note(settled.config, train))
        settled = choose_recipe(settled.config, len(train))
        if not chooses_batch_size(settled.config):
            choose_micro_batch(settled.config, settled.config.batch_size, ranks.size)
    config = settled.config
    notes += amp_note(asked, config.optimization, device)
    task, told = ranks.together(lambda: with_teacher(task, config, train.classes, device))
    notes += told
    new = loaded is None and not resuming

    def made(by: Settled) -> tuple[nn.Module, list[str]]:
        return start_model(by.config, train, given.model, task, new=new)

    report("making the model")
    started, told = ranks.together(lambda: made(settled))
    notes += told
    if new:
        notes += model_notes(config, started)
    identity = DataIdentity.of(train, val)
    trained = str(loaded.path if loaded and not resuming else beginning.folder)
    notes += ranks.together(lambda: beginning.data.check_same(identity, trained))
    return Material(
        settled=settled,
        train=train,
        val=val,
        identity=identity,
        task=task,
        model=started,
        own_model=given.model is not None,
        description=describe(config, started, identity, task),
        made_for=lambda chosen: made(chosen)[0],
        notes=tuple(notes),
    )
