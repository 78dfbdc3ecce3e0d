"""fastai by curriculum: loaders that its `Learner` takes, and a callback that keeps the model in step.

loaders = upchirp.fastai.curriculum_loaders(train, val, plan, epochs=90)
adamw = partial(OptimWrapper, opt=torch.optim.AdamW)
learner = Learner(loaders, model, nn.CrossEntropyLoss(), adamw, cbs=upchirp.fastai.Curriculum())
learner.fit(90)
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from upchirp.curriculum import Plan
from upchirp.data import Augmentation, Loader, as_source, normalize, scale_of
from upchirp.errors import InputError
from upchirp.timm.following import CurriculumLoader, CurriculumScheduler, fit_to_stored
from upchirp.training import EvaluationSet

try:
    _core: Any = import_module("fastai.callback.core")
    _schedule: Any = import_module("fastai.callback.schedule")
    _data: Any = import_module("fastai.data.core")
    _optimizer: Any = import_module("fastai.optimizer")
except ModuleNotFoundError as error:
    raise InputError("upchirp.fastai needs fastai, which is not installed: pip install fastai") from error

__all__ = ["Curriculum", "curriculum_loaders"]

_Callback: Any = _core.Callback


def curriculum_loaders(
    train: Any,
    val: Any,
    plan: Plan,
    *,
    epochs: int,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    workers: int | None = None,
    val_batch_size: int = 256,
    device: torch.device | str = "cpu",
    **loader: Any,
) -> Any:
    """Two loaders as fastai's `DataLoaders`: a plan's batches for training, and validation images at the final size.

    Training gives images and the shares of the classes in them, validation images and labels, so that torch's
    `CrossEntropyLoss` is right in both.

    Args:
        train: a `Source`, or what else `upchirp.Loader` takes.
        val: the same for validation.
        plan: what to train on; its steps are cut into epochs.
        epochs: of the learner.
        augmentation: as for `Loader`.
        seed: of data, augmentation, dropout and drop path.
        workers: loader processes, by default one for each core, 16 at most.
        val_batch_size: validation images in one forward pass.
        device: where the model is trained.
        loader: whatever else `upchirp.Loader` takes, such as `low_frequency` or `prepare`.
    """
    source, augmentation = as_source(train), augmentation or Augmentation()
    batches = Loader(source, plan, augmentation=augmentation, seed=seed, workers=workers, device=device, **loader)
    images = EvaluationSet(
        as_source(val),
        plan.final_size,
        augmentation,
        workers=workers,
        batch_size=val_batch_size,
    )
    in_epochs = CurriculumLoader(batches, epochs=epochs, classes=len(source.classes), device=device)
    return _data.DataLoaders(in_epochs, _Images(images, augmentation, torch.device(device)))


class Curriculum(_Callback):
    """Keeps model, moments and learning rate where the plan of `curriculum_loaders` has them.

    Validation sees the model at the final size, after which it is as before, bit by bit. What `learner.save` keeps of
    the end of an epoch, with its optimizer, is gone on with by `learner.load` and `fit(epochs, start_epoch=...)`.

    Raises:
        InputError: when fitting begins: other loaders or epochs, a schedule beside the plan's learning rates, or an
            optimizer that is not torch's.
    """

    # After the learner's own, which lets the model train, and before mixed precision.
    order = -5

    def after_create(self) -> None:
        """From here on the model takes the shapes of whatever is loaded into it."""
        self.learn.model.register_load_state_dict_pre_hook(fit_to_stored)

    def before_fit(self) -> None:
        """Refuse what would go wrong later."""
        learner, loader = self.learn, self.learn.dls.train
        if not isinstance(loader, CurriculumLoader):
            raise InputError("the plan comes with the data: give the learner upchirp.fastai.curriculum_loaders(...)")
        if learner.n_epoch != loader.epochs or loader.parts > 1:
            raise InputError(f"the plan is one of {loader.epochs} epochs of whole steps: fit({loader.epochs})")
        if any(isinstance(each, _schedule.ParamScheduler) for each in learner.cbs):
            raise InputError("the learning rates are the plan's: call `fit`, which brings no schedule of its own")
        if not isinstance(learner.opt, _optimizer.OptimWrapper):
            raise InputError(
                "moments are resized in torch's optimizers: opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)"
            )
        self._rates = CurriculumScheduler(learner.opt.opt, loader, learner.model)

    def before_train(self) -> None:
        """Go to where the epoch begins."""
        self._rates.step(self.learn.epoch)

    def after_step(self) -> None:
        """Go on by one step."""
        self._rates.step_update(self.learn.epoch * self.learn.dls.train.updates + self.learn.iter + 1)

    def after_fit(self) -> None:
        """Leave the model as any other."""
        self._rates.remove()


class _Images:
    """Validation images as a model takes them, and their labels."""

    def __init__(self, images: EvaluationSet, augmentation: Augmentation, device: torch.device) -> None:
        self._images, self._augmentation, self.device = images, augmentation, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._images:
            mean, std = self._augmentation.mean, self._augmentation.std
            images = normalize(batch.images.to(self.device), mean, std, scale_of(batch.images))
            yield images, batch.labels.to(self.device)

    def __len__(self) -> int:
        return self._images.batches
