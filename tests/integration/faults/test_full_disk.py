"""A full disk: a limit on the size of files, set in mid-run, makes writes fail as a full disk does."""

import errno
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.faults.conftest import Faults
from tests.runs import Make, at_step, losses

from upchirp import TrainConfig
from upchirp.training import load_checkpoint


@contextmanager
def full_disk(least: int = 0) -> Iterator[Callable[[], None]]:
    """Gives a function after whose call no file grows beyond so many bytes; Python ignores the signal of the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (least, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.1, 0.9, 0.999])
def test_while_a_checkpoint_is_written(
    faults: Faults, config: Make, latest: Callable[[TrainConfig], Path], share: float
) -> None:
    run = config(checkpoint_interval=4)
    size = sorted((faults.undisturbed / "checkpoints").glob("step_*.pt"))[0].stat().st_size
    with full_disk(int(share * size)) as fill:
        message = faults.stopped(run, at_step(7, fill))
    assert "step_000000008.pt" in message
    assert "step_000000004.pt: once that is mended, go on with: upchirp train --resume auto" in message
    assert load_checkpoint(latest(run))["state"]["step"] == 4
    assert not list(run.output.rglob("*.tmp"))
    faults.resume(run)


def test_while_the_log_is_written(faults: Faults, config: Make) -> None:
    run = config(checkpoint_interval=2, log_interval=1)
    with full_disk() as fill:
        message = faults.stopped(run, at_step(5, fill))
    assert "File too large" in message
    assert "step_000000004.pt: once that is mended, go on with: upchirp train --resume auto" in message
    faults.resume(run)
    steps = list(losses(run.output))
    assert steps == list(range(1, steps[-1] + 1))


def test_while_a_line_of_the_log_is_written_in_half(faults: Faults, config: Make) -> None:
    run = config(checkpoint_interval=2, log_interval=1)
    faults.stopped(run, at_step(5, _fail))
    log = run.output / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "train", "st')
    faults.resume(run)
    assert all(json.loads(line) for line in log.read_text().splitlines())


def _fail() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_while_weights_are_exported(faults: Faults, config: Make) -> None:
    run = config()
    size = (faults.undisturbed / "model.safetensors").stat().st_size
    total = json.loads((faults.undisturbed / "metrics.jsonl").read_text().splitlines()[-1])["step"]

    with full_disk(size - 100) as fill:
        message = faults.stopped(run, _after_the_last_checkpoint(total, fill))
    assert "cannot write" in message
    assert "model.safetensors" in message
    assert f"step_{total:09d}.pt: once that is mended, go on" in message
    assert not list(run.output.rglob("*.tmp"))
    assert not (run.output / "model.safetensors").exists()
    faults.resume(run)


def _after_the_last_checkpoint(total: int, action: Callable[[], None]) -> Callable[[object], None]:
    from upchirp.training import Saved

    # The best one comes after the last evaluation.
    def observe(event: object) -> None:
        if isinstance(event, Saved) and event.step == total and event.path.name.startswith("best"):
            action()

    return observe


BOARD = """
import errno, sys
from tensorboard.summary.writer.record_writer import RecordWriter
write, done = RecordWriter.write, []
def full(self, data):
    done.append(data)
    if len(done) > 20:
        raise OSError(errno.ENOSPC, "No space left on device")
    write(self, data)
RecordWriter.write = full
from upchirp.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_while_tensorboard_is_written(
    faults: Faults,
    config: Make,
    python: Callable[..., tuple[int, list[str]]],
    words: Callable[[TrainConfig], list[str]],
) -> None:
    run = config(checkpoint_interval=2, log_interval=1)
    code, lines = python(BOARD, *words(run))
    assert code == 2
    assert len(lines) == 1, "\n".join(lines)
    assert "No space left on device" in lines[0]
    assert "--resume auto --output" in lines[0]
    faults.resume(run)


def test_before_the_run_begins(faults: Faults, config: Make) -> None:
    run = config()
    with full_disk() as fill:
        fill()
        assert "File too large" in faults.stopped(run)
    faults.resume(run)
