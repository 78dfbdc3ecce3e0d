"""Images that cannot be read: up to 1 % cost nothing but themselves, more stop the run with all its work kept."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.faults.conftest import Faults, Make

from upchirp import TrainConfig
from upchirp.training import Interrupted, Noted, train

TRAIN, VAL = 200, 100
"""Images in each split; 1 % are 2 and 1."""


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path) -> Path:
    """A data folder of so many images, whole."""
    root = tmp_path / "data"
    shutil.copytree(image_folder, root)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for index in range(count - len(list((root / split).rglob("*.jpg")))):
            shutil.copy(root / split / "dog/000.jpg", root / split / f"dog/more{index:03d}.jpg")
    return root


def damage(folder: Path, split: str, count: int) -> dict[Path, bytes]:
    """Damage images in several ways; returns what they were."""
    paths = sorted((folder / split / "cat").iterdir())[:count]
    whole = {path: path.read_bytes() for path in paths}
    for number, (path, data) in enumerate(whole.items()):
        path.write_bytes((data[: len(data) // 2], b"", b"no image", data[:2] + bytes(len(data)))[number % 4])
    return whole


def test_one_percent_goes_on_says_so_and_repeats(faults: Faults, config: Make, folder: Path, tmp_path: Path) -> None:
    damage(folder, "train", 2)
    damage(folder, "val", 1)
    run = config(data=str(folder), epochs=2)
    notes: list[str] = []
    train(run, observers=[lambda event: notes.append(event.message) if isinstance(event, Noted) else None])
    assert sum("replaced by another" in note for note in notes) == 2
    assert sum("left out" in note for note in notes) == 1

    again = replace(run, output=tmp_path / "again", workers=2)
    train(again)
    faults.assert_same(again.output, run.output)

    resumed = replace(run, output=tmp_path / "resumed")
    with pytest.raises(Interrupted):
        train(resumed, observers=[faults.at_step(7, _interrupt)])
    train(replace(resumed, resume="auto", workers=1))
    faults.assert_same(resumed.output, run.output)


def _interrupt() -> None:
    import signal

    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("val", 2)])
def test_more_stop_the_run_until_they_are_mended(
    faults: Faults, config: Make, folder: Path, latest: Callable[[TrainConfig], Path], split: str, count: int
) -> None:
    run = config(data=str(folder), epochs=2)
    train(replace(run, output=run.output.with_name("whole")))
    whole = damage(folder, split, count)
    if split == "train":
        # The weights of a run that replaced images are its own: only what it says counts here.
        message = faults.stopped(run)
        assert "more than 1 % of the 200 training images" in message
        assert latest(run).exists()
        return
    message = faults.stopped(run)
    assert "more than 1 % of the 100 validation images" in message
    assert "--resume auto --output" in message
    step = int(latest(run).stem.partition("_")[2])
    assert step > 0, "what was trained before the evaluation is kept"
    for path, data in whole.items():
        path.write_bytes(data)
    train(replace(run, resume="auto"))
    faults.assert_same(run.output, run.output.with_name("whole"))


def test_validation_images_that_vanish(faults: Faults, config: Make, folder: Path) -> None:
    run = config(data=str(folder), epochs=2)
    train(replace(run, output=run.output.with_name("whole")))
    away = folder / "away"
    message = faults.stopped(run, faults.at_step(2, lambda: (folder / "val").rename(away)))
    assert "more than 1 % of the 100 validation images" in message
    away.rename(folder / "val")
    train(replace(run, resume="auto"))
    faults.assert_same(run.output, run.output.with_name("whole"))
