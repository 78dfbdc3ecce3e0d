"""Starts of ranks, and what two of them did."""

from pathlib import Path

import pytest
import yaml
from tests import runs
from tests.processes import finish_ranks

from upchirp import TrainConfig, train

PROGRAM = Path(__file__).with_name("program.py")


def finish(ranks: int, *words: object) -> str:
    """Run so many ranks of a program to their ends; returns what they printed."""
    done = finish_ranks(ranks, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def small(data: Path, **changes: object) -> dict[str, object]:
    """Settings of a run without batch norm, dropout and drop path, whose updates do not enlarge rounding."""
    own = {
        "data": str(data), "final_size": 32, "epochs": 2, "micro_batch": 8, "opt": "sgd", "lr_base": 0.05, "amp": False,
        "cutmix": 1.0, "reprob": 0.5, "drop_path": 0.0, "drop": 0.0, "clip_grad": 1.0, "evaluations": 1,
        "log_interval": 1,
    }  # fmt: skip
    return runs.settings(**{**own, **changes})


def settings(data: Path, output: Path, **changes: object) -> TrainConfig:
    return TrainConfig.from_flat(small(data, output=str(output), **changes))


@pytest.fixture(scope="session")
def folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two ranks left; `one` is the run of one rank, `started` was begun by one and ended by two."""
    folder = tmp_path_factory.mktemp("ranks")
    train(settings(image_folder, folder / "one"))
    masked = {"regime": "pretrain", "decoder_depth": 1, "decoder_width": 32, "final_size": 64, "epochs": 1}
    train(settings(image_folder, folder / "masked_one", **masked))
    train(settings(runs.write_tags(image_folder, folder / "tags.csv"), folder / "several_one", epochs=1))
    runs.interrupted(settings(image_folder, folder / "started"), 4)
    given = folder / "given.yaml"
    given.write_text(yaml.safe_dump(small(image_folder)))
    finish(2, PROGRAM, given, folder, folder / "started")
    return folder
