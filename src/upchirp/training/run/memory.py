"""Memory of a run: how many images are computed at once, on all its ranks and after a restart."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.errors import InputError, reason_of
from upchirp.files import write_text
from upchirp.training.engine.memory import MicroBatches, device_name
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Report
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.probing.micro_batch import can_try, find_micro_batches, fits_on, micro_batches
from upchirp.training.recipes.groups import Planning

_FILE = "micro_batches.json"


class RunMemory:
    """The micro-batches of a run; where memory ran out they stay smaller, on all ranks and after a restart.

    What is kept holds for the same kind of device and the same setting only.

    Raises:
        InputError: what the folder keeps is damaged.
    """

    def __init__(
        self, micro_batches: MicroBatches, folder: Path, asked: int | str | None, device: torch.device, ranks: Ranks
    ) -> None:
        self.micro_batches = micro_batches
        self._file = folder / _FILE
        self._where = {"device": device_name(device), "micro_batch": asked}
        self._ranks = ranks
        micro_batches.reduce(ranks.from_first(self._read))

    def agree(self) -> None:
        """Let all ranks take what fits on each, after memory ran out on one of them; they call it together."""
        for reduced in self._ranks.gather(self.micro_batches.reduced):
            self.micro_batches.reduce(reduced)
        if self._ranks.is_first:
            self.store()

    def store(self) -> None:
        """Keep for the next start what memory that ran out left."""
        # The folder is where the first rank is, which may be another machine.
        if self._file.parent.is_dir():
            write_text(self._file, json.dumps({**self._where, "sizes": self.micro_batches.reduced}) + "\n")

    def _read(self) -> dict[int, int]:
        if not self._file.exists():
            return {}
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            if any(kept[name] != value for name, value in self._where.items()):
                return {}
            return {int(side): int(size) for side, size in kept["sizes"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"cannot read {self._file} ({reason_of(error, self._file)}): delete it, and memory is tried anew"
            ) from error


def memory_of(
    planning: Planning, trainer: Trainer, plan: Plan, model: nn.Module, folder: Path, report: Report
) -> tuple[RunMemory, list[str]]:
    """How many images a run computes at once at each bandwidth, and lines on it where it is not the usual."""
    device, ranks = trainer.device, trainer.parallel.ranks
    sizes = micro_batches(planning, plan, ranks.size)
    notes: list[str] = []
    if planning.micro_batch == "auto" and can_try(device):
        report("trying how many images fit in memory")
        sizes = find_micro_batches(planning.augmentation, plan, fits_on(trainer, plan, model), ranks=ranks)
        notes.append(f"`micro_batch='auto'`: memory holds {_listed(sizes)}")
    elif planning.micro_batch == "auto":
        notes.append(f"`micro_batch='auto'` tries CUDA's memory only: here it is {_listed(sizes)}")
    memory = RunMemory(MicroBatches(sizes), folder, planning.micro_batch, device, ranks)
    if reduced := memory.micro_batches.reduced:
        notes.append(f"memory ran out in this run before, so it goes on with {_listed(reduced)} at once")
    return memory, notes


def _listed(sizes: Mapping[int, int]) -> str:
    return ", ".join(f"{size} images at {side} px" for side, size in sorted(sizes.items()))
