"""Starts of ranks, and what two of them did."""

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.processes import finish_ranks

from upchirp import TrainConfig, train
from upchirp.training import Event, Interrupted, Stepped, read_metrics

PROGRAM = Path(__file__).with_name("program.py")


def finish(ranks: int, *words: object) -> str:
    """Run so many ranks of a program to their ends; returns what they printed."""
    done = finish_ranks(ranks, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    finish(2, PROGRAM, given, folder, folder / "started")
    return folder
