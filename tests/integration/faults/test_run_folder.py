"""A run folder that another run wants, that becomes read-only, or is deleted, in mid-run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.faults.conftest import Faults
from tests.runs import Make, at_step

from upchirp import InputError, TrainConfig, train
from upchirp.training import read_metrics

READ_ONLY = """
import ctypes, sys
from pathlib import Path
# A process of root may write anywhere: without these two rights (DAC_OVERRIDE, DAC_READ_SEARCH) it is as others are.
libc = ctypes.CDLL(None)
header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, rights) == 0
rights[0] &= ~(1 << 1 | 1 << 2)
assert libc.capset(header, rights) == 0
from upchirp.cli import main, train
from upchirp.training import Stepped
folder = Path(sys.argv[1])
class Display(train.Display):
    def __call__(self, event):
        super().__call__(event)
        if isinstance(event, Stepped) and event.step.index == 4:
            folder.chmod(0o555)
train.Display = Display
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="takes the rights of root away as Linux does it")
def test_read_only(
    faults: Faults,
    config: Make,
    python: Callable[..., tuple[int, list[str]]],
    words: Callable[[TrainConfig], list[str]],
) -> None:
    run = config(checkpoint_interval=3)
    folder = run.output / "checkpoints"
    code, lines = python(READ_ONLY, folder, *words(run))
    assert code == 2
    assert len(lines) == 1, "\n".join(lines)
    assert "Permission denied" in lines[0]
    assert "step_000000003.pt: once that is mended, go on with: upchirp train --resume auto" in lines[0]
    folder.chmod(0o755)
    faults.resume(run)


def test_deleted(faults: Faults, config: Make) -> None:
    run = config(checkpoint_interval=3)
    message = faults.stopped(run, at_step(5, lambda: shutil.rmtree(run.output)))
    assert f"there is no {run.output} on this machine" in message
    assert not run.output.exists(), "nothing that looks like a run is left"
    faults.resume(run)


def test_deleted_checkpoints_are_written_anew(faults: Faults, config: Make) -> None:
    run = config(checkpoint_interval=3)
    train(run, observers=[at_step(5, lambda: shutil.rmtree(run.output / "checkpoints"))])
    faults.assert_same(run.output)
    assert list((run.output / "checkpoints").glob("step_*.pt"))


def test_a_second_run_is_kept_out(faults: Faults, config: Make) -> None:
    run = config(checkpoint_interval=3)
    refusals: list[str] = []

    def start_again() -> None:
        for changes in ({}, {"resume": "auto"}, {"seed": 1}):
            with pytest.raises(InputError, match=f"^{run.output} is in use by process {os.getpid()} on") as caught:
                train(config(checkpoint_interval=3, **changes))
            refusals.append(str(caught.value))

    train(run, observers=[at_step(5, start_again)])
    assert len(refusals) == 3
    assert "choose another `output`" in refusals[0]
    faults.assert_same(run.output)
    assert not (run.output / "run.lock").exists()


def test_a_start_that_fails_leaves_nothing(config: Make, tmp_path: Path) -> None:
    output = tmp_path / "runs/deep/run"
    with pytest.raises(InputError, match="no_such_model"):
        train(config(model="no_such_model", output=str(output)))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").touch()
    for name, reason in (("file", "not an empty folder"), ("file/run", "cannot write")):
        with pytest.raises(InputError, match=reason):
            train(config(output=str(tmp_path / name)))


def test_what_is_finished_is_read_where_nothing_can_be_written(
    faults: Faults, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upchirp.training.run.beginning.held_folder", None)
    done = train(config(output=str(faults.undisturbed), resume="auto"))
    assert done.top1 == read_metrics(faults.undisturbed)[-1]["top1"]
