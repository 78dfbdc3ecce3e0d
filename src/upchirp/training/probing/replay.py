"""`replay='auto'`: the fewest replayed batches with which the loader keeps the device busy."""

import math
import time
from dataclasses import dataclass, replace
from itertools import islice, repeat

import torch
from torch import nn

from upchirp.curriculum import Curriculum, Plan, plan
from upchirp.data import Source
from upchirp.data.settings import image_side
from upchirp.training.engine.trainer import PROBE_RATE, Trainer
from upchirp.training.engine.waiting import MOST_REPLAYS
from upchirp.training.probing.grey import grey_batch

_LOADER_BATCH = 16
_LOADER_SECONDS = _MODEL_SECONDS = 3.0
_MODEL_WARMUP, _MODEL_STEPS = 2, 10
_MANY_STEPS = 1_000_000


@dataclass(frozen=True)
class Speeds:
    """What the two halves of training do alone, images per second."""

    loader: float
    model: float


def replays_needed(speeds: Speeds) -> int:
    """The smallest n with loader * (n + 1) >= model, at most `MOST_REPLAYS`.

    >>> replays_needed(Speeds(loader=1000, model=900)), replays_needed(Speeds(loader=1000, model=2500))
    (0, 2)
    """
    return min(MOST_REPLAYS, max(0, math.ceil(speeds.model / speeds.loader) - 1))


def choose_replay(
    trainer: Trainer, curriculum: Curriculum, model: nn.Module, source: Source, micro_batch: int, *, final: bool
) -> tuple[dict[int, int], list[str]]:
    """Replayed batches for each bandwidth that may replay, and one line on each with what was measured.

    Loader and model are measured one after the other, each for a few seconds. On a CPU they share the cores in
    training, so neither reaches what was measured: there the choice brings the loader's work below the model's, and
    more replay would save more time. `final` says whether the final size may replay too.
    """
    sides = [side for side in curriculum.bandwidths if side < curriculum.final_size or final]
    chosen: dict[int, int] = {}
    notes: list[str] = []
    for number, side in enumerate(sides):
        # Other images at each bandwidth: those of the one before are in the file cache by now.
        loading = replace(trainer.loading, seed=trainer.loading.seed + 1 + number)
        of_side = replace(trainer.alone(), loading=loading)
        speeds = Speeds(
            loader=loader_speed(of_side, curriculum, side, source),
            model=model_speed(of_side, curriculum, side, model, micro_batch),
        )
        chosen[side] = replays_needed(speeds)
        notes.append(_note(side, speeds, chosen[side], trainer.device))
    return chosen, notes


def loader_speed(trainer: Trainer, curriculum: Curriculum, bandwidth: int, source: Source) -> float:
    """Images per second that the configured workers prepare while nothing is trained."""
    probe = _probe(curriculum, bandwidth, len(source), _LOADER_BATCH)
    batches = iter(trainer.loader(source, probe))
    # The first batch of each worker pays for its start.
    for _ in islice(batches, max(1, trainer.loading.processes)):
        pass
    images, begun, spent = 0, time.perf_counter(), 0.0
    while spent < _LOADER_SECONDS:
        images += len(next(batches).labels)
        spent = time.perf_counter() - begun
    del batches  # ends the workers
    return images / spent


def model_speed(trainer: Trainer, curriculum: Curriculum, bandwidth: int, model: nn.Module, micro_batch: int) -> float:
    """Images per second that a copy of the model trains on, when they are on the device already."""
    probe = _probe(curriculum, bandwidth, micro_batch, micro_batch)
    side = image_side(probe.step(0), trainer.loading.low_frequency, curriculum.final_size)
    state = trainer.probe_state(model, bandwidth=curriculum.final_size)
    results = trainer.run(state, probe, repeat(grey_batch(probe.step(0), range(micro_batch), side, trainer.device)))
    for result in islice(results, _MODEL_WARMUP):
        result.loss.item()
    steps, begun = 0, time.perf_counter()
    while steps < _MODEL_STEPS and time.perf_counter() - begun < _MODEL_SECONDS:
        result = next(results)
        steps += 1
    result.loss.item()  # waits for the device
    return steps * micro_batch / (time.perf_counter() - begun)


def _probe(curriculum: Curriculum, bandwidth: int, dataset_size: int, batch_size: int) -> Plan:
    """A plan that begins at a bandwidth and stays there for longer than anything is measured."""
    sides = dict.fromkeys((bandwidth, curriculum.final_size))
    phases = tuple(replace(curriculum.phase_at(side), end=(k + 1) / len(sides)) for k, side in enumerate(sides))
    return plan(
        Curriculum(name="probe", axis="samples", phases=phases, magnitude=curriculum.magnitude),
        epochs=_MANY_STEPS * batch_size / dataset_size,
        dataset_size=dataset_size,
        batch_size=batch_size,
        learning_rate=PROBE_RATE,
    )


def _note(side: int, speeds: Speeds, chosen: int, device: torch.device) -> str:
    short = speeds.loader * (chosen + 1) < speeds.model
    return (
        f"replay at {side} px: the loader alone prepares {speeds.loader:.0f} images/s, the model alone takes "
        f"{speeds.model:.0f}: {chosen} replayed for each fresh batch"
        + (", the most that is chosen, and the device will still wait" if short else "")
        + (" (on the CPU the two share the cores, and both are slower together)" if device.type == "cpu" else "")
    )
