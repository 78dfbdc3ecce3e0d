"""Validation for a loop of one's own."""

import warnings
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from upchirp.data import Augmentation, as_source
from upchirp.data.label_sets import label_sets_of
from upchirp.errors import InputError
from upchirp.models import at_size, check_given, check_sizes
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.evaluation.evaluation import Evaluation, View, evaluate
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.recipes.checks import at_least


def validate(
    model: nn.Module,
    data: Any,
    size: int,
    *,
    augmentation: Augmentation | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    autocast: torch.dtype | None = None,
) -> Evaluation:
    """How well a model does on labelled images at an input side, whatever its bandwidth is now.

    The images are resized and cropped at the centre (Appendix A.1), and normalised. The model is left as it is: one
    that is fitted to another side is copied. Ranks of an open process group share the images out, and all of them
    return the figures of all images; each calls it. An image that cannot be read is left out, with a warning.

    Args:
        model: maps (N, channels, size, size) to (N, classes), on any device, compiled, in data-parallel
            wrappers or neither.
        data: a `Source` or a map-style data set of `(image, label)`, without augmentation.
        size: pixels; in training the final size.
        augmentation: gives mean, standard deviation and interpolation, as in training.
        batch_size: images in one forward pass.
        workers: loader processes, by default one for each core, 16 at most; 0 loads in this one.
        autocast: number format of mixed precision; none computes as the model's parameters are.

    Raises:
        InputError: no images, a model that cannot take their size or format or gives no tensor of (N, classes), or more
            than 1 % of the images cannot be read.

    >>> from upchirp.data import GeneratedSource
    >>> from upchirp.models import create_model
    >>> model = create_model("test_vit", num_classes=20, final_size=32)
    >>> validate(model, GeneratedSource("val", num_images=20), 64, workers=0).images
    20
    """
    at_least(1, batch_size=batch_size)
    check_sizes(model, [size])
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    several = dist.is_available() and dist.is_initialized()
    source = as_source(data)
    if not len(source):
        raise InputError("there are no images to validate on: give some")
    kept = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    if kept.itemsize == 2 and autocast is None:
        raise InputError(f"the model's parameters are {kept} and images come as float32: give `autocast={kept}`")
    sets = label_sets_of(source)
    images = EvaluationSet(
        source,
        size,
        augmentation,
        workers=workers,
        batch_size=batch_size,
        pin_memory=device.type == "cuda",
        ranks=Ranks(dist.get_rank(), dist.get_world_size()) if several else None,
    )
    with at_size(model, size) as plain:
        check = partial(_check_given, classes=len(source.classes), exactly=sets is not None)
        with plain.register_forward_hook(check):
            (result,) = evaluate(
                [View("model", plain, size)],
                images,
                device=device,
                autocast=autocast,
                task=None if sets is None else MultiLabel(sets),
            )
    for line in images.left_out():
        warnings.warn(line, stacklevel=2)
    return result


def _check_given(model: nn.Module, inputs: tuple[Any, ...], outputs: Any, *, classes: int, exactly: bool) -> None:
    check_given(type(model).__name__, outputs, len(inputs[0]), classes, exactly=exactly)
