"""How to go on with what ended, as the end of a message."""

import shlex
from pathlib import Path

from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.groups import Place


def go_on_by(command: str, place: Place, folder: Path) -> str:
    """How to go on with a search or a comparison that a command started in a folder, as the end of a message.

    >>> go_on_by("upchirp search --data images", Place(), Path("runs/search-1"))
    'go on with: upchirp search --data images --output runs/search-1 --resume auto'
    """
    if not command:
        return f'go on by the same call, with resume="auto" and output={str(folder)!r} in the config of its training'
    output = "" if place.output else f" --output {shlex.quote(str(folder))}"
    return f"go on with: {command}{output}{'' if place.resume else ' --resume auto'}"


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
