"""What the features of trained weights are worth, from files to figures."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from upchirp.data import Source, SubsetSource
from upchirp.data.label_sets import one_label_each
from upchirp.data.settings import DEFAULT_TIMEOUT
from upchirp.data.worker_deaths import loader_failures
from upchirp.errors import InputError
from upchirp.models import check_sizes, classifier_names, create_model, in_classifier
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.weights import Weights
from upchirp.training.evaluation.feature_quality import (
    Features,
    Pooled,
    all_features,
    has_patches,
    linear_classifier,
    nearest_neighbours,
)
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.events import Observer, noting, reporting
from upchirp.training.parallel.device import choose_device
from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.group import group_of
from upchirp.training.recipes.groups import Start
from upchirp.training.run.data import open_named_data
from upchirp.training.run.trained_weights import is_same_data, read_trained


def probe_weights(
    *,
    weights: Path | None = None,
    data: str | None = None,
    run: Path | None = None,
    model: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    knn: bool = True,
    linear: bool = True,
    pooled: Pooled | None = None,
    final_size: int | None = None,
    most_images: int | None = None,
    val_share: float | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    loader_timeout: float = DEFAULT_TIMEOUT,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """How well nearest neighbours and a linear classifier tell labels by a model's features, which stay as they are.

    The features of all images are computed once, without augmentation.

    Args:
        weights: see `read_weights`; of any training, with labels or without.
        data: labelled images, as in `open_data`; by default the run's.
        run: run folder; gives model, data and weights where they are not given.
        model: timm's name; by default what the weights file says.
        model_kwargs: arguments for the model's constructor.
        knn: whether to ask the nearest neighbours.
        linear: whether to fit a linear classifier.
        pooled: `head` takes what the model's classifier is shown, `mean` the mean of a vision transformer's patches; by
            default the latter for its weights without a classifier, which no label has taught the class token.
        final_size: input side, pixels; by default that of the weights.
        most_images: training images at most, evenly spaced; by default all.
        val_share: share of each class that is tested on where there are no validation images.
        batch_size: images in one forward pass.
        workers: loader processes, by default one for each core, 16 at most.
        loader_timeout: seconds without a batch from them after which it ends; 0 waits forever.
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
    at_least(1, final_size=final_size, most_images=most_images, batch_size=batch_size)
    report = reporting(observers)
    origin = read_trained(run, weights, model, model_kwargs)
    config, stored, seen = origin.config, origin.weights, origin.seen
    size = final_size or origin.size
    start = replace(
        group_of(Start, config),
        data=data or config.data,
        final_size=size,
        val_share=config.val_share if val_share is None else val_share,
    )
    if not is_same_data(start.data, config.data):
        # The run's names of splits and further data are those of its own data.
        start = replace(start, train_split=None, val_split=None, label_column=None, more_data=())
    notes: list[str] = []
    train, val = open_named_data(start, notes.append, report)
    one_label_each(train, "a probe")
    if most_images is not None and most_images < len(train):
        train = SubsetSource(train, np.linspace(0, len(train) - 1, most_images).astype(np.int64))
    report("making the model", None, None)
    network = create_model(config.model, num_classes=0, final_size=size, **config.made_with)
    notes += load_weights(network, stored, size, new_head=True).notes(stored.path)
    check_sizes(network, [size])
    tell = noting(observers)
    for note in notes:
        tell(note)
    if pooled is None:
        pooled = "mean" if has_patches(network) and not _has_head(stored, network) else "head"
    target = choose_device(device)
    network = network.to(target)

    def features(source: Source, what: str) -> Features:
        report(f"computing the features of {len(source):,} {what} images", None, None)
        images = EvaluationSet(
            source,
            size,
            seen,
            crop_pct=origin.told.crop_at(size),
            workers=workers,
            batch_size=batch_size,
            timeout=loader_timeout,
        )
        assert pooled is not None
        return all_features(network, images, pooled=pooled, device=target)

    with loader_failures():
        known, asked = features(train, "training"), features(val, "validation")
    found: dict[str, Any] = {}
    if knn:
        found["knn"] = asdict(nearest_neighbours(known, asked, device=target))
    if linear:
        report("fitting a linear classifier", None, None)
        found["linear"] = asdict(linear_classifier(known, asked, device=target))
    return {
        **found,
        "features": "the mean of the patches" if pooled == "mean" else "what the classifier is shown",
        "size": size,
        "images": len(known.labels),
        "val_images": len(asked.labels),
    }


def _has_head(stored: Weights, network: Any) -> bool:
    """Whether weights come with a classifier."""
    heads = classifier_names(network)
    return any(in_classifier(name, heads) for part in stored.parts.values() for name in part)
