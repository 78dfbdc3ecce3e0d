"""Checks and times training on the device at hand, in one call of at most 7 minutes, most important sections first.

`end_to_end`  whole trainings, constant size against EfficientTrain++, by who prepares images (--images; feeding.py)
`choice`      what `--prepare auto` chooses for each model, and how long it measures (--images; feeding.py)
`loader`      images/s of the loader alone, by bandwidth, who prepares, and files or packed (--images; feeding.py)
`speed`       images/s per bandwidth in bf16, compiled and eager, and the share of the peak
`switch`      seconds lost at a change of bandwidth, graphs compiled ahead
`crop`        the exact crop against the memory-bandwidth floor: bytes read and written at the speed of a copy
`checks`      the crop against the reference, compiled against eager losses, graphs counted, the optimizer fused
`speedup`     training time at equal accuracy against the constant baseline, over seeds, by `upchirp.compare` (--data)

Each has a time of its own at most and is stopped then; what was found until then is in the file of --results as soon as
it is found, and with --json on standard output at the end. Progress goes to stderr. Within a section what is compared
alternates, so that a slow moment of the machine hits all, and medians are quoted. Examples:
`python benchmarks/gpu.py --images imagenet-sample-200.zip --results gpu.json`
`python benchmarks/gpu.py --images imagenet-sample-200.zip --sections end_to_end loader --models resnet50 --seconds 200
--results fed.json`
`python benchmarks/gpu.py --sections speedup --data tiny-imagenet-40 --output runs/speedup --json > speedup.json`
`python benchmarks/gpu.py --small --json`
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._dynamo.utils import counters

from feeding import choice, end_to_end, loader, make_feed
from sections import Keep, Results, Section
from upchirp import Batch, Curriculum, Phase, Plan, Step, low_frequency_crop, plan
from upchirp.compare import CompareConfig, compare
from upchirp.data import RequestSampler
from upchirp.data.settings import usable_cores
from upchirp.machine import hardware, versions
from upchirp.models import count_flops, count_parameters, create_model
from upchirp.spectral.reference import low_frequency_crop as reference_crop
from upchirp.training import State, TrainConfig, Trainer
from upchirp.training.engine.memory import MicroBatches
from upchirp.training.parallel.device import choose_device, numerics
from upchirp.training.probing.compiling import compile_ahead

SECTIONS = {
    "end_to_end": 130, "choice": 40, "loader": 80, "speed": 90, "switch": 50, "crop": 20, "checks": 50, "speedup": 3600,
}  # fmt: skip
"""The sections and their seconds at most."""
MODELS = ("resnet50", "deit_small_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny")
MODES = ("compiled", "eager")
BF16_PEAKS = (
    ("H100 PCIe", 756.5),
    ("H100 NVL", 835.5),
    ("H100", 989.4),
    ("H200", 989.4),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
)
"""Dense bf16 TFLOP/s with float32 sums by a part of the device's name: from NVIDIA's data sheets (half of the figures
with sparsity) of H100, H200, A100, L40S and L4, and its white papers on AD102 and GA102. --peak-tflops overrides it."""
COPIED_BYTES = 2**29
PER_MULTIPLY_ADD = 2
PASSES = 3
"""A training step computes about three forward passes: forward, and backward for inputs and for weights."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all sections share."""

    device: torch.device
    models: tuple[str, ...]
    sides: tuple[int, ...]
    rows: tuple[int, ...]
    """Images in a step; the largest gives the figures, the others tell what a step costs whatever its rows."""
    modes: tuple[str, ...]
    steps: int
    rounds: int
    crop_images: int
    matmul_side: int

    @property
    def final_size(self) -> int:
        return max(self.sides)

    def config(self, model: str, mode: str, rows: int) -> TrainConfig:
        """The recipe of the model, as `upchirp train` has it."""
        values = {"model": model, "final_size": self.final_size, "compile": mode == "compiled"}
        return TrainConfig.from_flat({**values, "batch_size": rows})

    def plan(self, rows: int, steps: int) -> Plan:
        """So many steps at each bandwidth."""
        count = len(self.sides)
        phases = tuple(Phase(end=(k + 1) / count, bandwidth=side) for k, side in enumerate(sorted(self.sides)))
        trial = Curriculum(name="benchmark", axis="samples", phases=phases)
        return plan(trial, epochs=count * steps, dataset_size=rows, batch_size=rows, learning_rate=1e-5)


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of some work on the device's own clock, or on the host's where the device has none."""
    synchronize(device)
    if device.type != "cuda":
        begun = time.perf_counter()
        work()
        synchronize(device)
        return time.perf_counter() - begun
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def alternating(works: dict[str, Callable[[], Any]], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of each work, one after the other in each round."""
    for work in works.values():
        for _ in range(2):
            work()
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _, (name, work) in itertools.product(range(rounds), works.items()):
        spent[name].append(timed(work, device))
    return {name: median(seconds) for name, seconds in spent.items()}


