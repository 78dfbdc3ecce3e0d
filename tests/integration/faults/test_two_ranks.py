"""What happens to one of two ranks ends both of them in time, with one clear line, and the run goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.faults.conftest import Faults
from tests.processes import Done, finish_ranks
from tests.runs import Make, losses

from upchirp import TrainConfig

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("two_ranks.py")
# The fault, the step after which it comes, what is said, and the step of the checkpoint that is left.
ENDS = (
    ("loss", 3, "the loss is nan at step 3: the last good checkpoint is", 2),
    ("dead worker", 5, "memory ran out: give fewer --workers", 4),
)


def test_one_of_two_ranks(
    faults: Faults,
    config: Make,
    words: Callable[[TrainConfig], list[str]],
    latest: Callable[[TrainConfig], Path],
    tmp_path: Path,
) -> None:
    run = config(workers=1, checkpoint_interval=2, log_interval=1, resume="auto")
    whole = replace(run, output=tmp_path / "whole")

    def start(given: TrainConfig, fault: str = "nothing", step: int = 0) -> Done:
        return finish_ranks(2, PROGRAM, fault, step, *words(given))

    undisturbed = start(whole)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for fault, step, line, left in ENDS:
        ended = start(run, fault, step)
        assert ended.returncode != 0
        said = [told for told in ended.stderr.splitlines() if told.startswith("upchirp: ")]
        assert sum(line in told for told in said) == 1, ended.stderr
        # The other rank may say that it lost contact.
        assert len(said) <= 2, ended.stderr
        # What was loaded before a worker died may be trained on.
        assert int(latest(run).stem.partition("_")[2]) in (left, left + 2 * (fault == "dead worker"))
    again = start(run)
    assert again.returncode == 0, again.stderr
    faults.assert_same(run.output, whole.output)
    steps = list(losses(run.output))
    assert steps == list(range(1, steps[-1] + 1))
