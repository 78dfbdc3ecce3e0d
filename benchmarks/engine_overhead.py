"""What the engine costs over a bare PyTorch loop on the same batches.

Both train the same network on the same uint8 batches in memory, alternating within one run; the figure is the median of
the rounds' ratios. Example: `python benchmarks/engine_overhead.py --rounds 15`
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import timm
import torch
from torch.nn import functional

from upchirp import Augmentation, Batch, Plan, constant, plan
from upchirp.machine import hardware, versions
from upchirp.models import computes
from upchirp.training import Optimization, Trainer, create_optimizer, set_learning_rate

AUGMENTATION = Augmentation(reprob=0.0, mixup=0.0, cutmix=0.0)


def batches(run: Plan, side: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randint(0, 256, (step.batch_size, 3, side, side), dtype=torch.uint8, generator=generator),
            torch.randint(0, 40, (step.batch_size,), generator=generator),
            step,
            range(step.batch_size),
            torch.arange(step.batch_size),
        )
        for step in run.steps()
    ]


def bare_loop(name: str, data: list[Batch]) -> Callable[[], None]:
    model = timm.create_model(name, num_classes=40).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer(model, Optimization(), learning_rate=1e-3)
    mean = torch.tensor(AUGMENTATION.mean).view(1, 3, 1, 1) * 255
    std = torch.tensor(AUGMENTATION.std).view(1, 3, 1, 1) * 255

    def run() -> None:
        for batch in data:
            images = ((batch.images.float() - mean) / std).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=computes("cpu", torch.bfloat16)):
                logits = model(images)
            loss = functional.cross_entropy(logits.float(), batch.labels, label_smoothing=0.1)
            loss.backward()
            set_learning_rate(optimizer, batch.learning_rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def engine(name: str, data: list[Batch], side: int) -> Callable[[], None]:
    trainer = Trainer(augmentation=AUGMENTATION)
    state = trainer.state(trainer.place(timm.create_model(name, num_classes=40)), bandwidth=side, learning_rate=1e-3)
    rows = len(data[0].labels)
    steps = plan(constant(side), epochs=1, dataset_size=len(data) * rows, batch_size=rows)

    def run() -> None:
        for _ in trainer.run(state, steps, data):
            pass

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--sides", type=int, nargs="+", default=[28, 64])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {}
    for side in options.sides:
        curriculum = constant(side)
        size = options.steps * options.batch_size
        data = batches(plan(curriculum, epochs=1, dataset_size=size, batch_size=options.batch_size), side)
        contenders = {"bare": bare_loop(options.model, data), "engine": engine(options.model, data, side)}
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(options.rounds + 2):
            for name, run in contenders.items():
                started = time.perf_counter()
                run()
                if number >= 2:
                    times[name].append((time.perf_counter() - started) / options.steps)
        ratios = [after / before for before, after in zip(times["bare"], times["engine"], strict=True)]
        figures[str(side)] = {
            "bare_ms": 1000 * median(times["bare"]),
            "engine_ms": 1000 * median(times["engine"]),
            "overhead_percent": 100 * (median(ratios) - 1),
        }
    result = {
        "model": options.model,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "by_side": figures,
        "hardware": hardware(),
        "versions": versions(),
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for side, figure in figures.items():
        print(
            f"{options.model}, batch {options.batch_size}, {side} px: bare {figure['bare_ms']:.1f} ms, "
            f"engine {figure['engine_ms']:.1f} ms a step, overhead {figure['overhead_percent']:+.1f} %"
        )


if __name__ == "__main__":
    main()
