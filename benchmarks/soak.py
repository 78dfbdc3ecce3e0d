"""Long runs under faults: is each as good as one that nothing disturbed, or does it stop with one clear line?

A round is one training of a small model, as commands in processes of their own. At random steps it is killed (SIGKILL),
terminated, interrupted, its disk fills up, a loader worker dies or stops, its latest checkpoint is damaged, or
leftovers of a kill lie about. Each time it is resumed, and in the end its weights are compared, bit for bit, with those
of a run that nothing disturbed. The data hold 1 % corrupt images.
Example: `python benchmarks/soak.py --rounds 10 --json > soak.json`
"""

import argparse
import json
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from upchirp.machine import hardware, versions
from upchirp.training import read_metrics

WEIGHTS = ("model.safetensors", "model_ema.safetensors")
STALL_SECONDS = 3


def write_images(root: Path, *, train: int, val: int) -> Path:
    """Small JPEGs of two classes, of which 1 % of the training images cannot be read."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train // 2), ("val", val // 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (40, 48, 3))
                pixels[..., label] += 130
                path = root / split / name / f"{index:04d}.jpg"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
                if split == "train" and label == 0 and index < train // 100:
                    path.write_bytes(path.read_bytes()[:300])
    return root


@dataclass
class Training:
    """One run, started as often as it takes."""

    data: Path
    output: Path
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [
            sys.executable, "-m", "upchirp", "train", "--data", str(self.data), "--model", "test_vit",
            "--final-size", "64", "--epochs", "12", "--batch-size", "16", "--recipe", "light", "--model-ema",
            "--model-ema-decay", "0.9", "--workers", "2", "--loader-timeout", str(STALL_SECONDS), "--device", "cpu",
            "--deterministic", "--checkpoint-interval", "5", "--log-interval", "1", "--evaluations", "2",
            "--output", str(self.output), "--resume", "auto",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def step(self) -> int:
        return max((record["step"] for record in read_metrics(self.output) if record["kind"] == "train"), default=0)

    def reach(self, step: int) -> bool:
        """Wait for a step; whether the run still goes on then."""
        assert self.process is not None
        while self.process.poll() is None:
            if self.step() >= step:
                return True
            time.sleep(0.005)
        return False

    def end(self) -> tuple[int, list[str]]:
        """Wait for the end; the exit code and what was said."""
        assert self.process is not None
        _, told = self.process.communicate(timeout=300)
        return self.process.returncode, told.splitlines()

    def workers(self) -> list[int]:
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]

    def checkpoints(self) -> list[Path]:
        return sorted((self.output / "checkpoints").glob("step_*.pt"))


@dataclass
class Counts:
    """What came of all rounds."""

    kills: int = 0
    disturbances: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    """Disturbances that came when the run had ended already."""
    clear_errors: int = 0
    unclear: list[str] = field(default_factory=list)
    weights_equal: int = 0
    weights_different: list[str] = field(default_factory=list)


def send(training: Training, signum: int) -> None:
    assert training.process is not None
    # As a terminal or a scheduler does it: the loader workers get it too.
    os.killpg(training.process.pid, signum)


def fill_disk(training: Training, rng: random.Random) -> None:
    """From now on no file of the run grows beyond some bytes, which ends a write as a full disk does."""
    assert training.process is not None
    limit = rng.choice([0, 5_000, 200_000])
    resource.prlimit(training.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def damage(path: Path, kind: str) -> None:
    checksum = path.with_name(f"{path.name}.sha256")
    data = bytearray(path.read_bytes())
    match kind:
        case "truncated":
            os.truncate(path, len(data) // 2)
        case "empty":
            os.truncate(path, 0)
        case "bit flipped":
            data[len(data) // 3] ^= 16
            path.write_bytes(data)
        case "checksum missing":
            checksum.unlink()
        case "checksum altered":
            checksum.write_text(f"{'0' * 64}  {path.name}\n")


def kill_and(then: Callable[[Training, random.Random], None]) -> Callable[[Training, random.Random], str | None]:
    def disturb(training: Training, rng: random.Random) -> None:
        send(training, signal.SIGKILL)
        training.end()
        then(training, rng)

    return disturb


def damage_latest(training: Training, rng: random.Random) -> None:
    kept = training.checkpoints()
    # With a single one there is none to go back to.
    if len(kept) > 1:
        damage(
            kept[-1],
            rng.choice(["truncated", "empty", "bit flipped", "checksum missing", "checksum altered"]),
        )


def leave_halves(training: Training, rng: random.Random) -> None:
    for name in ("metrics.jsonl.tmp", "model.safetensors.tmp", "checkpoints/step_000000999.pt.tmp"):
        if (training.output / name).parent.exists():
            (training.output / name).write_bytes(rng.randbytes(1000))
    with (training.output / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "tra')


def worker(signum: int) -> Callable[[Training, random.Random], None]:
    def disturb(training: Training, rng: random.Random) -> None:
        if found := training.workers():
            os.kill(rng.choice(found), signum)

    return disturb


FAULTS: dict[str, tuple[Callable[[Training, random.Random], Any], str | None]] = {
    "kill": (kill_and(lambda training, rng: None), None),
    "terminate": (lambda training, rng: send(training, signal.SIGTERM), "SIGTERM: stopped after step"),
    "interrupt": (lambda training, rng: send(training, signal.SIGINT), "SIGINT: stopped after step"),
    "full disk": (fill_disk, "File too large"),
    "kill, damage the latest checkpoint": (kill_and(damage_latest), None),
    "kill, leave halves of files": (kill_and(leave_halves), None),
    "dead worker": (worker(signal.SIGKILL), "mostly because memory ran out"),
    "stopped worker": (worker(signal.SIGSTOP), "the loader gave no batch"),
}
"""What disturbs a run, and what its one line says; none where it is killed."""


def play(training: Training, kinds: list[str], steps: list[int], rng: random.Random, counts: Counts) -> None:
    """Disturb a run at some steps, resuming it each time."""
    for kind, step in zip(kinds, steps, strict=True):
        disturb, expected = FAULTS[kind]
        training.start()
        if not training.reach(step):
            training.end()
            counts.missed += 1
            continue
        disturb(training, rng)
        counts.disturbances[kind] += 1
        if expected is None:
            counts.kills += 1
            continue
        code, lines = training.end()
        if code == 0 and kind in ("dead worker", "stopped worker", "full disk"):
            # Nothing more was wanted of that worker, or written: the run has ended before.
            counts.missed += 1
        elif code > 0 and len(lines) == 1 and expected in lines[0]:
            counts.clear_errors += 1
        else:
            counts.unclear.append(f"{kind} at step {step}: exit code {code}: {' | '.join(lines)[-2000:]}")


def compare(folder: Path, whole: Path) -> bool:
    for name in WEIGHTS:
        one, two = load_file(folder / name), load_file(whole / name)
        if one.keys() != two.keys() or not all(torch.equal(one[key], two[key]) for key in one):
            return False
    return True


def soak(folder: Path, *, rounds: int, disturbances: int, kinds: list[str], seed: int) -> Counts:
    data = write_images(folder / "data", train=400, val=32)
    whole = Training(data, folder / "whole")
    whole.start()
    code, lines = whole.end()
    if code:
        raise SystemExit(f"the undisturbed run failed: {' '.join(lines)}")
    total = whole.step()
    counts, rng = Counts(), random.Random(seed)
    for number in range(rounds):
        training = Training(data, folder / f"round{number}")
        steps = sorted(rng.sample(range(1, total - 3), disturbances))
        chosen = [kinds[(number * disturbances + place) % len(kinds)] for place in range(disturbances)]
        rng.shuffle(chosen)
        play(training, chosen, steps, rng, counts)
        training.start()
        code, lines = training.end()
        if code == 0 and compare(training.output, whole.output):
            counts.weights_equal += 1
        else:
            counts.weights_different.append(f"round {number} ({chosen} at {steps}): {code} {' '.join(lines)[-500:]}")
        print(f"round {number + 1} of {rounds}: {vars(counts)}", file=sys.stderr, flush=True)
    return counts


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="runs")
    parser.add_argument("--disturbances", type=int, default=5, help="of each run")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="kinds, in turn")
    parser.add_argument("--seed", type=int, default=0, help="of steps and kinds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        counts = soak(
            Path(folder),
            rounds=options.rounds,
            disturbances=options.disturbances,
            kinds=options.faults,
            seed=options.seed,
        )
    given = sys.argv[1:] if words is None else words
    found = {
        "command": shlex.join(["python", "benchmarks/soak.py", *given]),
        "hardware": hardware(),
        "versions": versions(),
        "rounds": options.rounds,
        **vars(counts),
    }
    print(json.dumps(found, indent=2) if options.json else "\n".join(f"{name}: {found[name]}" for name in found))
    return 1 if counts.unclear or counts.weights_different else 0


if __name__ == "__main__":
    sys.exit(main())
