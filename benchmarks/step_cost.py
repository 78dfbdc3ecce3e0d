"""What a training step costs at each bandwidth, alone and with the loader on the same cores.

`alone` trains on one batch in memory; `beside` has the loader's workers at normal priority, `behind` at the lowest, as
`upchirp train` starts them on a CPU. From the rates follows what EfficientTrain++ (20, 40 and 40 % of the cost at the
three sides) takes against training at the last side, for as many pixels and for as many multiply-adds. Examples:
`python benchmarks/step_cost.py --data tiny-imagenet-40 --channels 64 128 256 256`
`python benchmarks/step_cost.py --data imagenette-224.zip --model resnet18 --sides 54 92 128 --steps 6`
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping
from statistics import median

import timm
from torch import nn

from upchirp import Augmentation, Batch, Loader, constant, plan
from upchirp.data import Source, open_data
from upchirp.machine import hardware, versions
from upchirp.models import flops_table
from upchirp.training import Trainer
from upchirp.training.run.spent import Clock

AUGMENTATION = Augmentation(scale=(0.35, 1.0), randaug_layers=1, reprob=0.0, mixup=0.0, cutmix=0.0)
WARMUP = 8
SHARES = (0.2, 0.4, 0.4)
"""Of the compute, at each side."""


def images_per_second(options: argparse.Namespace, source: Source, side: int, way: str) -> float:
    size, steps = options.batch_size, options.steps + WARMUP
    run = plan(constant(side), epochs=steps * size / len(source), dataset_size=len(source), batch_size=size)
    workers = 0 if way == "alone" else 2
    loader = Loader(source, run, augmentation=AUGMENTATION, workers=workers, share_cores=way == "behind")
    batches: Iterable[Batch] = loader
    if way == "alone":
        batches = itertools.repeat(next(iter(loader)), steps)
    model = make_model(options, source)
    trainer = Trainer(augmentation=AUGMENTATION)
    state = trainer.state(trainer.place(model), bandwidth=side, learning_rate=1e-3)
    clock = Clock()
    seconds = [clock.lap() for _ in trainer.run(state, run, batches)]
    return size * options.steps / sum(seconds[WARMUP:])


def make_model(options: argparse.Namespace, source: Source) -> nn.Module:
    """The network, with as many channels in its stages as are asked for."""
    own = {"channels": options.channels} if options.channels else {}
    return timm.create_model(options.model, num_classes=len(source.classes), **own)


def time_ratio(speeds: dict[str, float], costs: Mapping[int, float]) -> float:
    """Time of EfficientTrain++ over that of the last side alone, for the same sum of costs."""
    last = max(costs)
    per_cost = {side: 1 / (costs[side] * speeds[str(side)]) for side in costs}
    return sum(share * per_cost[side] for share, side in zip(SHARES, sorted(costs), strict=True)) / per_cost[last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="generated")
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--channels", type=int, nargs=4, help="of resnet10t's stages")
    parser.add_argument("--sides", type=int, nargs="+", default=[28, 46, 64])
    parser.add_argument("--ways", nargs="+", default=["alone", "beside", "behind"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    source, _ = open_data(options.data, max(options.sides))
    keys = list(itertools.product(options.sides, options.ways))
    speeds: dict[tuple[int, str], list[float]] = {key: [] for key in keys}
    for _ in range(options.rounds):
        for side, way in keys:
            speeds[side, way].append(images_per_second(options, source, side, way))
    figures = {way: {str(side): median(speeds[side, way]) for side in options.sides} for way in options.ways}
    costs = {"pixels": {side: float(side**2) for side in options.sides}}
    costs["multiply_adds"] = flops_table(make_model(options, source), options.sides)
    ratios = {
        way: {name: time_ratio(by_side, table) for name, table in costs.items()} for way, by_side in figures.items()
    }
    if options.json:
        about = {"images_per_second": figures, "costs": costs, "time_ratios_at_equal_cost": ratios}
        record = {**vars(options), **about, "hardware": hardware(), "versions": versions()}
        print(json.dumps(record, indent=2))
        return
    for way, by_side in figures.items():
        last = by_side[str(options.sides[-1])]
        print(way, ", ".join(f"{side} px {speed:.0f} images/s ({speed / last:.2f})" for side, speed in by_side.items()))
        print(
            "   time for as many pixels {pixels:.2f}, for as many multiply-adds {multiply_adds:.2f}".format(
                **ratios[way]
            )
        )


if __name__ == "__main__":
    main()
