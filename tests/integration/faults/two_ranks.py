"""`upchirp train` in which something happens to the second of two ranks after a step."""

import math
import multiprocessing
import os
import signal
import sys
from typing import Any

from tests.worker_deaths import look_often

from upchirp.cli import main
from upchirp.training.run import loop


def disturb(fault: str, run: loop.Run) -> None:
    if fault == "dead worker":
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    elif fault == "loss":
        run.window.loss = run.window.loss * math.nan


def install(fault: str, step: int) -> None:
    own = loop.Run._take_note

    def take_note(run: loop.Run, result: Any) -> None:
        own(run, result)
        if run.ranks.rank == 1 and result.step.index + 1 == step:
            disturb(fault, run)

    loop.Run._take_note = take_note


if __name__ == "__main__":
    look_often()
    install(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
