"""The beginning of a run: its folder, anew or from a checkpoint."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upchirp.data import DataIdentity
from upchirp.errors import InputError
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.description import Description
from upchirp.training.events import Finished
from upchirp.training.folders import run_folder
from upchirp.training.folders.held_folder import held_folder
from upchirp.training.recipes.config import TrainConfig


@dataclass(frozen=True)
class Beginning:
    """What the run folder and the start say before anything is made."""

    folder: Path
    resuming: bool
    loaded: checkpoint.Loaded | None = None
    data: DataIdentity = field(default_factory=DataIdentity)
    """What the run, or the checkpoint, was trained on."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Settings that may be left open, as they were chosen for it; none of a run that begins."""
    notes: list[str] = field(default_factory=list)
    end: Finished | None = None
    """How the run ended, if it was finished before."""


def begin(config: TrainConfig, held: ExitStack, *, own_model: bool, own_data: bool) -> Beginning:
    """Open the run folder, and keep others out of it for as long as `held` is open.

    Raises:
        InputError: a folder that is in use, holds anything else or a run with other settings; a damaged checkpoint.
    """
    # What is finished is only read, perhaps where nothing can be written.
    if config.output and (end := _finished(config.output, config.to_flat())) is not None:
        return Beginning(config.output, resuming=True, end=end)
    folder, notes = held.enter_context(held_folder(config.output, config.model))
    # Asked while the folder is ours: a run may have begun or ended in it just now.
    if (end := _finished(folder, config.to_flat())) is not None:
        return Beginning(folder, resuming=True, end=end)
    resuming = config.resume == "auto" and run_folder.holds_run(folder)
    if resuming:
        notes += run_folder.check_is_same_run(folder, config.to_flat())
    else:
        run_folder.check_is_free(folder)
        if config.resume == "auto" and not (config.data or own_data):
            raise InputError(f"{folder} holds no run to go on with: check `output`, or give `data` for a new one")
        if not own_model:
            _check_start(config)
    loaded = _checkpoint(config.resume, folder, resuming=resuming)
    trained_on, chosen = DataIdentity(), {}
    if resuming:
        trained_on, chosen = run_folder.read_data(folder), run_folder.chosen(folder)
    elif loaded:
        trained_on = Description.from_dict(loaded.content.get("described", {})).data
        chosen = {name: loaded.content.get(name, value) for name, value in run_folder.BEFORE_CHOICE.items()}
    return Beginning(folder, resuming, loaded, trained_on, chosen, notes)


def _check_start(config: TrainConfig) -> None:
    """Refuse a training that should start from weights and has none."""
    if config.weights is not None:
        return
    if config.facts.from_weights:
        raise InputError(
            f"the regime {config.regime} starts from trained weights: name the file by `weights`, or give `pretrained` "
            "for timm's own"
        )
    if config.keep_head:
        raise InputError("there is no classifier to keep: name the weights to start from by `weights`")


def _finished(folder: Path, settings: Mapping[str, Any]) -> Finished | None:
    """How the run in the folder ended, if it is to be gone on with and is done."""
    last = run_folder.finished(folder) if settings["resume"] == "auto" and run_folder.holds_run(folder) else None
    if last is None:
        return None
    run_folder.check_is_same_run(folder, settings)
    ended = {name: last[name] for name in ("step", "top1", "best_top1", "train_seconds")}
    # Runs of before there were other tasks lack the figure.
    return Finished(**ended, spent=last.get("spent", {}), figure=last.get("figure", "top1"))


def _checkpoint(resume: str | None, folder: Path, *, resuming: bool) -> checkpoint.Loaded | None:
    """The checkpoint to go on from, if any."""
    if resuming:
        return checkpoint.load_latest(folder / run_folder.CHECKPOINTS)
    if resume in (None, "auto"):
        return None
    path = Path(str(resume))
    if path.is_dir():
        latest = checkpoint.load_latest(path / run_folder.CHECKPOINTS)
        if latest is None:
            raise InputError(f"{path} holds no checkpoint: name one by `resume`, or the folder of a run that has one")
        return latest
    return checkpoint.Loaded(path, checkpoint.load(path), ())
