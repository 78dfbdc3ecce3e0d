"""What the features of trained weights are worth, from files to figures."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from torch import nn

from upchirp.data import Source, SubsetSource
from upchirp.data.label_sets import one_label_each
from upchirp.data.sources import Note
from upchirp.data.workers.deaths import loader_failures
from upchirp.errors import InputError
from upchirp.models import classifier_names, in_classifier
from upchirp.training.assets.data import open_named_data
from upchirp.training.assets.eval_data import beside_run
from upchirp.training.assets.trained import TrainedWeights, read_trained
from upchirp.training.evaluation.feature_quality import (
    Features,
    Pooled,
    all_features,
    has_patches,
    linear_classifier,
    nearest_neighbours,
)
from upchirp.training.events import Observer, Report, noting, reporting
from upchirp.training.parallel.device import choose_device
from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.eval_groups import EvalData, EvalLoading, Origin


def probe_weights(
    origin: Origin,
    data: EvalData = EvalData(),
    *,
    knn: bool = True,
    linear: bool = True,
    pooled: Pooled | None = None,
    final_size: int | None = None,
    most_images: int | None = None,
    loading: EvalLoading = EvalLoading(),
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """How well nearest neighbours and a linear classifier tell labels by a model's features, which stay as they are.

    The features of all images are computed once, without augmentation.

    Args:
        origin: which weights, of any training, with labels or without.
        data: which labelled images, those for training and those for validation; a share of the former validates by
            default where there are none of the latter.
        knn: whether to ask the nearest neighbours.
        linear: whether to fit a linear classifier.
        pooled: `head` takes what the model's classifier is shown, `mean` the mean of a vision transformer's patches; by
            default the latter for its weights without a classifier, which no label has taught the class token.
        final_size: input side, pixels; by default that of the weights.
        most_images: training images at most, evenly spaced; by default all.
        loading: of the images.
        device: where to compute.
        observers: called with `Noted` and `Working`.

    Returns:
        `knn` and `linear` with their `top1` in percent, `features` (what they are of), `size`, `images` and
        `val_images`.

    Raises:
        InputError: something is missing or does not fit together.
    """
    if world_size() > 1:
        raise InputError("a probe computes in one process: leave out torchrun")
    at_least(1, final_size=final_size, most_images=most_images)
    note, report = noting(observers), reporting(observers)
    trained = read_trained(origin)
    size = final_size or trained.size
    train, val = _opened(data, trained, size, most_images, note, report)
    report("making the model")
    network = trained.network(0, size, new_head=True, note=note).to(target := choose_device(device))
    judged_by = pooled or _usual_features(trained, network)

    def features(source: Source, what: str) -> Features:
        report(f"computing the features of {len(source):,} {what} images")
        images = trained.images(source, size, loading)
        found = all_features(network, images, pooled=judged_by, device=target)
        for line in images.left_out(what):
            note(line)
        return found

    with loader_failures():
        known, asked = features(train, "training"), features(val, "validation")
    found: dict[str, Any] = {}
    if knn:
        found["knn"] = asdict(nearest_neighbours(known, asked, device=target))
    if linear:
        report("fitting a linear classifier")
        found["linear"] = asdict(linear_classifier(known, asked, device=target))
    return {
        **found,
        "features": "the mean of the patches" if judged_by == "mean" else "what the classifier is shown",
        "size": size,
        "images": len(known.labels),
        "val_images": len(asked.labels),
    }


def _opened(
    data: EvalData, trained: TrainedWeights, size: int, most_images: int | None, note: Note, report: Report
) -> tuple[Source, Source]:
    """The training and the validation images."""
    chosen, _ = beside_run(data, trained.config)
    train, val = open_named_data(replace(chosen, final_size=size), note, report)
    one_label_each(train, "a probe")
    if most_images is not None and most_images < len(train):
        train = SubsetSource(train, np.linspace(0, len(train) - 1, most_images).astype(np.int64))
    return train, val


def _usual_features(trained: TrainedWeights, network: nn.Module) -> Pooled:
    """The mean of the patches where they come without a classifier, which no label has taught the class token."""
    heads = classifier_names(network)
    classifies = any(in_classifier(name, heads) for part in trained.weights.parts.values() for name in part)
    return "mean" if has_patches(network) and not classifies else "head"
