"""Starts of torchrun, and what two ranks did."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from upchirp import TrainConfig, train
from upchirp.training import Event, Interrupted, Stepped, read_metrics

PROGRAM = Path(__file__).with_name("program.py")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(ranks: int, *words: object, options: Sequence[str] = ()) -> list[str]:
    """The command that starts so many ranks on this machine, on any free port."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]
    return [*start, *map(str, words)]


def finish(command: Sequence[str]) -> str:
    """Run a command to its end; returns what it said on stderr."""
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def small(data: Path, **changes: object) -> dict[str, object]:
    """Settings of a run without batch norm, dropout and drop path, whose updates do not enlarge rounding."""
    return {
        "data": str(data), "model": "test_vit", "final_size": 32, "epochs": 2, "batch_size": 32, "micro_batch": 8,
        "workers": 0, "device": "cpu", "deterministic": True, "recipe": "light", "opt": "sgd", "lr_base": 0.05,
        "amp": False, "model_ema": True, "model_ema_decay": 0.9,
        "mixup": 0.2, "cutmix": 1.0, "reprob": 0.5, "randaug_layers": 1,
        "drop_path": 0.0, "drop": 0.0, "clip_grad": 1.0,
        "evaluations": 1, "log_interval": 1, "checkpoint_interval": 1000, **changes,
    }  # fmt: skip


def settings(data: Path, output: Path, **changes: object) -> TrainConfig:
    return TrainConfig.from_flat(small(data, output=str(output), **changes))


def losses(folder: Path, kind: str = "train") -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_metrics(folder) if record["kind"] == kind}


def interrupt_at(step: int) -> Any:
    def observe(event: Event) -> None:
        if isinstance(event, Stepped) and event.step.index + 1 == step:
            signal.raise_signal(signal.SIGINT)

    return observe


@pytest.fixture(scope="session")
def folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two ranks left; `one` is the run of one rank, `started` was begun by one and ended by two."""
    folder = tmp_path_factory.mktemp("ranks")
    train(settings(image_folder, folder / "one"))
    with pytest.raises(Interrupted):
        train(settings(image_folder, folder / "started"), observers=[interrupt_at(4)])
    given = folder / "given.yaml"
    given.write_text(yaml.safe_dump(small(image_folder)))
    finish(torchrun(2, PROGRAM, given, folder, folder / "started"))
    return folder
