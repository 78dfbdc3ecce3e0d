"""A trained model from its files alone: the network, and what its weights say of classes and preprocessing."""

from dataclasses import dataclass

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models import classifier_names, create_model
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.preprocessing import Preprocessing
from upchirp.training.checkpoints.weight_names import find
from upchirp.training.checkpoints.weights import Weights
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.eval_groups import EvalPreprocessing, Origin
from upchirp.training.recipes.groups import Start
from upchirp.training.run.trained_weights import read_trained


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with its weights, for one input side."""

    model: nn.Module
    """The network, in evaluation mode, on the CPU."""
    outputs: int
    """How many classes it tells apart."""
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
    outputs = _outputs(stored, config, size)
    network, notes = trained.network(outputs, size)
    if not stored.description.classes:
        notes.append(f"{stored.path} names no classes: they are numbered")
    described = Description(
        model=config.model,
        model_kwargs=config.model_kwargs,
        in_chans=config.in_chans,
        final_size=size,
        data=stored.description.data,
        multi_label=stored.description.multi_label,
        preprocessing=Preprocessing.of(seen, size, trained.crop_at(size)),
    )
    return TrainedModel(network.eval(), outputs, described, tuple(notes))


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
