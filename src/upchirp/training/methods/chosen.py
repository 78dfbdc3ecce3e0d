"""From settings to the task that they ask for."""

from upchirp.training.engine.task import Classification, Task
from upchirp.training.methods.mae import MaskedAutoencoding
from upchirp.training.recipes.groups import Choice, Objective, Pretraining


def task_of(choice: Choice, method: Pretraining, objective: Objective) -> Task:
    """What a model is trained to do: to tell labels, or in the regime `pretrain` what a method without labels asks.

    >>> task_of(Choice(regime="pretrain"), Pretraining(mask_ratio=0.6), Objective()).mask_ratio
    0.6
    """
    if choice.facts.labelled:
        return Classification(objective.loss)
    return MaskedAutoencoding(
        target=method.target,
        mask_ratio=method.mask_ratio,
        least_visible=method.least_visible,
        decoder_depth=method.decoder_depth,
        decoder_width=method.decoder_width,
    )
