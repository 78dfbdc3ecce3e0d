"""Lightning by curriculum: a data module that loads a plan's batches, and a callback that keeps the model in step.

    data = upchirp.lightning.CurriculumData(train, val, plan)
    trainer = Trainer(max_epochs=1, callbacks=[upchirp.lightning.Curriculum()])
    trainer.fit(module, datamodule=data)

The module stays as it is: `training_step` gets images and the shares of the classes, `validation_step` images of the
final size and labels, so that `cross_entropy(self(images), targets)` is right in both. Whichever of `lightning` and
`pytorch_lightning` is imported first is the one that is used.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Plan, Step
from upchirp.data import Augmentation, Batch, BatchTransform, Loader, as_source, normalize
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth, lent_at_size, resized_parameters
from upchirp.randomness import step_seed
from upchirp.training import follow
from upchirp.training.evaluation.images import EvalBatch, EvaluationSet
from upchirp.training.parallel.ranks import Ranks

__all__ = ["Curriculum", "CurriculumData", "fit_to_checkpoint"]


def _installed() -> Any:
    """Lightning under the name by which it is imported already, or by which it is found."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(names, key=lambda name: name.partition(".")[0] not in sys.modules):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise InputError("upchirp.lightning needs Lightning, which is not installed: pip install 'upchirp[lightning]'")


_lightning = _installed()
_DataModule: Any = _lightning.LightningDataModule
_Callback: Any = _lightning.Callback
_KEY = "upchirp.Curriculum"


