"""Predictions of trained weights for images, from files to names of classes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from upchirp.data import DECODE_ERRORS, EvalTransform, Source, normalize, outlive_interrupts, scale_of
from upchirp.data.settings import loader_processes
from upchirp.data.workers.deaths import loader_failures
from upchirp.data.workers.processes import batches_of, loader_of
from upchirp.errors import InputError, reason_of, some
from upchirp.training.assets.trained import TrainedModel, load_trained
from upchirp.training.events import Observer, noting, reporting
from upchirp.training.parallel.device import choose_device
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.eval_groups import EvalLoading, EvalPreprocessing, Origin


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
    origin: Origin,
    *,
    top: int | None = None,
    threshold: float | Mapping[str, float] | None = None,
    tta: bool = False,
    final_size: int | None = None,
    preprocessing: EvalPreprocessing = EvalPreprocessing(),
    loading: EvalLoading = EvalLoading(batch_size=64),
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> Iterator[Prediction]:
    """Say what images show, in their order, as they are worked out.

    Model, preprocessing and names of classes are those that the weights file says, else the run.

    Args:
        images: any source; labels play no part.
        origin: which weights.
        top: guesses for each image at most; by default 5, or all of those that reach the threshold where images may
            have several classes.
        threshold: least probability of a guess, or that of each class by its name, as `read_thresholds` gives them; by
            default 0.5 where images may have several classes, else 0.
        tta: average the probabilities of each image and its mirror image (test-time augmentation).
        final_size: input side, pixels; by default that of the weights.
        preprocessing: of the images, where it shall be another than the weights say.
        loading: of the images.
        device: where to compute.
        observers: called with `Noted` and `Working`.

    Raises:
        InputError: something is missing or does not fit together; raised before the first prediction.
    """
    at_least(1, top=top)
    reporting(observers)("making the model")
    trained = load_trained(origin, final_size=final_size, preprocessing=preprocessing)
    note = noting(observers)
    for line in trained.notes:
        note(line)
    several = trained.described.multi_label
    names = trained.described.classes or tuple(map(str, range(trained.outputs)))
    usual = 0.5 if several else 0.0
    guesser = _Guesser(
        trained,
        choose_device(device),
        names,
        top=min(top or (trained.outputs if several else 5), trained.outputs),
        thresholds=_thresholds(usual if threshold is None else threshold, names),
        tta=tta,
    )
    return _predicted(guesser, _loader(images, trained, loading), images, loading.loader_timeout)


def _thresholds(asked: float | Mapping[str, float], names: Sequence[str]) -> Sequence[float]:
    """That of each class.

    Raises:
        InputError: one is no probability, or a class has none.
    """
    if not isinstance(asked, Mapping):
        asked = dict.fromkeys(names, asked)
    if lacking := [name for name in names if name not in asked]:
        raise InputError(
            f"`threshold` has no value for {len(lacking)} of the {len(names)} classes ({some(lacking)}): give each one"
        )
    for name in names:
        if not 0 <= asked[name] <= 1:
            raise InputError(f"`threshold` is {asked[name]}: it is a probability, from 0 to 1")
    return [asked[name] for name in names]


def _loader(images: Source, trained: TrainedModel, loading: EvalLoading) -> "DataLoader[Any]":
    seen = trained.seen
    return loader_of(
        _Prepared(images, EvalTransform(trained.size, trained.crop_pct, seen.interpolation, seen.channels)),
        batch_size=loading.batch_size,
        num_workers=loader_processes(loading.workers),
        collate_fn=list,
        worker_init_fn=outlive_interrupts,
    )


@dataclass(frozen=True, eq=False)
class _Guesser:
    """A model on its device, and what its answers are taken for."""

    trained: TrainedModel
    device: torch.device
    names: Sequence[str]
    _: KW_ONLY
    top: int
    thresholds: Sequence[float]
    """Of each class."""
    tta: bool

    def __post_init__(self) -> None:
        self.trained.model.to(self.device)

    @torch.inference_mode()
    def guesses(self, images: Sequence[NDArray[Any]]) -> list[tuple[Guess, ...]]:
        """The most probable classes of each of some images, (S, S, channels)."""
        seen = self.trained.seen
        pixels = torch.stack([torch.from_numpy(image) for image in images]).permute(0, 3, 1, 2)
        inputs = normalize(pixels.to(self.device), seen.mean, seen.std, scale_of(pixels))
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
                if value >= self.thresholds[label]
            )
            for row, of_row in zip(labels.tolist(), values.tolist(), strict=True)
        ]

    def _probable(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.trained.model(inputs).float()
        return outputs.sigmoid() if self.trained.described.multi_label else outputs.softmax(dim=1)


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
            return reason_of(error, self._source.describe(index))
