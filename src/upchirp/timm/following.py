"""A plan's batches in epochs, and a model that follows them by itself, for loops that know nothing of a plan."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from math import ceil
from typing import Any

import torch
import torch.distributed as dist
from timm.task import TrainingTask
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from upchirp.data import Batch, Loader
from upchirp.data.label_sets import one_label_each
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth, lent_at_size, resized_parameters, size_of_weights
from upchirp.models.meta import unwrap
from upchirp.randomness import step_seed
from upchirp.training import set_learning_rate


class CurriculumLoader:
    """In place of what `timm.data.create_loader` gives for training: images and the shares of the classes, on a device.

    The plan's steps are cut into epochs of as many steps each, of which the last may have fewer. Batches are mixed,
    erased and normalised, so the script's own mixup is left out, and its loss is `SoftTargetCrossEntropy`. If nothing
    is to be mixed or smoothed, the targets are labels, for any loss.

    Args:
        loader: of the plan's batches; with a `micro_batch` a step comes in parts, as the script accumulates them.
        epochs: of the script.
        classes: of the data.
        device: where the model is.
    """

    mixup_enabled = False
    # The script asks them whether they want to know the epoch.
    dataset = batch_sampler = sampler = None

    def __init__(self, loader: Loader, *, epochs: int, classes: int, device: torch.device | str = "cpu") -> None:
        one_label_each(loader, "this loader")
        plan = loader.sampler.plan
        if not 1 <= epochs <= plan.total_steps:
            raise InputError(f"{epochs} epochs for {plan.total_steps} steps: give 1 or more, each of a step at least")
        self.loader, self.plan, self.device, self.classes = loader, plan, torch.device(device), classes
        self.epochs = epochs
        self.updates = ceil(plan.total_steps / epochs)
        """Steps in an epoch."""
        stage = plan.stages[0]
        self.parts = len(loader.sampler.share(stage.batch_size)) // loader.sampler.batch_rows(stage)
        """Batches in a step."""
        self.position = 0
        """The step that comes next; the scheduler says so."""
        self._dense = loader.augmentation.mixes or loader.augmentation.smoothing > 0
        self._batches: Iterator[Batch] = iter(())
        self._given = -1

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.updates * self.parts

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the epoch that begins at the position.

        Raises:
            InputError: the plan has ended.
        """
        if self.position >= self.plan.total_steps:
            raise InputError(f"the {self.plan.total_steps} steps of the plan are done: train for no more epochs")
        if self._given != self.position:
            self.loader.load_state_dict({"step": self.position, "selection": None})
            self._batches = iter(self.loader)
        begins = True
        for batch in islice(self._batches, len(self)):
            if begins:
                torch.manual_seed(step_seed(self.loader.sampler.seed, batch.step.index, self.loader.sampler.rank))
            begins, self._given = batch.completes_step, batch.step.index + batch.completes_step
            images, targets = batch.prepare(self.loader.transform, self.device)
            yield images, targets.dense(self.classes) if self._dense else targets.labels


class CurriculumScheduler:
    """In place of a scheduler of timm's: the plan's learning rates, and a model that fits itself to its images.

    In training the model, the optimizer's moments and the average are resized when images of another side come. In
    evaluation model and average take the side of the images for a pass, and are as before after it, bit by bit.

    Args:
        optimizer: of the model's parameters; `lr_scale` of a group is its share of the learning rate.
        loader: which says the step.
        model: on its device; or the script's `task`, which has the average, too.
        ema: a wrapper with the averaged model as its `module`, such as `ModelEmaV3`.

    Raises:
        InputError: several processes, and a model whose parameters are resized: the script wraps it once.
    """

    t_in_epochs = False

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loader: CurriculumLoader,
        model: nn.Module,
        ema: Any = None,
    ) -> None:
        if isinstance(model, TrainingTask):
            task: Any = model
            model, ema = task.get_trainable_module(), task.get_eval_model(ema=True)
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if several and (names := resized_parameters(model, loader.plan.sizes)):
            raise InputError(
                f"DistributedDataParallel cannot follow parameters that are resized ({min(names)}) where it is wrapped "
                "once: take a model whose parameters keep their shapes, or a loop as in examples/own_loop.py"
            )
        self._optimizer, self._loader, self._ema = optimizer, loader, ema
        self._side: int | None = None
        self._lent = ExitStack()

        # Functions, as a copy of the model is to have the very same, and not a copy of all that is here.
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._fit(_network(module), int(inputs[0].shape[-1]))

        def after(*_: Any) -> None:
            with torch.inference_mode(False):
                self._lent.close()

        self._handles = []
        for module in (model, *([] if ema is None else [ema if hasattr(ema, "_orig_mod") else ema.module])):
            self._handles.append(module.register_forward_pre_hook(before))
            self._handles.append(module.register_forward_hook(after, always_call=True))
        self.step_update(0)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """After so many steps: the learning rate of the next one."""
        self._loader.position = min(num_updates, self._loader.plan.total_steps)
        if num_updates < self._loader.plan.total_steps:
            set_learning_rate(self._optimizer, self._loader.plan.step(num_updates).learning_rate)

    def step(self, epoch: int, metric: float | None = None) -> None:
        """After so many epochs, as when a run goes on."""
        self.step_update(epoch * self._loader.updates)
        if self._side is None and epoch > 0:
            # The side that a checkpoint was stored at.
            self._side = self._loader.plan.step(self._loader.position - 1).bandwidth

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all follows from the epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def remove(self) -> None:
        """Leave model and average as any others."""
        for handle in self._handles:
            handle.remove()

    def _fit(self, network: nn.Module, side: int) -> None:
        # What is made in an evaluation, such as the masks of windows, is trained with afterwards.
        with torch.inference_mode(False):
            if network.training:
                fit_to_bandwidth(network, side, self._optimizer, self._ema)
                self._side = side
            elif self._side is None:
                fit_to_bandwidth(network, side)
            else:
                self._lent.enter_context(lent_at_size([network], side, self._side))


def _network(module: nn.Module) -> nn.Module:
    """The network in what may be compiled, an average as well."""
    module = unwrap(module)
    return unwrap(module.module) if isinstance(module, ModelEmaV3) else module


def fit_to_stored(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a model take the shapes of what is about to be loaded into it."""
    if not prefix and (size := size_of_weights(model, {name: value.shape for name, value in state.items()}, 0)):
        fit_to_bandwidth(model, size)
