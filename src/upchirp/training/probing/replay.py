"""`replay='auto'`: the fewest replayed batches with which the loader keeps the device busy."""

import math
from dataclasses import dataclass, replace

import torch

from upchirp.training.probing.probe import Bench
from upchirp.training.probing.rates import loader_speed, model_speed
from upchirp.training.probing.waiting import MOST_REPLAYS


@dataclass(frozen=True)
class Speeds:
    """What the two halves of training do alone, images per second."""

    loader: float
    model: float


def replays_needed(speeds: Speeds) -> int:
    """The smallest n with loader * (n + 1) >= model, but for rounding, at most `MOST_REPLAYS`.

    >>> replays_needed(Speeds(loader=1000, model=900)), replays_needed(Speeds(loader=1000, model=2500))
    (0, 2)
    """
    return min(MOST_REPLAYS, max(0, math.ceil(speeds.model / speeds.loader * (1 - 1e-9)) - 1))


def choose_replay(bench: Bench, micro_batch: int, *, final: bool) -> tuple[dict[int, int], list[str]]:
    """Replayed batches for each bandwidth that may replay, and one line on each with what was measured.

    Loader and model are measured one after the other, each for a few seconds. On a CPU they share the cores in
    training, so neither reaches what was measured: there the choice brings the loader's work below the model's, and
    more replay would save more time. `final` says whether the final size may replay too.
    """
    trainer, curriculum = bench.trainer, bench.curriculum
    sides = [side for side in curriculum.bandwidths if side < curriculum.final_size or final]
    chosen: dict[int, int] = {}
    notes: list[str] = []
    for number, side in enumerate(sides):
        # Other images at each bandwidth: those of the one before are in the file cache by now.
        loading = replace(trainer.loading, seed=trainer.loading.seed + 1 + number)
        of_side = replace(bench, trainer=replace(trainer.alone(), loading=loading))
        speeds = Speeds(loader=loader_speed(of_side, side), model=model_speed(of_side, side, micro_batch))
        chosen[side] = replays_needed(speeds)
        notes.append(_note(side, speeds, chosen[side], trainer.device))
    return chosen, notes


def _note(side: int, speeds: Speeds, chosen: int, device: torch.device) -> str:
    short = speeds.loader * (chosen + 1) < speeds.model
    return (
        f"replay at {side} px: the loader alone prepares {speeds.loader:.0f} images/s, the model alone takes "
        f"{speeds.model:.0f}: {chosen} replayed for each fresh batch"
        + (", the most that is chosen, and the device will still wait" if short else "")
        + (" (on the CPU the two share the cores, and both are slower together)" if device.type == "cpu" else "")
    )
