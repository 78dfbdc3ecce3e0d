"""A run that is killed at a random step and resumed ends with the weights of the uninterrupted run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from upchirp.training import read_metrics

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(data: Path, output: Path) -> list[str]:
    return [
        sys.executable, "-m", "upchirp", "train", "--data", str(data), "--model", "test_vit", "--final-size", "64",
        "--epochs", "6", "--batch-size", "16", "--recipe", "light", "--model-ema", "--workers", "1", "--device", "cpu",
        "--deterministic", "--checkpoint-interval", "3", "--log-interval", "1", "--evaluations", "2",
        "--output", str(output),
    ]  # fmt: skip


def run_until(words: list[str], output: Path, step: int, signum: int) -> int:
    """Start a run and send it a signal once it has logged a step; returns its exit code."""
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            done = [record["step"] for record in read_metrics(output) if record["kind"] == "train"]
            if done and done[-1] >= step:
                # As a terminal or a scheduler does it: the loader workers get the signal too.
                os.killpg(process.pid, signum)
                break
            time.sleep(0.01)
        return process.wait(timeout=120)


@pytest.fixture(scope="module")
def weights(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    output = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(image_folder, output), check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return load_file(output / "model_ema.safetensors")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_resumed(
    image_folder: Path, tmp_path: Path, weights: dict[str, torch.Tensor], signum: signal.Signals
) -> None:
    output = tmp_path / "run"
    words = command(image_folder, output)
    step = random.Random(signum).randint(1, 30)
    code = run_until(words, output, step, signum)
    assert code == (-signum if signum == signal.SIGKILL else 128 + signum)
    subprocess.run([*words, "--resume", "auto"], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    resumed = load_file(output / "model_ema.safetensors")
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)