def random_batch(step: Step, rows: int, device: torch.device) -> Batch:
    """Random images on the device: on constant ones matrix products draw less power and run faster."""
    generator = torch.Generator().manual_seed(step.bandwidth)
    side = step.bandwidth
    images = torch.randint(0, 256, (rows, side, side, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    labels = torch.randint(0, 1000, (rows,), generator=generator)
    return Batch(images.to(device), labels.to(device), step, range(rows), torch.arange(rows))


def fresh_state(bench: Bench, config: TrainConfig) -> State:
    torch.manual_seed(0)
    model = create_model(
        config.model, num_classes=1000, final_size=bench.final_size, drop_path=config.optimization.drop_path
    )
    trainer = Trainer.of(config, bench.device)
    return trainer.state(trainer.place(model), bandwidth=bench.final_size, learning_rate=1e-5)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def checks(bench: Bench, found: dict[str, Any], keep: Keep) -> None:
    """What must hold for the figures to mean anything."""
    found |= {"crop_errors": {}, "models": {}}
    images = torch.randn(4, 3, bench.final_size, bench.final_size, device=bench.device)
    for side in bench.sides[:-1]:
        exact = reference_crop(images.double().cpu(), side)
        for dtype in (torch.float32, torch.bfloat16):
            made = low_frequency_crop(images.to(dtype), side).double().cpu()
            error = (made - exact).square().mean().sqrt() / exact.square().mean().sqrt()
            found["crop_errors"][f"{side} {dtype}".replace("torch.", "")] = error.item()
    rows = min(bench.rows)
    for name in bench.models:
        losses: dict[str, list[float]] = {}
        graphs: dict[str, int] = {}
        fused = False
        for mode in bench.modes:
            config = bench.config(name, mode, rows)
            state = fresh_state(bench, config)
            fused = any(group.get("fused") or False for group in state.optimizer.param_groups)
            batches = (random_batch(step, rows, bench.device) for step in bench.plan(rows, 2).steps())
            trainer, steps = Trainer.of(config, bench.device), bench.plan(rows, 2)
            before = counters["stats"]["unique_graphs"]
            losses[mode] = [result.loss.item() for result in trainer.run(state, steps, batches)]
            graphs[mode] = counters["stats"]["unique_graphs"] - before
        found["models"][name] = {"losses": losses, "graphs": graphs, "fused_optimizer": fused}
        keep()
        say(f"checks {name}: {found['models'][name]}")


def published_peak(name: str) -> float | None:
    return next((peak for part, peak in BF16_PEAKS if part in name), None)


def peaks(bench: Bench, asked: float | None) -> dict[str, Any]:
    """The device's bf16 peak as published and as a large product reaches it."""
    device, side = bench.device, bench.matmul_side
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    published = asked or published_peak(name)
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = alternating({"product": lambda: one @ other}, device, bench.rounds * 3)["product"]
    return {"peak_tflops": published, "matmul_tflops": PER_MULTIPLY_ADD * side**3 / seconds / 1e12}


def speed(bench: Bench, asked: float | None, found: dict[str, Any], keep: Keep) -> None:
    """Images per second of whole training steps, batches on the device."""
    peak, models = peaks(bench, asked), dict[str, Any]()
    found |= {**peak, "models": models, "steps": bench.steps, "rounds": bench.rounds}
    for name in bench.models:
        spent = step_seconds(bench, name)
        most = max(bench.rows)
        config = bench.config(name, bench.modes[0], most)
        model = fresh_state(bench, config).model
        figures: dict[str, Any] = {"parameters": count_parameters(model), "modes": {}}
        for mode in bench.modes:
            by_side = {}
            for side in bench.sides:
                rate = most / spent[mode, side, most]
                operations = PER_MULTIPLY_ADD * PASSES * count_flops(model, side) * rate / 1e12
                shares = {key: operations / value for key, value in peak.items() if value}
                by_side[str(side)] = {"images_per_second": rate, "tflops": operations, "share_of": shares}
            figures["modes"][mode] = by_side
            say(f"speed {name} {mode}: " + ", ".join(f"{s} {f['images_per_second']:.0f}/s" for s, f in by_side.items()))
        figures["points"] = [
            {"bandwidth": side, "rows": rows, "seconds": spent[bench.modes[0], side, rows]}
            for side in bench.sides
            for rows in bench.rows
        ]
        models[name] = figures
        keep()


def step_seconds(bench: Bench, name: str) -> dict[tuple[str, int, int], float]:
    """Median seconds of a step by mode, bandwidth and rows, over rounds that alternate all of them."""
    configs = {mode: bench.config(name, mode, max(bench.rows)) for mode in bench.modes}
    states = {mode: fresh_state(bench, config) for mode, config in configs.items()}
    first_steps = {step.bandwidth: step for step in bench.plan(max(bench.rows), 1).steps()}
    spent: dict[tuple[str, int, int], list[float]] = {}
    for number, mode, side, rows in itertools.product(range(bench.rounds), bench.modes, bench.sides, bench.rows):
        step = replace(first_steps[side], batch_size=rows)
        batch = random_batch(step, rows, bench.device)
        trainer = Trainer.of(configs[mode], bench.device)
        results = trainer.run(states[mode], bench.plan(rows, 1), itertools.repeat(batch))
        # Graphs and algorithms are chosen in the first round.
        for _ in range(3 if number else 6):
            next(results)
        block = timed(lambda results=results: [next(results) for _ in range(bench.steps)], bench.device)
        spent.setdefault((mode, side, rows), []).append(block / bench.steps)
    return {key: median(seconds) for key, seconds in spent.items()}


def switch(bench: Bench, found: dict[str, Any], keep: Keep, *, ahead: bool) -> None:
    """What the first step of a bandwidth takes more than those that follow, with graphs compiled ahead or then."""
    rows = max(bench.rows)
    run = bench.plan(rows, bench.steps + 2)
    for name in bench.models:
        config = bench.config(name, bench.modes[0], rows)
        state, trainer = fresh_state(bench, config), Trainer.of(config, bench.device)
        batches = {step.bandwidth: random_batch(step, rows, bench.device) for step in run.steps()}
        note, begun = None, time.perf_counter()
        if config.compile:
            # As a process of its own would: kernels come from the cache on disk, if they are there.
            torch.compiler.reset()
        if config.compile and ahead:
            note = compile_ahead(trainer, state, RequestSampler(run), MicroBatches())
        ahead_seconds = time.perf_counter() - begun
        spent: dict[int, list[float]] = {}
        stream = (replace(batches[step.bandwidth], step=step) for step in run.steps())
        synchronize(bench.device)
        before = time.perf_counter()
        for result in trainer.run(state, run, stream):
            result.loss.item()  # waits for the device
            now = time.perf_counter()
            spent.setdefault(result.step.bandwidth, []).append(now - before)
            before = now
        lost = {str(side): seconds[0] - median(seconds[2:]) for side, seconds in spent.items()}
        found[name] = {"lost_seconds": lost, "ahead": note, "ahead_seconds": ahead_seconds, "mode": bench.modes[0]}
        keep()
        say(f"switch {name}: {found[name]}")


def crop(bench: Bench, found: dict[str, Any]) -> None:
    """The crop's time over that of moving its input and output at the speed of a copy."""
    device, size = bench.device, bench.final_size
    smaller = min(COPIED_BYTES, 2**20 * bench.crop_images)
    source = torch.empty(smaller, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    images = torch.randn(bench.crop_images, 3, size, size, device=device)
    inputs = {dtype: images.to(dtype) for dtype in (torch.bfloat16, torch.float32)}
    works: dict[str, Callable[[], Any]] = {"copy": lambda: target.copy_(source)}
    moved = {}
    for (dtype, given), side in itertools.product(inputs.items(), bench.sides[:-1]):
        key = f"{str(dtype).removeprefix('torch.')} {side}"
        works[key] = lambda given=given, side=side: low_frequency_crop(given, side)
        moved[key] = given.element_size() * bench.crop_images * 3 * (size**2 + side**2)
    seconds = alternating(works, device, bench.rounds * 5)
    per_second = 2 * smaller / seconds["copy"]
    figures = {
        key: {"ms": 1e3 * seconds[key], "floor_ms": 1e3 * size / per_second, "ratio": seconds[key] * per_second / size}
        for key, size in moved.items()
    }
    say(f"crop: {figures}")
    goals = {"bfloat16": 1.3, "float32": 2.0}
    found |= {"copy_gb_per_second": per_second / 1e9, "images": bench.crop_images, "goals": goals, "crops": figures}


def speedup(options: argparse.Namespace, bench: Bench, found: dict[str, Any]) -> None:
    """`upchirp compare` on a folder of images."""
    training = TrainConfig.from_flat(
        {
            "data": options.data,
            "model": options.speedup_model,
            "final_size": options.speedup_size,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "recipe": "light",
            "device": bench.device.type,
            "compile": bench.modes[0] == "compiled",
            "evaluations": 5,
            "output": str(options.output or Path("runs/speedup")),
            "resume": "auto",
            **({} if options.workers is None else {"workers": options.workers}),
        }
    )
    wanted = CompareConfig(training=training, budgets=tuple(options.budgets), seeds=tuple(options.seeds))
    summary = compare(wanted, command=" ".join(["python", *sys.argv])).summary
    kept = ("curriculum", "budget", "equivalent_epochs", "accuracy", "train_seconds", "wait_share", "images_per_second")
    runs = [{key: run[key] for key in kept} for run in summary["runs"]]
    found |= {"speedups": summary["speedups"], "runs": runs, "seeds": summary["seeds"], "model": summary["model"]}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="by default all that have what they want")
    parser.add_argument("--seconds", type=float, default=420.0, help="for all sections but `speedup`")
    parser.add_argument("--results", type=Path, help="JSON file, written as results come")
    parser.add_argument(
        "--images", type=Path, help="folder or zip file of JPEGs for `end_to_end`, `choice` and `loader`"
    )
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 160, 224], help="bandwidths; the last is final")
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 64], help="images in a step")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="both, or with --small `eager`")
    parser.add_argument("--not-ahead", action="store_true", help="`switch` compiles each graph when it is needed")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crop-images", type=int, default=512)
    parser.add_argument("--peak-tflops", type=float, help="the device's dense bf16 peak")
    parser.add_argument("--data", help="folder of images for `speedup`")
    parser.add_argument(
        "--output", type=Path, help="where runs are kept; by default a folder that goes, or runs/speedup"
    )
    parser.add_argument("--speedup-model", default="resnet18")
    parser.add_argument("--speedup-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=30.0, help="the baseline's")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.6667])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, help="loader processes")
    parser.add_argument(
        "--small", action="store_true", help="tiny models and few steps: whether it runs, on any machine"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with hardware and versions")
    options = parser.parse_args()
    wanted = {"end_to_end": "images", "choice": "images", "loader": "images", "speedup": "data"}
    if options.sections is None:
        options.sections = [name for name in SECTIONS if name not in wanted or getattr(options, wanted[name])]
    for name in options.sections:
        if name in wanted and not getattr(options, wanted[name]):
            parser.error(f"the section `{name}` trains on images: give --{wanted[name]}")
    return options


def make_bench(options: argparse.Namespace) -> Bench:
    bench = Bench(
        device=choose_device(options.device),
        models=tuple(options.models),
        sides=tuple(sorted(options.sides)),
        rows=tuple(options.rows),
        modes=tuple(options.modes or (["eager"] if options.small else MODES)),
        steps=options.steps,
        rounds=options.rounds,
        crop_images=options.crop_images,
        matmul_side=8192,
    )
    if not options.small:
        return bench
    small = {"models": ("test_vit",), "sides": (32, 64), "rows": (16, 8), "crop_images": 2, "matmul_side": 64}
    return replace(bench, steps=3, rounds=1, **small)


def main() -> None:
    options = arguments()
    bench = make_bench(options)
    about = {"command": " ".join(["python", *sys.argv]), "hardware": hardware(), "versions": versions()}
    seconds = SECTIONS["speedup"] if "speedup" in options.sections else options.seconds
    results = Results(about, options.results, seconds)
    with tempfile.TemporaryDirectory() as temporary, numerics(bench.device, deterministic=False):
        folder = options.output or Path(temporary)
        feed = None
        if options.images is not None:
            workers = max(1, usable_cores() - 1) if options.workers is None else options.workers
            feed = make_feed(options.images, folder, bench.device, workers, bench.sides, small=options.small)
        sections: dict[str, Section] = {
            "end_to_end": lambda found, keep: end_to_end(feed, bench.models[:2], found, keep),
            "choice": lambda found, keep: choice(feed, bench.models[:2], found, keep),
            "loader": lambda found, keep: loader(feed, found, keep),
            "speed": lambda found, keep: speed(bench, options.peak_tflops, found, keep),
            "switch": lambda found, keep: switch(bench, found, keep, ahead=not options.not_ahead),
            "crop": lambda found, keep: crop(bench, found),
            "checks": lambda found, keep: checks(bench, found, keep),
            "speedup": lambda found, keep: speedup(options, bench, found),
        }
        for name, most in SECTIONS.items():
            if name in options.sections:
                results.run(name, most, sections[name])
    if options.json:
        print(json.dumps(results.record, indent=2))


if __name__ == "__main__":
    main()
