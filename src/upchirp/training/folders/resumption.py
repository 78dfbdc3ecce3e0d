"""The way to go on with what ended, as the end of a message."""

import shlex
from pathlib import Path

from upchirp.training.parallel.launcher import world_size


def go_on_with(folder: Path, *, job: str = "train", objects: bool) -> str:
    """How to go on with the run in a folder, or with a search or comparison, as the end of a message.

    `objects` says that its model or its data are objects of a program, which no command can give.

    >>> go_on_with(Path("runs/my run"), objects=False)
    "go on with: upchirp train --resume auto --output 'runs/my run'"
    """
    if objects:
        where = "its config" if job == "train" else "the config of its training"
        return f'go on by the same call of upchirp.{job} with resume="auto" and output={str(folder)!r} in {where}'
    words = f"{job} --resume auto --output {shlex.quote(str(folder))}"
    if world_size() > 1:
        return f"go on with the same torchrun line as before and `-m upchirp {words}` at its end"
    return f"go on with: upchirp {words}"
