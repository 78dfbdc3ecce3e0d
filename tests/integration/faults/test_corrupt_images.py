"""Images that cannot be read: up to 1 % cost nothing but themselves, more stop the run with all its work kept."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.faults.conftest import Faults
from tests.runs import Make, at_step, interrupted, notes, settings

from upchirp import TrainConfig
from upchirp.training import Event, train

TRAIN, VAL = 200, 100
"""Images in each split; 1 % are 2 and 1."""


def many(image_folder: Path, root: Path) -> Path:
    """A data folder of so many images, whole."""
    shutil.copytree(image_folder, root)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for index in range(count - len(list((root / split).rglob("*.jpg")))):
            shutil.copy(root / split / "dog/000.jpg", root / split / f"dog/more{index:03d}.jpg")
    return root


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path) -> Path:
    return many(image_folder, tmp_path / "data")


@pytest.fixture(scope="module")
def whole(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run on such images leaves that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    data = many(image_folder, root / "data")
    train(TrainConfig.from_flat(settings(data=str(data), output=str(root / "run"), epochs=1)))
    return root / "run"


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
    seen: list[Event] = []
    train(run, observers=[seen.append])
    # Each is named once, however often it is asked for.
    assert sum("replaced by another" in note for note in notes(seen)) == 2
    assert sum("left out" in note for note in notes(seen)) == 1

    resumed = interrupted(replace(run, output=tmp_path / "resumed", workers=2), 7)
    train(replace(resumed, workers=1))
    faults.assert_same(resumed.output, run.output)


def test_more_stop_the_run(faults: Faults, config: Make, folder: Path, latest: Callable[[TrainConfig], Path]) -> None:
    damage(folder, "train", 3)
    run = config(data=str(folder), epochs=2)
    assert "more than 1 % of the 200 training images" in faults.stopped(run)
    assert latest(run).exists()


@pytest.mark.parametrize("vanish", [False, True])
def test_more_for_validation_stop_the_run_until_they_are_mended(
    faults: Faults, config: Make, folder: Path, whole: Path, latest: Callable[[TrainConfig], Path], vanish: bool
) -> None:
    run = config(data=str(folder), epochs=1)
    away = folder / "away"
    before = {} if vanish else damage(folder, "val", 2)
    message = faults.stopped(run, at_step(2, lambda: (folder / "val").rename(away) if vanish else None))
    assert "more than 1 % of the 100 validation images" in message
    assert "--resume auto --output" in message
    step = int(latest(run).stem.partition("_")[2])
    assert step > 0, "what was trained before the evaluation is kept"
    if vanish:
        away.rename(folder / "val")
    for path, data in before.items():
        path.write_bytes(data)
    train(replace(run, resume="auto"))
    faults.assert_same(run.output, whole)
