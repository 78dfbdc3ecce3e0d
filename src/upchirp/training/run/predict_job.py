"""Predictions of trained weights for images, from files to names of classes."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from upchirp.data import (
    DECODE_ERRORS,
    EvalTransform,
    Interpolation,
    Source,
    default_crop_pct,
    normalize,
    outlive_interrupts,
    scale_of,
)
from upchirp.data.settings import DEFAULT_TIMEOUT, loader_processes
from upchirp.data.worker_deaths import loader_failures
from upchirp.data.worker_processes import batches_of, loader_of
from upchirp.errors import InputError, one_line
from upchirp.training.events import Observer, noting, reporting
from upchirp.training.parallel.device import choose_device
from upchirp.training.recipes.checks import at_least
from upchirp.training.run.trained_model import load_trained


@dataclass(frozen=True)
class Guess:
    """A class and how probable the model holds it to be."""

    label: int
    """Its output."""
    name: str
    """Its name; its number where the weights name none."""
    probability: float
    """0 to 1; all of an image's together make 1, unless it may have several classes."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"label": self.label, "class": self.name, "probability": round(self.probability, 6)}


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    image: str
    """The path."""
    guesses: tuple[Guess, ...]
    """The most probable classes, the first one first; none if the image cannot be read, or all are too improbable."""
    error: str | None = None
    """Why it cannot be read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        return {"image": self.image, "predictions": [guess.to_dict() for guess in self.guesses]}


def predict(
    images: Source,
    *,
    run: Path | None = None,
    weights: Path | None = None,
    model: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    top: int | None = None,
    threshold: float | None = None,
    tta: bool = False,
    final_size: int | None = None,
    crop_pct: float | None = None,
    interpolation: Interpolation | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    loader_timeout: float = DEFAULT_TIMEOUT,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> Iterator[Prediction]:
    """Say what images show, in their order, as they are worked out.

    Model, preprocessing and names of classes are those that the weights file says, else the run.

    Args:
        images: any source; labels play no part.
        run: run folder: its average if there is one, else its weights.
        weights: a weights file instead; see `read_weights`.
        model: timm's name, for files that do not say it.
        model_kwargs: arguments for its constructor.
        top: guesses for each image at most; by default 5, or all of those that reach the threshold where images may
            have several classes.
        threshold: least probability of a guess; by default 0.5 where images may have several classes, else 0.
        tta: average the probabilities of each image and its mirror image (test-time augmentation).
        final_size: input side, pixels; by default that of the weights.
        crop_pct: share of the resized image that the centre crop keeps; by default what the weights say.
        interpolation: filter of the resize; likewise.
        batch_size: images in one forward pass.
        workers: loader processes, by default one for each core, 16 at most.
        loader_timeout: seconds without a batch from them after which it ends; 0 waits forever.
        device: where to compute.
        observers: called with `Noted` and `Working`.

    Raises:
        InputError: something is missing or does not fit together; raised before the first prediction.
    """
    at_least(1, top=top, batch_size=batch_size)
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"`threshold` is {threshold}: it is a probability, from 0 to 1")
    processes = loader_processes(workers)
    report = reporting(observers)
    report("making the model", None, None)
    network = load_trained(run=run, weights=weights, model=model, model_kwargs=model_kwargs, final_size=final_size)
    seen = network.described.preprocessing
    assert seen.input_size and seen.mean and seen.std and seen.interpolation
    names = network.described.classes or tuple(map(str, range(network.outputs)))
    tell = noting(observers)
    for note in network.notes:
        tell(note)
    crop = crop_pct or seen.crop_pct or default_crop_pct(seen.input_size)
    prepared = _Prepared(
        images, EvalTransform(seen.input_size, crop, interpolation or seen.interpolation, seen.channels)
    )
    loader = loader_of(
        prepared, batch_size=batch_size, num_workers=processes, collate_fn=list, worker_init_fn=outlive_interrupts
    )
    several = network.described.multi_label
    most = top or (network.outputs if several else 5)
    target = choose_device(device)
    guesser = _Guesser(
        network.model.to(target),
        target,
        names,
        mean=seen.mean,
        std=seen.std,
        top=min(most, network.outputs),
        threshold=(0.5 if several else 0.0) if threshold is None else threshold,
        several=several,
        tta=tta,
    )
    return _predicted(guesser, loader, images, loader_timeout)


@dataclass(frozen=True, eq=False)
class _Guesser:
    """A model on its device, and what its answers are taken for."""

    model: nn.Module
    device: torch.device
    names: Sequence[str]
    _: KW_ONLY
    mean: tuple[float, ...]
    std: tuple[float, ...]
    top: int
    threshold: float
    several: bool
    """Whether an image may have several classes."""
    tta: bool

    @torch.inference_mode()
    def guesses(self, images: Sequence[NDArray[Any]]) -> list[tuple[Guess, ...]]:
        """The most probable classes of each of some images, (S, S, channels)."""
        pixels = torch.stack([torch.from_numpy(image) for image in images]).permute(0, 3, 1, 2)
        inputs = normalize(pixels.to(self.device), self.mean, self.std, scale_of(pixels))
        probabilities = self._probable(inputs)
        if self.tta:
            probabilities = (probabilities + self._probable(inputs.flip(3))) / 2
        if not torch.isfinite(probabilities).all():
            raise InputError("the model's outputs are no numbers: its training diverged; take an earlier checkpoint")
        values, labels = probabilities.topk(self.top, dim=1)
        return [
            tuple(
                Guess(label, self.names[label], value)
                for label, value in zip(row, of_row, strict=True)
                if value >= self.threshold
            )
            for row, of_row in zip(labels.tolist(), values.tolist(), strict=True)
        ]

    def _probable(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.model(inputs).float()
        return outputs.sigmoid() if self.several else outputs.softmax(dim=1)


def _predicted(guesser: _Guesser, loader: "DataLoader[Any]", images: Source, timeout: float) -> Iterator[Prediction]:
    index = 0
    # The caller's own code runs between two predictions: no mode of torch may be on then.
    with loader_failures():
        for batch in batches_of(loader, timeout):
            readable = [item for item in batch if not isinstance(item, str)]
            in_order = iter(guesser.guesses(readable) if readable else ())
            for item in batch:
                name = images.describe(index)
                index += 1
                yield Prediction(name, (), item) if isinstance(item, str) else Prediction(name, next(in_order))


class _Prepared(Dataset[Any]):
    """The pixels of each image, or why it cannot be read."""

    def __init__(self, source: Source, transform: EvalTransform) -> None:
        self._source = source
        self._transform = transform

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._transform(self._source.load(index)[0])
        except DECODE_ERRORS as error:
            return one_line(error)
