"""The observer that tells a tracker of a run: its figures, its plan, its machine, and what the model sees."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upchirp.data import Source
from upchirp.data.sources import Note
from upchirp.errors import InputError, one_line
from upchirp.files import write_text
from upchirp.machine import hardware, versions
from upchirp.training.assets.examples import examples_of
from upchirp.training.events import Event, Finished, Observer, noting
from upchirp.training.folders.run_folder import TRACKING
from upchirp.training.recipes.config_file import load_config
from upchirp.training.recipes.run_groups import TrackerName
from upchirp.training.run.log import scalars
from upchirp.training.run.setup import Setup
from upchirp.training.run.trackers import TRACKERS, Tracker


def track(
    name: TrackerName, setup: Setup, settings: Mapping[str, Any], source: Source, observers: Sequence[Observer]
) -> "Tracked":
    """Start a tracker, or go on with it; a run that is new there shows a few images as each stage does."""
    trainer, plan = setup.trainer, setup.plan
    about = {
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        "plan": plan.to_dict(),
        "environment": {"hardware": hardware(), "versions": versions()},
    }
    tracked = Tracked(name, setup.folder, about, setup.exported, noting(observers))
    if not tracked.goes_on:
        shown = examples_of(plan.curriculum, plan, source, trainer.augmentation, trainer.loading)
        rows = [row for row in shown.rows if len(row.images)]
        names = (f"seen/{number}_{row.bandwidth}px" for number, row in enumerate(rows, start=1))
        tracked.images({name: np.concatenate(row.images, axis=1) for name, row in zip(names, rows, strict=True)}, 0)
    return tracked


class Tracked:
    """An observer that tells a tracker of a run; what fails there on the way is said once, and ends no training.

    The run has its folder's name there; the folder keeps the id by which it goes on.

    Raises:
        InputError: it cannot be started.
    """

    def __init__(
        self, name: TrackerName, folder: Path, about: Mapping[str, Any], exported: tuple[str, int], note: Note
    ) -> None:
        path = folder / TRACKING
        known: dict[str, str] = load_config(path) if path.exists() else {}
        try:
            self._tracker: Tracker | None = TRACKERS[name](
                importlib.import_module(name), folder, known.get(name), about, note
            )
        except Exception as error:
            raise InputError(
                f"{name} cannot be started ({one_line(error)}): see to it, or leave out `track`"
            ) from error
        self.goes_on = name in known
        """Whether the tracker knew the run before."""
        write_text(path, json.dumps({**known, name: self._tracker.id}) + "\n")
        self._name, self._exported, self._note = name, exported, note

    def __call__(self, event: Event) -> None:
        """Tell it of an event."""
        if (measured := scalars(event, self._exported)) is not None:
            step, values = measured
            self._tell("log", values, step)
        elif isinstance(event, Finished):
            ended = {event.figure: event.top1, f"best_{event.figure}": event.best_top1}
            self._end({**ended, "train_seconds": event.train_seconds})

    def images(self, named: Mapping[str, NDArray[np.uint8]], step: int) -> None:
        """Show pictures, (height, width, 3), by their names."""
        for name, pixels in named.items():
            self._tell("image", name, pixels, step)

    def close(self) -> None:
        """End what is not done, to be gone on with."""
        self._end(None)

    def _end(self, summary: Mapping[str, float] | None) -> None:
        self._tell("finish", summary)
        self._tracker = None

    def _tell(self, method: Literal["log", "image", "finish"], *values: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, method)(*values)
        except Exception as error:
            self._tracker = None
            self._note(
                f"{self._name} is told nothing more of the run ({one_line(error)}); TensorBoard and metrics.jsonl are"
            )
