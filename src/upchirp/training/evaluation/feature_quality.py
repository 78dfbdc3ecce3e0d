"""What a model's features are worth: nearest neighbours, and a linear classifier on them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from upchirp.data import normalize, scale_of
from upchirp.errors import InputError
from upchirp.models.meta import unwrap
from upchirp.training.evaluation.images import EvaluationSet

Pooled = Literal["head", "mean"]

_NEIGHBOURS = 20
_TEMPERATURE = 0.07
_AT_ONCE = 1024
_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_HELD = 10
"""Every so many-th training image chooses the weight decay of the linear classifier."""
_ITERATIONS = 100


class Features(NamedTuple):
    """Of the images of a set."""

    values: Tensor
    """float32, (images, width), on the host."""
    labels: Tensor
    """int64, (images,)."""


@torch.no_grad()
def all_features(model: nn.Module, images: EvaluationSet, *, pooled: Pooled, device: torch.device) -> Features:
    """The features of a set's images, in its order.

    Args:
        model: made by timm, on the device; it is left in evaluation mode.
        images: prepared for the side that the model takes.
        pooled: `head` gives what the model's own classifier is shown; `mean` the mean of a vision transformer's
            patches, normalised as the model does.
        device: where to compute.

    Raises:
        InputError: a model without such features, or features that are no numbers.
    """
    extract = _extract(model.eval(), pooled)
    mean, std = images.augmentation.mean, images.augmentation.std
    values, labels = [], []
    for batch in images:
        values.append(extract(normalize(batch.images.to(device), mean, std, scale_of(batch.images))).float().cpu())
        labels.append(batch.labels)
    images.share_corrupt()
    found = Features(torch.cat(values), torch.cat(labels))
    if not torch.isfinite(found.values).all():
        raise InputError("the features are no numbers: the training diverged; take an earlier checkpoint")
    return found


def has_patches(model: nn.Module) -> bool:
    """Whether a model is a vision transformer whose patches can be averaged as timm's own pooling does."""
    return hasattr(model, "num_prefix_tokens") and hasattr(model, "fc_norm")


def _extract(model: Any, pooled: Pooled) -> Any:
    if pooled == "mean":
        if not has_patches(model):
            raise InputError(f"{type(model).__name__} has no patches to take the mean of: take the head's features")

        def mean_of_patches(inputs: Tensor) -> Tensor:
            tokens = model.forward_features(inputs)[:, model.num_prefix_tokens :]
            means: Tensor = model.fc_norm(tokens.mean(dim=1))
            return means

        return mean_of_patches
    return partial(features_of, model)


def features_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The features that a classifier is put on, (N, D); the outputs of a module that has no `forward_head`.

    >>> from upchirp.models import create_model
    >>> model = create_model("resnet10t", num_classes=7).eval()
    >>> with torch.no_grad():
    ...     tuple(features_of(model, torch.zeros(2, 3, 64, 64)).shape)
    (2, 512)
    """
    plain: Any = unwrap(model)
    if not hasattr(plain, "forward_features") or not hasattr(plain, "forward_head"):
        outputs: Tensor = plain(inputs)
        return outputs.flatten(1)
    features: Tensor = plain.forward_head(plain.forward_features(inputs), pre_logits=True)
    return features.flatten(1)


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """How well nearest neighbours tell labels."""

    top1: float
    """Percent of the validation images whose label has most weight among their neighbours."""
    neighbours: int
    """Training images that each is compared with."""


def nearest_neighbours(train: Features, val: Features, *, device: torch.device) -> Nearest:
    """Let the 20 most similar training images vote by exp(cosine / 0.07) (Wu et al., 2018; DINO's evaluation).

    >>> train = Features(torch.eye(2), torch.tensor([0, 1]))
    >>> nearest_neighbours(train, Features(torch.tensor([[2.0, 1.0]]), torch.tensor([0])), device=torch.device("cpu"))
    Nearest(top1=100.0, neighbours=2)
    """
    known = functional.normalize(train.values, dim=1).to(device)
    labels, classes = train.labels.to(device), int(train.labels.max()) + 1
    count, right = min(_NEIGHBOURS, len(known)), 0
    for values, own in zip(torch.split(val.values, _AT_ONCE), torch.split(val.labels, _AT_ONCE), strict=True):
        similar, nearest = (functional.normalize(values, dim=1).to(device) @ known.T).topk(count, dim=1)
        votes = torch.zeros(len(values), classes, device=device)
        votes.scatter_add_(1, labels[nearest], torch.exp((similar - 1) / _TEMPERATURE))
        right += int((votes.argmax(dim=1).cpu() == own).sum())
    return Nearest(top1=100 * right / len(val.labels), neighbours=count)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """How well a linear classifier tells labels."""

    top1: float
    """Percent of the validation images."""
    train_top1: float
    """Percent of the training images."""
    decay: float
    """Its weight decay, which a tenth of the training images chose."""


def linear_classifier(train: Features, val: Features, *, device: torch.device) -> Linear:
    """Fit logistic regression to the features, each scaled to mean 0 and deviation 1, with the best of five decays.

    The decay is chosen on every tenth training image, and the classifier then fitted to all of them. Nothing is drawn
    at random.

    >>> train = Features(torch.tensor([[0.0], [1.0]] * 10), torch.tensor([0, 1] * 10))
    >>> linear_classifier(train, train, device=torch.device("cpu")).top1
    100.0
    """
    spread, centre = torch.std_mean(train.values, dim=0)
    scaled = [
        ((part.values - centre) / (spread + 1e-6)).to(device=device, dtype=torch.float32) for part in (train, val)
    ]
    labels, classes = train.labels.to(device), int(max(train.labels.max(), val.labels.max())) + 1
    held = torch.zeros(len(labels), dtype=torch.bool, device=device)
    held[_HELD - 1 :: _HELD] = True
    best, decay = -1.0, _DECAYS[0]
    for each in _DECAYS if held.any() else ():
        fitted = _fit(scaled[0][~held], labels[~held], classes, each)
        share = _right(fitted, scaled[0][held], labels[held])
        if share > best:
            best, decay = share, each
    fitted = _fit(scaled[0], labels, classes, decay)
    return Linear(
        top1=_right(fitted, scaled[1], val.labels.to(device)), train_top1=_right(fitted, scaled[0], labels), decay=decay
    )


def _fit(features: Tensor, labels: Tensor, classes: int, decay: float) -> nn.Linear:
    layer = nn.Linear(features.shape[1], classes, device=features.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(layer(features), labels) + decay / 2 * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    # Inside an evaluation gradients may be off.
    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return layer


@torch.no_grad()
def _right(layer: nn.Linear, features: Tensor, labels: Tensor) -> float:
    hits: Iterator[int] = (
        int((layer(values).argmax(dim=1) == own).sum())
        for values, own in zip(torch.split(features, _AT_ONCE), torch.split(labels, _AT_ONCE), strict=True)
    )
    return 100 * sum(hits) / len(labels) if len(labels) else math.nan
