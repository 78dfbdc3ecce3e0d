"""torchrun goes on after the loss of a rank, and SLURM after its time limit."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.integration.ranks.conftest import finish, small
from tests.processes import python, with_server

from upchirp.training import read_metrics

pytestmark = pytest.mark.slow

SBATCH = Path(__file__).parents[3] / "examples" / "slurm.sbatch"


@pytest.fixture(scope="module")
def given(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "given.yaml"
    # Long enough for a signal to arrive in mid-run.
    settings = small(image_folder, epochs=3, batch_size=16, opt="adamw", drop=0.1, checkpoint_interval=3)
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def undisturbed(given: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(2, *train(given, output))
    return load_file(output / "model_ema.safetensors")


def train(given: Path, output: Path) -> list[object]:
    return ["-m", "upchirp", "train", "--config", given, "--output", output, "--resume", "auto"]


def steps_done(output: Path) -> int:
    return max((record["step"] for record in read_metrics(output) if record["kind"] == "train"), default=0)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def of_rank(rank: int, output: Path) -> Iterator[int]:
    """The processes of one rank of the run in a folder."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(output) in words and f"RANK={rank}".encode() in environment:
                yield int(folder.name)


def assert_same(output: Path, undisturbed: Mapping[str, torch.Tensor]) -> None:
    weights = load_file(output / "model_ema.safetensors")
    assert weights.keys() == undisturbed.keys()
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_rank_changes_nothing(given: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    output = tmp_path / "run"
    rank, step = random.randrange(2), random.randrange(4, 16)
    print(f"killing rank {rank} after step {step}")
    torchrun = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [*torchrun, *map(str, train(given, output))]
    with subprocess.Popen(
        command, env=with_server(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        wait_for(lambda: steps_done(output) >= step, run)
        killed = list(of_rank(rank, output))
        assert len(killed) == 1
        os.kill(killed[0], signal.SIGKILL)
        _, said = run.communicate(timeout=240)
    assert run.returncode == 0, said
    assert said.count("lost contact with another rank") <= 1
    assert_same(output, undisturbed)


SRUN = """#!/bin/bash
# Every node at once; SIGTERM kills the tasks, as srun does it.
pids=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node "$@" & pids+=($!)
done
printf '%s\n' "${pids[@]}" > "$TASKS"
trap 'kill -KILL "${pids[@]}"' TERM
code=0
for pid in "${pids[@]}"; do
    wait "$pid"; code=$?
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; code=$?; done
done
exit $code
"""
SCANCEL = """#!/bin/bash
# Signals the tasks, not the script.
[ "$1 $2" = "--signal=TERM $SLURM_JOB_ID" ] && kill -TERM $(cat "$TASKS")
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'localhost\\nother\\n'; else echo "$@" >> "$CALLS"; fi
"""


def test_the_slurm_example_goes_on_over_its_time_limit(
    given: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    tools = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "scancel": SCANCEL,
        "torchrun": f'#!/bin/bash\nexec {python()} -m torch.distributed.run "$@"\n',
    }
    for name, program in tools.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    calls, output = tmp_path / "calls", tmp_path / "run"
    job = str(random.randrange(10**6))
    environment = {
        **with_server(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls),
        "TASKS": str(tmp_path / "tasks"), "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
    }  # fmt: skip
    command = ["bash", str(SBATCH), "--config", str(given), "--output", str(output)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as batch:
        wait_for(lambda: steps_done(output) >= 4, batch)
        batch.send_signal(signal.SIGTERM)
        assert batch.wait(timeout=120) != 0
    assert calls.read_text().split() == ["requeue", job]
    stopped = steps_done(output)
    assert (output / "checkpoints" / f"step_{stopped:09d}.pt").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().split() == ["requeue", job]
    assert_same(output, undisturbed)


def test_the_slurm_example_asks_for_what_it_needs() -> None:
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", SBATCH.read_text(), re.MULTILINE))
    assert options["signal"].startswith("B:TERM@")
    assert options["ntasks-per-node"] == "1"
    assert "requeue" in options
