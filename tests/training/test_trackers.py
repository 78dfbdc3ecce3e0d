"""Trackers are told of a run as TensorBoard is: the real ones where they are installed, and one that stands in."""

import json
import sqlite3
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runs import Make, interrupted, logged, notes

from upchirp import InputError, train
from upchirp.training import Event
from upchirp.training.folders.run_folder import holds_run

SMALL = {"model": "test_resnet", "model_kwargs": {}, "epochs": 1, "evaluations": 1, "model_ema": False}


class StandIn(types.ModuleType):
    """Trackio, as far as it is asked for."""

    Image = staticmethod(lambda pixels: pixels)

    def __init__(self) -> None:
        super().__init__("trackio")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.finished = 0
        self.fails_from = 1000

    def init(self, **asked: Any) -> "StandIn":
        self.started.append(asked)
        return self

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if step is not None and step >= self.fails_from:
            raise ConnectionError("no route\nto host")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    library = StandIn()
    library.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]  # what find_spec looks for
    monkeypatch.setitem(sys.modules, "trackio", library)
    return library


def test_it_is_told_what_tensorboard_is_and_goes_on_under_the_same_name(config: Make, trackio: StandIn) -> None:
    run = config(**SMALL, track="trackio")
    train(interrupted(run, 2))
    first, second = trackio.started
    assert trackio.finished == 2
    assert first["name"] == second["name"] == "run" and first["project"] == "upchirp"
    assert first["config"]["settings"]["batch_size"] == 32
    plan = first["config"]["plan"]["stages"]
    assert first["config"]["environment"].keys() == {"hardware", "versions"}
    # A strip of images for each stage, once, as the model sees them.
    strips = [values for _, values in trackio.logged if next(iter(values)).startswith("seen/")]
    shapes = {name: pixels.shape for values in strips for name, pixels in values.items()}
    sides = [stage["bandwidth"] for stage in plan]
    assert shapes == {f"seen/{k}_{side}px": (side, 8 * side, 3) for k, side in enumerate(sides, start=1)}
    assert all(pixels.dtype == np.uint8 for values in strips for pixels in values.values())
    told = {step: values["train/loss"] for step, values in trackio.logged if "train/loss" in values}
    assert told == {line["step"]: line["loss"] for line in logged(run.output)}
    (top1,) = [values for _, values in trackio.logged if "top1" in values]
    (end,) = [values for _, values in trackio.logged if "end/top1" in values]
    assert top1["top1"] == end["end/top1"] == top1["evaluation/model/64/top1"]


def test_one_that_fails_on_the_way_ends_nothing(config: Make, trackio: StandIn) -> None:
    trackio.fails_from = 2
    events: list[Event] = []
    train(config(**SMALL, track="trackio"), observers=[events.append])
    (line,) = [note for note in notes(events) if "trackio" in note]
    assert line.startswith("trackio is told nothing more of the run (no route to host)") and not trackio.finished


def test_one_that_is_missing_or_does_not_start_is_refused_in_one_line(
    config: Make, trackio: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError("the folder\nis read-only")

    monkeypatch.setattr(trackio, "init", refuse)
    run = config(**SMALL, track="trackio")
    with pytest.raises(InputError, match=r"trackio cannot be started \(the folder is read-only\): see to it, or leave"):
        train(run)
    # No run was begun by then.
    assert run.output is not None and not holds_run(run.output)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"mlflow is not installed: pip install 'upchirp\[mlflow\]', or leave out `track`"
    ):
        train(config(**SMALL, track="mlflow"))


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_the_library_itself_without_a_network(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable, place in {"TRACKIO_DIR": "trackio", "HOME": "home"}.items():
        monkeypatch.setenv(variable, str(tmp_path / place))
    pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    database = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.chdir(tmp_path)
    run = config(**SMALL, track=name)
    events: list[Event] = []
    train(interrupted(run, 2, events.append), observers=[events.append])
    assert run.output is not None
    assert not [note for note in notes(events) if "nothing more" in note]
    known = json.loads((run.output / "tracking.json").read_text())[name]
    if name == "wandb":
        assert any("as nobody is logged in" in note for note in notes(events))
        assert list((run.output / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb"))
        assert list((run.output / "wandb").rglob("*.png"))
    elif name == "mlflow":
        with sqlite3.connect(database) as connection:
            steps = {row[0] for row in connection.execute("select step from metrics where key = 'train/loss'")}
            states = [row[0] for row in connection.execute("select status from runs")]
        assert steps == {line["step"] for line in logged(run.output)} and states == ["FINISHED"]
    else:
        assert known == "run" and list((tmp_path / "trackio").rglob("upchirp.db"))
