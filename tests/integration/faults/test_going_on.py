"""A run that stopped goes on by the line that it printed, with the settings of its folder, wherever its data lie."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.integration.faults.conftest import Faults
from tests.runs import Make, at_step, stop_after

from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.data import open_data
from upchirp.training import Interrupted


def test_the_printed_line_works_anywhere(
    faults: Faults, config: Make, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").symlink_to(image_folder)
    monkeypatch.chdir(tmp_path)
    run = config(data="./images", output=str(tmp_path / "a run"), checkpoint_interval=2)
    message = faults.stopped(run, at_step(5, _fail))
    command = message.partition("go on with: ")[2]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(shlex.split(command)[1:]) == 0
    faults.assert_same(tmp_path / "a run")
    assert yaml.safe_load((tmp_path / "a run/config.yaml").read_text())["data"] == f"{tmp_path}/images"


def test_data_lie_elsewhere(faults: Faults, config: Make, image_folder: Path, tmp_path: Path) -> None:
    run = config(checkpoint_interval=2)
    faults.stopped(run, at_step(5, _fail))
    copy = shutil.copytree(image_folder, tmp_path / "scratch of job 2")
    faults.resume(replace(run, data=f"{copy}/"))


def _fail() -> None:
    raise OSError("the disk fails")


def test_settings_that_are_asked_for_are_compared(faults: Faults, config: Make) -> None:
    folder = {"resume": "auto", "output": str(faults.undisturbed)}
    train(TrainConfig.from_flat(folder))
    train(TrainConfig.from_flat({**folder, "batch_size": 32, "workers": 3}))
    for given in (
        TrainConfig.from_flat({**folder, "seed": 1}),
        replace(TrainConfig.from_flat(folder), seed=1),
        replace(config(seed=1), output=faults.undisturbed, resume="auto"),
    ):
        with pytest.raises(InputError, match=r"other settings: seed 0 \(now 1\): go on with the same"):
            train(given)
    # A default that somebody asks for is no default.
    with pytest.raises(InputError, match="epochs 3"):
        train(TrainConfig.from_flat({**folder, "epochs": TrainConfig().epochs}))


def test_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run to go on with: check `output`"):
        train(TrainConfig.from_flat({"resume": "auto", "output": str(tmp_path / "runn")}))
    assert not list(tmp_path.iterdir())


def test_objects_are_given_again(faults: Faults, config: Make, image_folder: Path) -> None:
    run = config()
    with pytest.raises(Interrupted, match=r'go on by the same call of .* with resume="auto" and output='):
        train(run, data=open_data(image_folder), observers=[stop_after(2)])
