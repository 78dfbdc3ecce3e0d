"""Checkpoints that are damaged, all of them or the latest, and what a kill leaves half written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.integration.faults.conftest import Faults
from tests.runs import Make, interrupted, settings

from upchirp import TrainConfig
from upchirp.training.checkpoints import checkpoint


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)


def lose_the_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def alter_the_checksum(path: Path) -> None:
    sums = path.with_name(path.name + ".sha256")
    sums.write_text(f"{'0' * 64}  {path.name}\n")


DAMAGES = [truncate, empty, flip_a_bit, lose_the_checksum, alter_the_checksum]


@pytest.fixture(scope="module")
def _stopped_folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stopped") / "run"
    own = {"data": str(image_folder), "output": str(output), "checkpoint_interval": 3}
    interrupted(TrainConfig.from_flat(settings(**own)), 8)
    return output


@pytest.fixture
def stopped(_stopped_folder: Path, config: Make) -> TrainConfig:
    """A run that was stopped after step 8, with checkpoints of steps 6 and 8."""
    run = config(checkpoint_interval=3)
    shutil.copytree(_stopped_folder, run.output)
    return run


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_latest(faults: Faults, stopped: TrainConfig, latest: Callable[[TrainConfig], Path], damage) -> None:
    path = latest(stopped)
    damage(path)
    notes = faults.resume(stopped)
    assert any(path.name in note and "going back to the one before" in note for note in notes)
    assert any("going on from" in note and "step_000000006.pt" in note for note in notes)


def test_all(faults: Faults, stopped: TrainConfig) -> None:
    from dataclasses import replace

    folder = stopped.output / "checkpoints"
    for path, damage in zip(checkpoint.checkpoints(folder), DAMAGES, strict=False):
        damage(path)
    before = {path: path.read_bytes() for path in stopped.output.rglob("*") if path.is_file()}
    message = faults.stopped(replace(stopped, resume="auto"))
    assert "no checkpoint in" in message
    assert "`output`" in message
    assert {path: path.read_bytes() for path in stopped.output.rglob("*") if path.is_file()} == before


def test_leftovers_of_a_kill_are_cleared(faults: Faults, stopped: TrainConfig) -> None:
    folder = stopped.output / "checkpoints"
    for name in ("step_000000009.pt.tmp", "step_000000009.pt.sha256.tmp", "best_000000009.pt.tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "step_000000009.pt.sha256").write_text(f"{'0' * 64}  step_000000009.pt\n")
    for name in ("metrics.jsonl.tmp", "model.safetensors.tmp"):
        (stopped.output / name).write_bytes(b"half")
    faults.resume(stopped)
    assert not list(stopped.output.rglob("*.tmp"))
    assert len(list(folder.glob("step_*.pt"))) == stopped.checkpoint_keep


def test_killed_before_the_oldest_are_deleted(faults: Faults, stopped: TrainConfig) -> None:
    folder = stopped.output / "checkpoints"
    newest = list(checkpoint.checkpoints(folder))[-1]
    for step in (1, 2):
        for suffix in ("", ".sha256"):
            shutil.copy(f"{newest}{suffix}", f"{checkpoint.step_path(folder, step)}{suffix}")
    notes = faults.resume(stopped)
    assert any(newest.name in note for note in notes)
    assert len(list(checkpoint.checkpoints(folder))) == stopped.checkpoint_keep


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_killed_at_every_point_of_writing_and_deleting(tmp_path: Path) -> None:
    """A kill before each change of the folder leaves the checkpoint before, or the new one, whole."""
    for step in (10, 20):
        checkpoint.save({"step": step, "weight": torch.full((64,), float(step))}, checkpoint.step_path(tmp_path, step))
    ends = []
    for point in range(100):
        folder = tmp_path.with_name(f"{tmp_path.name}-{point}")
        shutil.copytree(tmp_path, folder)
        if pid := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            _save_until_killed(folder, point)
        loaded = checkpoint.load_latest(folder)
        assert loaded is not None and loaded.damaged == ()
        ends.append(loaded.content["step"])
        assert torch.equal(loaded.content["weight"], torch.full((64,), float(ends[-1])))
        if code == 0:
            break
    assert code == 0
    assert len(ends) > 6
    assert ends == sorted(ends)
    assert {20, 30} == set(ends)


def _save_until_killed(folder: Path, point: int) -> None:
    left = [point]

    def counted(function):
        def call(*arguments, **options):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return function(*arguments, **options)

        return call

    os.fsync = counted(os.fsync)
    for name in ("open", "replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))
    code = 1
    try:
        checkpoint.save({"step": 30, "weight": torch.full((64,), 30.0)}, checkpoint.step_path(folder, 30))
        checkpoint.prune(folder, keep=2)
        code = 0
    finally:
        os._exit(code)
