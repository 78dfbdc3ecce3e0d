"""States of a training as files: written while it goes on, and gone on from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from upchirp.errors import InputError
from upchirp.training.checkpoints import checkpoint
from upchirp.training.parallel.state import State

Counted = TypeVar("Counted")


class States:
    """Writes states of a training into a folder, one at a time; of several ranks the first one, or all their parts.

    All ranks call its methods together.
    """

    def __init__(self, state: State, folder: Path, written: Callable[[Path], None]) -> None:
        self.state = state
        self.folder = folder
        self._written = written
        self._writer = state.parallel.writer()

    def is_finite(self) -> bool:
        """Whether all weights are finite, on every rank."""
        self.state.average_statistics()
        # A rank may hold a part only, and sees no further.
        return not any(self.state.parallel.ranks.largest(int(not self.state.is_finite())))

    def save(self, content: dict[str, Any], path: Path | None = None) -> None:
        """Write the state and what belongs to it; by default as the checkpoint of its step."""
        self.finish()
        path = path or checkpoint.step_path(self.folder, self.state.step)
        if written := self._writer.begin(self.state, content, path):
            self._written(written)

    @property
    def busy(self) -> bool:
        """Whether this rank still writes a checkpoint while training goes on."""
        return self._writer.busy

    @property
    def pending(self) -> bool:
        """Whether a checkpoint that was begun is not finished yet, on any rank."""
        return self._writer.pending

    def finish(self) -> None:
        """Wait for a checkpoint that is being written while training goes on, if there is one."""
        if path := self._writer.finish():
            self._written(path)


def go_on_from(loaded: checkpoint.Loaded, state: State, counted: Callable[[Mapping[str, Any]], Counted]) -> Counted:
    """Put a checkpoint into a state of the same model and recipe; returns what `counted` reads beside it.

    Raises:
        InputError: it belongs to another model or recipe, or is none of a training.
    """
    try:
        state.parallel.restore(state, loaded)
        return counted(loaded.content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{loaded.path} holds no training state of upchirp: {error!r}") from error
