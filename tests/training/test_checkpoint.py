import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from upchirp import InputError, efficienttrain_plus_plus, plan
from upchirp.training.checkpoints import checkpoint
from upchirp.training.run.plans import as_stored


def content(step: int) -> dict:
    return {"state": {"weight": torch.full((64,), float(step))}, "step": step}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (10, 20, 30):
        checkpoint.save(content(step), checkpoint.step_path(tmp_path, step))
    return tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def lose_the_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def empty_the_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").write_text("")


def test_round_trip(folder: Path) -> None:
    loaded = checkpoint.load_latest(folder)
    assert loaded is not None
    assert loaded.content["step"] == 30
    assert torch.equal(loaded.content["state"]["weight"], torch.full((64,), 30.0))
    assert loaded.damaged == ()


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, lose_the_checksum, empty_the_checksum])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(folder: Path, damage) -> None:
    damage(checkpoint.step_path(folder, 30))
    loaded = checkpoint.load_latest(folder)
    assert loaded is not None
    assert loaded.content["step"] == 20
    assert len(loaded.damaged) == 1
    assert "step_000000030.pt" in loaded.damaged[0]


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(folder: Path) -> None:
    for path in list(checkpoint.checkpoints(folder)):
        flip_a_bit(path)
    with pytest.raises(InputError, match=r"no checkpoint in .* can be used"):
        checkpoint.load_latest(folder)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path) is None


def test_a_failed_write_leaves_everything_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(content(40), checkpoint.step_path(folder, 40))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_prune_keeps_the_latest_and_the_best(folder: Path) -> None:
    # One of a later step, of an attempt that was given up.
    for step in (5, 50, 20):
        checkpoint.save(content(step), checkpoint.best_path(folder, step))
    checkpoint.prune_best(checkpoint.best_path(folder, 20))
    (folder / "step_000000040.pt.tmp").write_bytes(b"half")
    (folder / "step_000000040").mkdir()
    (folder / "step_000000040" / "__0_0.distcp").write_bytes(b"half")
    checkpoint.prune(folder, keep=2)
    names = {path.name for path in folder.iterdir() if path.suffix != ".sha256"}
    assert names == {"step_000000020.pt", "step_000000030.pt", "best_000000020.pt"}


def test_the_checksum_is_the_one_sha256sum_prints(folder: Path) -> None:
    import hashlib

    path = checkpoint.step_path(folder, 10)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_name(path.name + ".sha256").read_text() == f"{digest}  {path.name}\n"


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step_000000001.pt"
    checkpoint.save({"state": Malicious()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_plan_of_before_with_a_magnitude_that_played_no_part_is_the_same_plan() -> None:
    stored = plan(efficienttrain_plus_plus(64), epochs=3, dataset_size=64, batch_size=32)
    made = replace(stored, stages=tuple(replace(stage, magnitude=None) for stage in stored.stages))
    assert as_stored(made, stored, ()) is stored
    longer = plan(efficienttrain_plus_plus(64), epochs=6, dataset_size=64, batch_size=32)
    assert as_stored(longer, stored, ()) is longer
