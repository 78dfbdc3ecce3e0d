"""A callback for Lightning: model, moments, averages of the weights and learning rate follow the steps of a plan."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.lightning.data import CurriculumData
from upchirp.lightning.library import LIGHTNING
from upchirp.models import fit_to_bandwidth, lent_at_size, resized_parameters
from upchirp.randomness import step_seed
from upchirp.training import follow

_Callback: Any = LIGHTNING.Callback
_KEY = "upchirp.Curriculum"


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
