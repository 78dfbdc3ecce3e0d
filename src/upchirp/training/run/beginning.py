"""How a run begins: in which folder, anew or from a checkpoint."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from upchirp.data import DataIdentity
from upchirp.errors import InputError
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.weights import check_start
from upchirp.training.events import Finished
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.run import run_folder
from upchirp.training.run.held_folder import held_folder
from upchirp.training.run.resumption import with_stored


@dataclass(frozen=True)
class Beginning:
    """What the run folder and the start say before anything is made."""

    config: TrainConfig
    """The settings, with those of the run that is gone on with."""
    folder: Path
    resuming: bool
    loaded: checkpoint.Loaded | None = None
    data: DataIdentity = field(default_factory=DataIdentity)
    """What the run, or the checkpoint, was trained on."""
    notes: list[str] = field(default_factory=list)
    end: Finished | None = None
    """How the run ended, if it was finished before."""


def begin(config: TrainConfig, held: ExitStack, *, own_model: bool, own_data: bool) -> Beginning:
    """Open the run folder, and keep others out of it for as long as `held` is open.

    Raises:
        InputError: a folder that is in use, holds anything else or a run with other settings; a damaged checkpoint.
    """
    config = with_stored(config)
    # What is finished is only read, perhaps where nothing can be written.
    if (end := _finished(config)) is not None:
        return end
    folder, notes = held.enter_context(held_folder(config.output, config.model))
    # Asked while the folder is ours: a run may have begun or ended in it just now.
    if (end := _finished(config)) is not None:
        return end
    resuming = config.resume == "auto" and run_folder.holds_run(folder)
    if resuming:
        notes += run_folder.check_is_same_run(folder, config)
    else:
        run_folder.check_is_free(folder)
        if config.resume == "auto" and not (config.data or own_data):
            raise InputError(f"{folder} holds no run to go on with: check --output, or give --data for a new one")
        if not own_model:
            check_start(config.weights, regime=config.regime, keep_head=config.keep_head)
    loaded = _checkpoint(config, folder, resuming=resuming)
    trained_on = DataIdentity()
    if resuming:
        trained_on = run_folder.read_data(folder)
    elif loaded:
        trained_on = Description.from_dict(loaded.content.get("described", {})).data
    return Beginning(config, folder, resuming, loaded, trained_on, notes)


def _finished(config: TrainConfig) -> Beginning | None:
    """The run in the output folder, if it is to be gone on with and is done."""
    folder = config.output
    if folder is None or config.resume != "auto" or not run_folder.holds_run(folder):
        return None
    last = run_folder.finished(folder)
    if last is None:
        return None
    run_folder.check_is_same_run(folder, config)
    end = Finished(**{name: last[name] for name in ("step", "top1", "best_top1", "train_seconds")})
    return Beginning(config, folder, resuming=True, end=end)


def _checkpoint(config: TrainConfig, folder: Path, *, resuming: bool) -> checkpoint.Loaded | None:
    """The checkpoint to go on from, if any."""
    if resuming:
        return checkpoint.load_latest(folder / run_folder.CHECKPOINTS)
    if config.resume in (None, "auto"):
        return None
    path = Path(str(config.resume))
    if path.is_dir():
        latest = checkpoint.load_latest(path / run_folder.CHECKPOINTS)
        if latest is None:
            raise InputError(f"{path} holds no checkpoint: give --resume one, or the folder of a run that has one")
        return latest
    return checkpoint.Loaded(path, checkpoint.load(path), ())
