"""Trained weights from a run or a file, with the settings and the preprocessing that they need."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upchirp.data import Augmentation
from upchirp.errors import InputError
from upchirp.training.checkpoints.description import preprocessing_for
from upchirp.training.checkpoints.named_weights import has_tag, name_of
from upchirp.training.checkpoints.preprocessing import Preprocessing
from upchirp.training.checkpoints.weights import Weights, Which, read_weights
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.config_file import CONFIG, load_config
from upchirp.training.run.run_folder import WEIGHTS, WEIGHTS_EMA, holds_run


@dataclass(frozen=True, eq=False)
class TrainedWeights:
    """Weights, and what is known of them."""

    config: TrainConfig
    """The settings of the run, or those that the file says."""
    weights: Weights
    """The tensors."""
    told: Preprocessing
    """What the weights themselves say of preprocessing."""
    size: int
    """Input side that they are used at where no other is asked for, pixels."""

    @property
    def seen(self) -> Augmentation:
        """The settings of images: as the weights say, else as the run has them.

        Raises:
            InputError: neither has a mean for the channels of the images.
        """
        return self.seen_with(None, None)

    def seen_with(self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Augmentation:
        """The same with another mean and standard deviation, if these are given."""
        told, own = self.told, self.config.augmentation
        mean, channels = mean or told.mean or own.mean, self.config.in_chans
        if len(mean) != channels:
            raise InputError(
                f"{self.weights.path} is for images of {channels} channel{'s' if channels > 1 else ''}, and the mean "
                f"that is known has {len(mean)} value{'s' if len(mean) > 1 else ''}: give `mean` and `std` to "
                "`upchirp eval`, or train on from the weights"
            )
        return replace(
            own,
            mean=mean,
            std=std or told.std or own.std,
            pixel_type=told.pixel_type or own.pixel_type,
            interpolation=told.interpolation or own.interpolation,
        )


def read_trained(
    run: Path | None,
    weights: Path | None,
    model: str | None,
    model_kwargs: dict[str, Any] | None,
    which: Which | None = None,
) -> TrainedWeights:
    """Read the weights of a run, or of a file.

    Args:
        run: run folder; gives what is not given otherwise.
        weights: a weights file; by default the run's, its average if there is one.
        model: timm's name, by default what run or file says.
        model_kwargs: arguments for its constructor.
        which: the average of the weights, or the raw ones; by default the average where there is one.

    Raises:
        InputError: a folder that holds no run, or neither weights nor a finished run; see `read_weights`.
    """
    config, path = _named(run, weights, model, model_kwargs, which)
    stored = read_weights(path)
    if which is not None:
        stored = stored.only(which)
    told = preprocessing_for(stored.description, model)
    size = config.final_size if run is not None else told.input_size or config.final_size
    return TrainedWeights(config, stored, told, size)


def _named(
    run: Path | None,
    weights: Path | None,
    model: str | None,
    model_kwargs: dict[str, Any] | None,
    which: Which | None,
) -> tuple[TrainConfig, Path]:
    """The settings, and the file of the weights."""
    if weights is None and run is None and model is not None and has_tag(model):
        weights = name_of(model)
    values: dict[str, Any] = {}
    if run is not None:
        if not holds_run(run):
            raise InputError(f"{run} holds no run: give the `output` of a training")
        values = load_config(run / CONFIG)
    elif weights is None:
        missing = "nothing to evaluate" if model is None else "no weights"
        raise InputError(f"{missing}: give `run`, or `weights` with `data`")
    else:
        values = {"weights": str(weights)}
    if model is not None:
        values |= {"model": model, "model_kwargs": {}}
    if model_kwargs:
        # Of files that do not say it.
        channels = {name: value for name, value in model_kwargs.items() if name == "in_chans"}
        others = {name: value for name, value in model_kwargs.items() if name != "in_chans"}
        values |= {**channels, **({"model_kwargs": others} if others or not channels else {})}
    config = TrainConfig.from_flat(values, source=str(run / CONFIG) if run is not None else "weights")
    if weights is None and run is not None:
        names = {"average": (WEIGHTS_EMA,), "raw": (WEIGHTS,), None: (WEIGHTS_EMA, WEIGHTS)}[which]
        weights = next((run / name for name in names if (run / name).exists()), None)
        if weights is None and which == "average" and (run / WEIGHTS).exists():
            raise InputError(f"{run} keeps no average of its weights: leave out `which`")
    if weights is None:
        raise InputError("no weights: give `weights`, or a `run` that is finished")
    return config, weights


def is_same_data(one: str, other: str) -> bool:
    """Whether two names of data stand for the same files."""
    paths = [Path(name).expanduser() for name in (one, other)]
    return one == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
