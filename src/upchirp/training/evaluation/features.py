"""What a network makes of images before its classifier."""

from typing import Any

import torch
from torch import nn

from upchirp.models.meta import unwrap


def features_of(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The features that a classifier is put on, (N, D); the outputs of a module that has no `forward_head`.

    Args:
        model: timm's, or any other; in evaluation mode.
        inputs: normalised images, (N, 3, B, B), of the side that the model is fitted to.

    >>> from upchirp.models import create_model
    >>> model = create_model("resnet10t", num_classes=7).eval()
    >>> with torch.no_grad():
    ...     tuple(features_of(model, torch.zeros(2, 3, 64, 64)).shape)
    (2, 512)
    """
    plain: Any = unwrap(model)
    if not hasattr(plain, "forward_features") or not hasattr(plain, "forward_head"):
        outputs: torch.Tensor = plain(inputs)
        return outputs.flatten(1)
    features: torch.Tensor = plain.forward_head(plain.forward_features(inputs), pre_logits=True)
    return features.flatten(1)
