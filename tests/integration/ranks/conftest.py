"""Starts of torchrun, and what two ranks did."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
        "amp": False, "model_ema": True, "model_ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0, "reprob": 0.5,
        "randaug_layers": 1,
        "drop_path": 0.0, "drop": 0.0, "evaluations": 1, "log_interval": 1, "checkpoint_interval": 1000, **changes,
    }  # fmt: skip