class CurriculumData(_DataModule):
    """The batches of a plan, of which every device takes its share, and validation images at the final size.

    All passes over the data are one epoch for Lightning (`max_epochs=1`), as their steps are the plan's;
    `val_check_interval` says how often to validate in it. With `accumulate_grad_batches=N` a step of the plan comes in
    N parts.

    Args:
        train: a `Source`, or what else `upchirp.Loader` takes.
        val: the same for validation; none validates by the module's own loader, if it has one.
        plan: what to train on; `plan.total_steps` is how many optimizer steps there are.
        classes: how many; by default those of `train`.
        augmentation: as for `Loader`.
        seed: of data, augmentation, dropout and drop path.
        workers: loader processes.
        val_batch_size: validation images in one forward pass on each device.
        loader: whatever else `upchirp.Loader` takes, such as `low_frequency` or `prepare`.

    Raises:
        InputError: selection, which needs a loop of one's own.
    """

    def __init__(
        self,
        train: Any,
        val: Any,
        plan: Plan,
        *,
        classes: int | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int = 2,
        val_batch_size: int = 256,
        **loader: Any,
    ) -> None:
        super().__init__()
        if loader.get("select") is not None:
            raise InputError("selection needs the loss of each image, which Lightning does not hand out: leave it out")
        self.train, self.val, self.plan = as_source(train), None if val is None else as_source(val), plan
        self.classes = len(self.train.classes) if classes is None else classes
        self.augmentation = augmentation or Augmentation()
        self.seed, self.workers, self.val_batch_size, self._options = seed, workers, val_batch_size, loader
        self._transform: BatchTransform | None = None
        self.step: Step | None = None
        """The step of the batch that came last."""
        self.begins_step = False
        """Whether it holds the first rows of this device's share of the step."""

    def train_dataloader(self) -> "_Steps":
        """The loader of this device's share."""
        parts = self.trainer.accumulate_grad_batches
        ranks = self.trainer.world_size
        micro_batches = {}
        for stage in self.plan.stages:
            if stage.batch_size % (ranks * parts):
                raise InputError(
                    f"batch size {stage.batch_size} cannot be shared by {ranks} devices in {parts} parts "
                    "(`accumulate_grad_batches`): plan with a multiple"
                )
            micro_batches[stage.bandwidth] = stage.batch_size // (ranks * parts)
        loader = Loader(
            self.train,
            self.plan,
            augmentation=self.augmentation,
            seed=self.seed,
            workers=self.workers,
            micro_batch=micro_batches,
            rank=self.trainer.global_rank,
            world_size=ranks,
            device=self.trainer.strategy.root_device,
            **self._options,
        )
        self._transform = loader.transform
        return _Steps(loader, self.plan.total_steps * parts)

    def val_dataloader(self) -> Any:
        """This device's share of the validation images."""
        if self.val is None:
            return []
        ranks = Ranks(self.trainer.global_rank, self.trainer.world_size)
        return _Images(
            EvaluationSet(
                self.val,
                self.plan.final_size,
                interpolation=self.augmentation.interpolation,
                workers=self.workers,
                batch_size=even_batch(len(self.val), ranks.size, self.val_batch_size),
                ranks=ranks,
            )
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Images (N, 3, B, B), normalised, erased and mixed, with the shares of the classes, (N, classes).

        In validation with labels, (N,).
        """
        if isinstance(batch, _Carried):
            assert self._transform is not None
            self.step, self.begins_step = batch.batch.step, batch.begins_step
            images, targets = batch.batch.prepare(self._transform, device)
            return self.trainer.precision_plugin.convert_input((images, targets.dense(self.classes)))
        if isinstance(batch, EvalBatch):
            images = normalize(batch.images.to(device), self.augmentation.mean, self.augmentation.std)
            return self.trainer.precision_plugin.convert_input((images, batch.labels.to(device)))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class Curriculum(_Callback):
    """Keeps model, moments, averages of the weights and learning rate where the plan of `CurriculumData` has them.

    Before each step they follow it; parameters that are resized are wrapped anew for DDP. Validation, tests and
    predictions see the module at the final size, after which it is as before, bit by bit. Averages are those of
    Lightning's `WeightAveraging` callbacks. The plan and the bandwidth are in Lightning's checkpoints, from which
    `trainer.fit(..., ckpt_path=...)` goes on at any step, exactly: dropout is seeded by the step.

    Args:
        own_rates: leave the learning rates to the schedulers of the module; by default they are the plan's.

    Raises:
        InputError: when fitting begins: no `CurriculumData`, more than one epoch or optimizer, a scheduler beside the
            plan's learning rates, or a strategy that cannot follow the model's shapes.
    """

    def __init__(self, *, own_rates: bool = False) -> None:
        self._own_rates = own_rates
        self._bandwidth: int | None = None
        self._validating = ExitStack()
        self._resized = False

    @property
    def state_key(self) -> str:
        """Where checkpoints have it."""
        return _KEY

    def state_dict(self) -> dict[str, Any]:
        """The plan, and the bandwidth to which the model is fitted."""
        return {"plan": self._plan, "bandwidth": self._bandwidth}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Look whether all is there; the module takes the shapes of a checkpoint before it is loaded."""
        data = trainer.datamodule
        if not isinstance(data, CurriculumData):
            if stage == "fit":
                raise InputError(
                    "the plan comes with the data: fit by datamodule=upchirp.lightning.CurriculumData(...)"
                )
            return
        if stage == "fit" and trainer.max_epochs != 1:
            raise InputError(
                "the plan holds all passes over the data, which are one epoch for Lightning: Trainer(max_epochs=1), "
                "with val_check_interval for validations in between"
            )
        self._plan = data.plan.to_dict()
        own = type(pl_module).on_load_checkpoint

        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            fit_to_checkpoint(pl_module, checkpoint)
            state = checkpoint["callbacks"].get(_KEY)
            if stage == "fit" and state is not None:
                if state["plan"] != self._plan:
                    raise InputError("the checkpoint was trained by another plan: go on with the same one")
                self._bandwidth = state["bandwidth"]
                for average in _averages(trainer):
                    fit_to_bandwidth(_network(average), self._bandwidth)
            own(pl_module, checkpoint)

        # Callbacks are asked after the weights are loaded, which takes the right shapes.
        pl_module.on_load_checkpoint = on_load_checkpoint

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse what would go wrong later."""
        if len(trainer.optimizers) != 1:
            raise InputError(f"{len(trainer.optimizers)} optimizers: a curriculum follows one")
        if trainer.lr_scheduler_configs and not self._own_rates:
            raise InputError(
                "the learning rates are the plan's: let configure_optimizers return no scheduler, or give "
                "Curriculum(own_rates=True)"
            )
        wrapped = trainer.strategy.model is not pl_module
        if wrapped and not hasattr(trainer.strategy, "configure_ddp"):
            sizes = trainer.datamodule.plan.sizes
            if names := resized_parameters(_network(pl_module), sizes):
                raise InputError(
                    f"{type(trainer.strategy).__name__} cannot follow parameters that are resized ({min(names)}): take "
                    'strategy="ddp", or a model whose parameters keep their shapes, such as a ResNet'
                )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Bring all to the batch's step."""
        data, (optimizer,) = trainer.datamodule, trainer.optimizers
        if not data.begins_step:
            return
        step, network = data.step, _network(pl_module)
        optimizer = getattr(optimizer, "optimizer", optimizer)
        averages = [_network(average) for average in _averages(trainer)]
        if self._own_rates:
            resized = fit_to_bandwidth(network, step.bandwidth, optimizer)
        else:
            resized = follow(step, network, optimizer)
        for average in averages:
            fit_to_bandwidth(average, step.bandwidth)
        self._bandwidth = step.bandwidth
        if resized:
            _wrap_anew(trainer, pl_module)
        torch.manual_seed(step_seed(data.seed, step.index, trainer.global_rank))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Fit to the final size, for now."""
        models = [_network(pl_module), *map(_network, _averages(trainer))]
        self._resized = self._to_final(trainer, models)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Go back to the bandwidth."""
        self._validating.close()
        if self._resized:
            _wrap_anew(trainer, pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Fit to the final size."""
        self._to_final(trainer, [_network(pl_module)])

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Fit to the final size."""
        self._to_final(trainer, [_network(pl_module)])

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Go back to the bandwidth, as there may be callbacks that save now."""
        self._validating.close()

    def _to_final(self, trainer: Any, models: list[nn.Module]) -> bool:
        """Whether parameters are resized; in the middle of training that is for as long as the validation."""
        if not isinstance(trainer.datamodule, CurriculumData):
            return False
        size = trainer.datamodule.plan.final_size
        if trainer.state.fn == "fit" and self._bandwidth is not None:
            return self._validating.enter_context(lent_at_size(models, size, back=self._bandwidth))
        return max(fit_to_bandwidth(model, size) for model in models)


def fit_to_checkpoint(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Let a module take the shapes of a checkpoint that was saved by `Curriculum`; of any other, nothing happens.

    `Trainer` does so by itself. For `load_from_checkpoint` call it in the module's `on_load_checkpoint`.

    Args:
        module: a `LightningModule`.
        checkpoint: what Lightning saved.
    """
    state = checkpoint.get("callbacks", {}).get(_KEY)
    if state is not None and state["bandwidth"] is not None:
        fit_to_bandwidth(_network(module), state["bandwidth"])


def even_batch(images: int, ranks: int, most: int) -> int:
    """The largest batch of at most `most` by which all ranks have the same number of batches, as DDP wants it.

    Ranks have the same number of images, or one fewer.

    >>> even_batch(17, 2, 8), even_batch(16, 2, 8)
    (7, 8)
    """
    if images % ranks == 0:
        return most
    return next((batch for batch in range(most, 1, -1) if (images // ranks) % batch), most)


class _Carried:
    """A batch on its way, which Lightning takes for none of its collections."""

    def __init__(self, batch: Batch, begins_step: bool) -> None:
        self.batch, self.begins_step = batch, begins_step


class _Steps:
    """A loader as long as the whole plan wherever it begins: Lightning counts the batches before a resume, too."""

    def __init__(self, loader: Loader, batches: int) -> None:
        self._loader, self._batches = loader, batches
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    def __iter__(self) -> Iterator[_Carried]:
        share = self._loader.sampler.share
        for batch in self._loader:
            yield _Carried(batch, begins_step=batch.rows.start == share(batch.step.batch_size).start)

    def __len__(self) -> int:
        return self._batches


class _Images:
    """Validation images with how many batches they are."""

    def __init__(self, images: EvaluationSet) -> None:
        self._images = images

    def __iter__(self) -> Iterator[EvalBatch]:
        return iter(self._images)

    def __len__(self) -> int:
        return self._images.batches


def _network(module: nn.Module) -> nn.Module:
    """The network in a `LightningModule`: its only child with parameters, or else all of it."""
    parts = [child for child in module.children() if next(child.parameters(), None) is not None]
    return parts[0] if len(parts) == 1 else module


def _wrap_anew(trainer: Any, module: nn.Module) -> None:
    """Let DDP, if there is one, see parameters that were resized."""
    if trainer.strategy.model is not module:
        trainer.strategy.model = module
        trainer.strategy.configure_ddp()


def _averages(trainer: Any) -> list[nn.Module]:
    """The copies of the module that Lightning's averaging callbacks hold, which have no public name."""
    models = (getattr(callback, "_average_model", None) for callback in trainer.callbacks)
    return [model.module for model in models if model is not None]
