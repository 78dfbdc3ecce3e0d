"""timm's training script by curriculum: what takes the place of its loader and of its scheduler.

    loader_train = upchirp.timm.CurriculumLoader(loader, epochs=num_epochs, classes=1000, device=device)
    lr_scheduler = upchirp.timm.CurriculumScheduler(optimizer, loader_train, model, model_ema)

All else stays: the script's functions for training and validation, its saver, its arguments.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from math import ceil
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from upchirp.data import Batch, Loader
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth, lent_at_size, resized_parameters
from upchirp.randomness import step_seed
from upchirp.training import set_learning_rate

__all__ = ["CurriculumLoader", "CurriculumScheduler"]


class CurriculumLoader:
    """In place of what `timm.data.create_loader` gives for training: images and the shares of the classes, on a device.

    The plan's steps are cut into epochs of as many steps each, of which the last may have fewer. Batches are mixed,
    erased and normalised, so the script's own mixup is left out, and its loss is `SoftTargetCrossEntropy`.

    Args:
        loader: of the plan's batches; with a `micro_batch` a step comes in parts, as the script accumulates them.
        epochs: of the script.
        classes: of the data.
        device: where the model is.
    """

    mixup_enabled = False
    sampler = None

    def __init__(self, loader: Loader, *, epochs: int, classes: int, device: torch.device | str = "cpu") -> None:
        plan = loader.sampler.plan
        if not 1 <= epochs <= plan.total_steps:
            raise InputError(f"{epochs} epochs for {plan.total_steps} steps: give 1 or more, each of a step at least")
        self.loader, self.plan, self.device, self.classes = loader, plan, torch.device(device), classes
        self.updates = ceil(plan.total_steps / epochs)
        """Steps in an epoch."""
        stage = plan.stages[0]
        self.parts = len(loader.sampler.share(stage.batch_size)) // loader.sampler.batch_rows(stage)
        """Batches in a step."""
        self.position = 0
        """The step that comes next; the scheduler says so."""
        self._batches: Iterator[Batch] = iter(())
        self._given = -1

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.updates * self.parts

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the epoch that begins at the position."""
        if self._given != self.position:
            self.loader.load_state_dict({"step": self.position, "selection": None})
            self._batches = iter(self.loader)
        begins = True
        for batch in islice(self._batches, len(self)):
            if begins:
                torch.manual_seed(step_seed(self.loader.sampler.seed, batch.step.index, self.loader.sampler.rank))
            begins, self._given = batch.completes_step, batch.step.index + batch.completes_step
            images, targets = batch.prepare(self.loader.transform, self.device)
            yield images, targets.dense(self.classes)


class CurriculumScheduler:
    """In place of a scheduler of timm's: the plan's learning rates, and a model that fits itself to its images.

    In training the model, the optimizer's moments and the average are resized when images of another side come. In
    evaluation model and average take the side of the images for a pass, and are as before after it, bit by bit.

    Args:
        optimizer: of the model's parameters; `lr_scale` of a group is its share of the learning rate.
        loader: which says the step.
        model: not yet wrapped, on its device.
        ema: a wrapper with the averaged model as its `module`, such as `ModelEmaV3`.

    Raises:
        InputError: several processes, and a model whose parameters are resized: the script wraps it once.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, loader: CurriculumLoader, model: nn.Module, ema: Any = None
    ) -> None:
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if several and (names := resized_parameters(model, loader.plan.sizes)):
            raise InputError(
                f"DistributedDataParallel cannot follow parameters that are resized ({min(names)}) where it is wrapped "
                "once: take a model whose parameters keep their shapes, or a loop as in examples/own_loop.py"
            )
        self._optimizer, self._loader, self._ema = optimizer, loader, ema
        self._side: int | None = None
        self._lent = ExitStack()
        for module in (model, *([] if ema is None else [ema.module])):
            module.register_forward_pre_hook(self._before)
            module.register_forward_hook(self._after, always_call=True)
        self.step_update(0)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """After so many steps: the learning rate of the next one."""
        self._loader.position = min(num_updates, self._loader.plan.total_steps)
        if num_updates < self._loader.plan.total_steps:
            set_learning_rate(self._optimizer, self._loader.plan.step(num_updates).learning_rate)

    def step(self, epoch: int, metric: float | None = None) -> None:
        """After so many epochs, as when a run goes on."""
        self.step_update(epoch * self._loader.updates)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all follows from the epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        side = int(inputs[0].shape[-1])
        if module.training:
            fit_to_bandwidth(module, side, self._optimizer, self._ema)
            self._side = side
        elif self._side is None:
            fit_to_bandwidth(module, side)
        else:
            self._lent.enter_context(lent_at_size([module], side, self._side))

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        self._lent.close()
