"""Trackers of other libraries: Weights & Biases, Trackio and MLflow are told of a run as TensorBoard is."""

import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upchirp.data.sources import Note
from upchirp.errors import InputError, one_line
from upchirp.training.recipes.run_groups import TrackerName

_PROJECT = "upchirp"
_WANDB_SECONDS = 30


class Tracker(Protocol):
    """What a tracker's library is asked for."""

    id: str
    """By which the library finds the run again."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures that were measured after a step."""

    def image(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """A picture, (height, width, 3)."""

    def finish(self, summary: Mapping[str, float] | None) -> None:
        """The run ends, with its results if it is done."""


class _Wandb:
    def __init__(self, wandb: Any, folder: Path, run: str | None, about: Mapping[str, Any], note: Note) -> None:
        mode = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(prompt=False, verify=False):
            mode = "offline"
            note("wandb keeps the run on this machine, as nobody is logged in: `wandb sync` uploads it later")
        settings = wandb.Settings(init_timeout=_WANDB_SECONDS, silent=True, console="off")
        asked = {
            "project": os.environ.get("WANDB_PROJECT", _PROJECT),
            "name": folder.name,
            "id": run,
            "resume": "allow",
            "dir": str(folder),
            "config": dict(about),
            "settings": settings,
        }
        try:
            self._run = wandb.init(mode=mode, **asked)
        except wandb.errors.CommError as error:
            note(f"wandb keeps the run on this machine ({one_line(error)}): `wandb sync` uploads it later")
            self._run = wandb.init(mode="offline", **asked)
        self._image = wandb.Image
        self.id = str(self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def image(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        self._run.log({name: self._image(pixels)}, step=step)

    def finish(self, summary: Mapping[str, float] | None) -> None:
        self._run.summary.update(summary or {})
        self._run.finish()


class _Trackio:
    def __init__(self, trackio: Any, folder: Path, run: str | None, about: Mapping[str, Any], note: Note) -> None:
        self.id = run or folder.name
        project = os.environ.get("TRACKIO_PROJECT", _PROJECT)
        self._run = trackio.init(project=project, name=self.id, resume="allow", config=dict(about), embed=False)
        self._image = trackio.Image

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def image(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        self._run.log({name: self._image(pixels)}, step=step)

    def finish(self, summary: Mapping[str, float] | None) -> None:
        if summary:
            self._run.log({f"end/{name}": value for name, value in summary.items()})
        self._run.finish()


class _Mlflow:
    def __init__(self, mlflow: Any, folder: Path, run: str | None, about: Mapping[str, Any], note: Note) -> None:
        self._client = mlflow.MlflowClient()
        if run is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if found is None else found.experiment_id
            run = str(self._client.create_run(experiment, run_name=folder.name).info.run_id)
            for setting, value in about["settings"].items():
                self._client.log_param(run, setting, value)
            for what, value in about.items():
                self._client.log_text(run, json.dumps(value, indent=2), f"{what}.json")
        else:
            self._client.update_run(run, status="RUNNING")
        self.id = run

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self.id, name, value, step=step)

    def image(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        self._client.log_image(self.id, pixels, f"{name}.png")

    def finish(self, summary: Mapping[str, float] | None) -> None:
        for name, value in (summary or {}).items():
            self._client.log_metric(self.id, f"end/{name}", value)
        self._client.set_terminated(self.id, "KILLED" if summary is None else "FINISHED")


TRACKERS: Mapping[TrackerName, Callable[..., Tracker]] = {"wandb": _Wandb, "trackio": _Trackio, "mlflow": _Mlflow}


def check_tracker(name: TrackerName | None) -> None:
    """Refuse a tracker that is not installed, before anything is done."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise InputError(f"{name} is not installed: pip install 'upchirp[{name}]', or leave out `track`")
