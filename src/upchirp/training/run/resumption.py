"""What a run that goes on takes from its folder, and how to go on with one that ended."""

import shlex
from dataclasses import replace
from pathlib import Path

from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.config_file import CONFIG, load_config
from upchirp.training.run.run_folder import holds_run


def with_stored(config: TrainConfig) -> TrainConfig:
    """The settings of the run in the output folder if it is to be gone on with, and over them what was asked for now.

    Asked for is what `given` names, and what was changed since. Without `given` all of it was.

    Raises:
        InputError: the folder's settings cannot be read, or do not go with what was asked for.
    """
    folder = config.output
    if config.resume != "auto" or folder is None or not holds_run(folder) or config.given is None:
        return config
    asked = config.asked()
    if asked.get("recipe") == "auto":
        # Stored is what that chose.
        del asked["recipe"]
    stored = load_config(folder / CONFIG)
    # A folder may have been moved since its settings were written.
    asked |= {"output": str(folder), "resume": config.resume}
    return replace(TrainConfig.from_flat({**stored, **asked}, source=str(folder / CONFIG)), given=config.given)


def go_on_by(command: str, config: TrainConfig, folder: Path) -> str:
    """How to go on with a search or a comparison that a command started in a folder, as the end of a message.

    >>> go_on_by("upchirp search --data images", TrainConfig(), Path("runs/search-1"))
    'go on with: upchirp search --data images --output runs/search-1 --resume auto'
    """
    if not command:
        return f'go on by the same call, with resume="auto" and output={str(folder)!r} in the config of its training'
    output = "" if config.output else f" --output {shlex.quote(str(folder))}"
    return f"go on with: {command}{output}{'' if config.resume else ' --resume auto'}"


def go_on_with(folder: Path, *, objects: bool) -> str:
    """How to go on with the run in a folder, as the end of a message.

    `objects` says that its model or its data are objects of a program, which no command can give.

    >>> go_on_with(Path("runs/my run"), objects=False)
    "go on with: upchirp train --resume auto --output 'runs/my run'"
    """
    if objects:
        return f'go on by the same call of upchirp.train with resume="auto" and output={str(folder)!r} in its config'
    words = f"train --resume auto --output {shlex.quote(str(folder))}"
    if world_size() > 1:
        return f"go on with the same torchrun line as before and `-m upchirp {words}` at its end"
    return f"go on with: upchirp {words}"
