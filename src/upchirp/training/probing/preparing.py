"""`prepare="auto"`: the way of preparing images with which the device waits least for them.

Packed levels are read wherever they are there, so the loader's rates hold them already. Replay is never chosen here,
only named where it would help: it trains on the same crops again, which changes what a run learns from, while the ways
of preparing an image change it by rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from upchirp.curriculum import Plan, Stage
from upchirp.data.settings import Prepare
from upchirp.training.engine.memory import OutOfMemory, free_memory, ran_out
from upchirp.training.events import Report
from upchirp.training.probing.micro_batch import micro_batches
from upchirp.training.probing.probe import Bench
from upchirp.training.probing.rates import loader_speed, model_speed
from upchirp.training.probing.shared_memory import Demand
from upchirp.training.probing.waiting import ADVISED_SHARE, Supply
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.groups import Planning

WORTH = ADVISED_SHARE
"""Share of the time that another way than the usual one has to save. The model and the loader are measured apart, and
what a device does to prepare images it cannot do for the model, so a small gain may be none."""
LEAST_IMAGES = 300_000
"""Images that a run prepares from which measuring pays: it takes as long as some thousands of them."""
WAYS: tuple[Prepare, ...] = ("cpu", "device")
"""What is chosen from, the usual one first; decoding on the device is left out until it was measured."""
_AT_ONCE = 256
_SECONDS = 1.0

Rates = Mapping[int, float]
"""Images per second by bandwidth, measured at the smallest and the largest; between them the time of an image grows
with its pixels, as that of a model and that of a loader do."""


@dataclass(frozen=True, kw_only=True)
class PrepareChoice:
    """Who prepares images, and why."""

    prepare: Prepare
    waiting: float
    """Share of the time for which the device will wait even so, 0 to 1."""
    reason: str


def choose(stages: Sequence[Stage], model: Rates, loaders: Mapping[Prepare, Rates]) -> PrepareChoice:
    """The cheapest way that keeps the device busy, or the fastest.

    A stage lasts as long as the slower of the two: the model, which trains on all of its images, and the loader, which
    prepares the fresh ones. `cpu` costs the device nothing, so another way has to save a tenth of the whole.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> stages = plan(efficienttrain_plus_plus(), epochs=200).stages
    >>> files = {"cpu": {96: 1500, 224: 1100}, "device": {96: 1900, 224: 1600}}
    >>> print(choose(stages, {96: 1400, 224: 260}, files).reason)
    `prepare='cpu'`: it gives 1,500 images/s at 96 px and 1,100 at 224, and the model takes 1,400 and 260
    >>> choose(stages, {96: 21_000, 224: 3_900}, files).prepare
    'device'
    """
    computing = _seconds(stages, model, None)
    spent = {way: _seconds(stages, model, rates) for way, rates in loaders.items()}
    fastest = min(spent, key=lambda way: (spent[way], way != "cpu"))
    chosen: Prepare = fastest if spent[fastest] < (1 - WORTH) * spent["cpu"] else "cpu"
    reason = f"`prepare='{chosen}'`: it gives {_listed(loaders[chosen])}, and the model takes {_figures(model)}"
    if chosen != "cpu":
        saved = 1 - spent[chosen] / spent["cpu"]
        reason = (
            f"`prepare='{chosen}'`: saves about {saved:.0%} of the time, as it gives {_listed(loaders[chosen])}, "
            f"`prepare='cpu'` {_figures(loaders['cpu'])}, and the model takes {_figures(model)}"
        ).replace("%", " %")
    return PrepareChoice(prepare=chosen, waiting=1 - computing / spent[chosen], reason=reason)


def _seconds(stages: Sequence[Stage], model: Rates, loader: Rates | None) -> float:
    """What the stages take; without a loader the model alone."""
    return sum(
        max(
            stage.samples * _seconds_of_one(model, stage.bandwidth),
            0.0 if loader is None else stage.fresh_samples * _seconds_of_one(loader, stage.bandwidth),
        )
        for stage in stages
    )


def _seconds_of_one(rates: Rates, side: int) -> float:
    """Seconds of one image."""
    first, last = min(rates), max(rates)
    if first == last:
        return 1 / rates[first]
    share = (side**2 - first**2) / (last**2 - first**2)
    return (1 - share) / rates[first] + share / rates[last]


def _listed(rates: Rates) -> str:
    first, *others = sorted(rates)
    text = f"{rates[first]:,.0f} images/s at {first} px"
    return text + "".join(f" and {rates[side]:,.0f} at {side}" for side in others)


def _figures(rates: Rates) -> str:
    return " and ".join(f"{rates[side]:,.0f}" for side in sorted(rates))


def choose_prepare(
    bench: Bench, planning: Planning, plan: Plan, *, packing_helps: Callable[[], bool], report: Report
) -> tuple[Prepare, str]:
    """Who is to prepare the images of a run, by measuring, and a line on it: the first rank decides for all.

    The model is measured, and the loader as it is; and only where that leaves the device waiting for more than `WORTH`
    of the time, the loader with preparation on the device. The loader's workers start and fill their queues while the
    model is measured. All ranks measure at once, as they will load at once in training.
    """
    report("measuring who prepares images fast enough")
    trainer, ranks = bench.trainer, bench.trainer.parallel.ranks
    at_once = micro_batches(planning, plan, ranks.size)
    asked = trainer.loading.processes
    sides = sorted({plan.bandwidths[0], plan.bandwidths[-1]})
    models: dict[int, float] = {}
    loaders: dict[Prepare, Rates] = {}
    for number, way in enumerate(WAYS):
        workers, _ = Demand(plan=plan, prepare=way, channels=trainer.augmentation.channels).workers(asked)
        seed = trainer.loading.seed + number * len(sides)
        loading = replace(trainer.loading, prepare=way, workers=workers, seed=seed)
        of_way = replace(bench, trainer=replace(trainer.alone(), loading=loading))
        rates = _loader_rates(of_way, {side: at_once[side] for side in sides}, models)
        free_memory(trainer.device)
        if any(ranks.largest(int(rates is None))):
            return "cpu", "`prepare='cpu'`: there was too little memory to measure another way"
        loaders[way] = rates or {}
        choice = ranks.from_first(lambda: choose(plan.stages, models, loaders))
        if choice.waiting <= WORTH:
            break
    line = choice.reason
    if choice.waiting > ADVISED_SHARE:
        supply = Supply(workers=asked, packing_helps=packing_helps())
        replayable = planning.replay != "auto" and (len(plan.bandwidths) > 1 or planning.replay_final)
        helping = supply.remedies(choice.waiting, replay=plan.stages[0].replay.batches if replayable else None)
        line += f"; the device will wait for {100 * choice.waiting:.0f} % of the time even so: try {helping}"
    return choice.prepare, line


def _loader_rates(bench: Bench, at_once: Mapping[int, int], models: dict[int, float]) -> Rates | None:
    """What the loader gives at some sides, of which so many images are computed at once; None if memory runs out.

    In `models` is put what the model takes at those sides at which that is not known yet.
    """

    def measure_model(of_side: Bench, side: int) -> None:
        if side not in models:
            models[side] = model_speed(of_side, side, at_once[side], seconds=_SECONDS)

    rates: dict[int, float] = {}
    loading = bench.trainer.loading
    for number, side in enumerate(at_once, start=1):
        # Other images each time: those of the time before are in the file cache by now.
        trainer = replace(bench.trainer, loading=replace(loading, seed=loading.seed + number))
        of_side, batch = replace(bench, trainer=trainer), min(_AT_ONCE, at_once[side])
        meanwhile = partial(measure_model, of_side, side)
        try:
            rates[side] = loader_speed(of_side, side, batch_size=batch, seconds=_SECONDS, meanwhile=meanwhile)
        except (OutOfMemory, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not ran_out(error):
                raise
            return None
    return rates


def pays_to_measure(config: TrainConfig, device: torch.device, plan: Plan) -> bool:
    """Whether measuring who prepares images fastest is worth its time.

    Not on a CPU: what the device does there takes the cores that the model and the workers compute on, and it is the
    larger part. At 96 px workers are spared 0.3 ms of an image, and the same core then takes 3 to 4 ms for it, as a
    device works in floating point on images padded to the largest; at 224 px 0.6 ms and 13 to 16. Nor on Apple's GPUs,
    which lack float64. A deterministic run is the same wherever it begins, so nothing that was timed may decide it.
    Ranks that share a model out have no whole one to measure, and a device prepares photographs alone.
    """
    reduced = {config.low_frequency, *(stage.operator or config.low_frequency for stage in plan.stages)}
    able = device.type == "cuda" and config.mode != "faithful" and reduced == {"lanczos"}
    able = able and config.augmentation.channels.photographs
    return able and not (config.deterministic or config.parallel == "fsdp") and plan.total_fresh_samples >= LEAST_IMAGES
