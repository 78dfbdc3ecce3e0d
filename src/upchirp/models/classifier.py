"""The classifier of a model: which parameters it has."""

from typing import Any

from torch import nn

from upchirp.errors import InputError


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that map features to classes: timm's `classifier` of the model's configuration.

    >>> from upchirp.models import create_model
    >>> classifier_names(create_model("resnet10t", num_classes=10))
    ('fc',)

    Raises:
        InputError: a model that does not say.
    """
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    names = config.get("classifier") if isinstance(config, dict) else None
    if not names:
        raise InputError(
            f"{type(model).__name__} does not say which layer is its classifier: give it a `default_cfg` with "
            "the layer's name under 'classifier', as timm's models have"
        )
    return (names,) if isinstance(names, str) else tuple(names)


def in_classifier(parameter: str, names: tuple[str, ...]) -> bool:
    """Whether a parameter, by its name, belongs to one of the layers.

    >>> in_classifier("head.fc.weight", ("head.fc",)), in_classifier("head_norm.weight", ("head",))
    (True, False)
    """
    return any(parameter.startswith(f"{name}.") for name in names)
